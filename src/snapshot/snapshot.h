/*
 * Snapshots: a machine in a file, and a machine that goes on from one.
 *
 * A snapshot holds what the guest could ever find out (vcpus, devices, time, RAM, what it printed)
 * and the configuration that the machine is built from, and nothing of how it was executed: the
 * same guest at the same instruction gives the same file, whatever engine, strategy and profile it
 * ran under, and it may go on under any other. docs/snapshots.md has the format.
 *
 * Saving writes beside the file and renames at the end, so that under the file's name there is the
 * old snapshot, the new one or none, never half of one. Opening checks everything but the bytes of
 * RAM, which are mapped and read when the guest touches them; snapshot_verify() reads them all.
 *
 * A file that passes the checks is trusted as much as the guest it holds: whatever its bytes, no
 * more happens than a guest could do by itself.
 */
#pragma once

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"

struct snapshot;
struct vm;
struct vm_config;

/* Saves `vm`, which stands between two turns (vm_call_at()), as `path`. With `base` (may be NULL),
 * the path of another snapshot of a machine with as much memory, only pages that differ from it are
 * stored, and the base is needed to restore. On any error `path` is what it was before. */
int snapshot_save(struct vm *vm, const char *path, const char *base, struct error *e);

/* At this moment RAM is what `path` holds: `vm` was just saved there or restored from it. From now
 * on the machine remembers which pages it writes, so that saving with this base looks at those
 * alone. */
int snapshot_track(struct vm *vm, const char *path, struct error *e);

/* Opens and checks; RAM itself is not read. -EINVAL for what is no snapshot or a damaged one, and
 * the message says which. */
int snapshot_open(struct snapshot **out, const char *path, struct error *e);
void snapshot_close(struct snapshot *s); /* snapshot_close(NULL) is legal */

/* Makes `c` describe the saved machine, for vm_create(): all that decides what the guest sees. How
 * to execute it is left as it is. Strings are borrowed from `s`, which must live until
 * vm_destroy(). */
void snapshot_configure(struct snapshot *s, struct vm_config *c);

/* Reads all of RAM, the bases' too. -EINVAL with the place that is damaged. */
int snapshot_verify(const struct snapshot *s, struct error *e);

/* What is in the file, for people or (schema "gnomon-snapshot", version 1) for programs.
 * `is_verified` says what to write about RAM. -EIO, -ENOMEM. */
int snapshot_describe(const struct snapshot *s, bool is_verified, bool is_json, FILE *f,
		      struct error *e);

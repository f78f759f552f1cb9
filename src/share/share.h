/*
 * A folder of the host for a guest: a server of 9P2000.L, the protocol of Linux's own 9p client.
 *
 * One message in, one message out: share_answer() is all there is, so that whoever has the
 * transport (virtio/p9.c, by way of a process of its own) needs to know nothing of files. Messages
 * are a guest's and hostile: every length is checked against what is there, names are single
 * components without '/', "." and "..", and a file is reached only by openat() of one component
 * beneath a descriptor that the server got in the same way, never through a symbolic link. Links
 * are the guest's to follow, inside what it sees. So nothing outside the folder can be named.
 *
 * Only regular files and folders are opened: no device, no pipe. Set-user-id bits, device nodes and
 * extended attributes are refused. Files that the guest makes belong to whoever runs the server.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

#define SHARE_MESSAGE_MAX (128u << 10)
#define SHARE_FIDS_MAX 65536u

struct share;

/* `root` is an open folder, the server's from then on. */
int share_create(struct share **out, int root, bool is_read_only, struct error *e);
void share_destroy(struct share *s); /* NULL is legal */

/* Answers one message; returns the answer's bytes, which are at most SHARE_MESSAGE_MAX, the room at
 * `out`. 0 if `in` is no message at all: then there is no answer. */
size_t share_answer(struct share *s, const uint8_t *in, size_t in_bytes, uint8_t *out);

/* How many files the guest holds at present. */
unsigned share_fid_count(const struct share *s);

/* An answer that says that a request failed, for a transport that has lost its server: 11 bytes. */
#define SHARE_ERROR_BYTES 11u
void share_error_answer(uint8_t out[SHARE_ERROR_BYTES], uint16_t tag, int error_number);

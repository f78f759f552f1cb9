/* What the files of share/ share: fids and requests. Private to share/. */
#pragma once

#include <sys/stat.h>

#include "share/message.h"
#include "share/share.h"

#define BUCKETS 1024u

/* What a guest calls a file. */
struct fid {
	uint32_t number;
	int path; /* names the file (O_PATH) */
	int open; /* reads and writes it; -1: not opened */
	struct fid *next;
};

struct share {
	int root;
	int descriptors; /* /proc/self/fd: how a named file is opened */
	dev_t device;	 /* of the root */
	bool is_read_only;
	uint32_t message_max; /* as agreed with the client */
	unsigned fid_count;
	struct fid *fids[BUCKETS];
};

struct request {
	struct share *share;
	struct reader in;
	struct writer out;
};

/* Functions of requests return 0 or a positive error number. */

/* ---- fids.c ---- */
struct fid *fid_find(struct share *s, uint32_t number);
/* Takes `path`; EBADF if the number is in use. On an error `path` is closed. */
int fid_add(struct share *s, uint32_t number, int path, struct fid **out);
void fid_remove(struct share *s, uint32_t number);
void fid_remove_all(struct share *s);
/* The next field's fid. */
int fid_get(struct request *q, struct fid **out);
/* A descriptor that reads or writes what `path` names; regular files and folders only. */
int open_named(const struct share *s, int path, int flags, int *out);
/* The next field, a name that stands for itself. */
int name_get(struct request *q, char name[NAME_BYTES]);
/* One component beneath `folder`, itself if it is a link. */
int open_path(int folder, const char *name, int *out);
void put_qid(struct request *q, const struct stat *st);
/* put_qid() of what is behind a descriptor; an error number. */
int put_qid_of(struct request *q, int fd);

/* ---- files.c and folders.c: one a message ---- */
int do_statfs(struct request *q);
int do_lopen(struct request *q);
int do_lcreate(struct request *q);
int do_getattr(struct request *q);
int do_setattr(struct request *q);
int do_read(struct request *q);
int do_write(struct request *q);
int do_fsync(struct request *q);
int do_lock(struct request *q);
int do_getlock(struct request *q);

int do_walk(struct request *q);
int do_readdir(struct request *q);
int do_readlink(struct request *q);
int do_symlink(struct request *q);
int do_link(struct request *q);
int do_mkdir(struct request *q);
int do_rename(struct request *q);
int do_renameat(struct request *q);
int do_unlinkat(struct request *q);

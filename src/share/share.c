/* A message in, a message out: the session, and who answers what. */
#include "share/share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "share/private.h"

#define HEADER_BYTES 7u
#define MESSAGE_MIN 4096u

enum {
	RLERROR = 7,
	TVERSION = 100,
	TATTACH = 104,
	TFLUSH = 108,
	TCLUNK = 120,
	TREMOVE = 122,
};

/* ---- the session ---- */

static int do_version(struct request *q)
{
	static const char ours[] = "9P2000.L";
	char version[NAME_BYTES];
	uint32_t wanted = (uint32_t)get(&q->in, 4);
	bool is_ours = get_text(&q->in, version, sizeof(version)) && !strcmp(version, ours);
	if (q->in.is_short || wanted < MESSAGE_MIN)
		return EINVAL;
	fid_remove_all(q->share);
	q->share->message_max = wanted < SHARE_MESSAGE_MAX ? wanted : SHARE_MESSAGE_MAX;
	put(&q->out, 4, q->share->message_max);
	put_text(&q->out, is_ours ? ours : "unknown", is_ours ? strlen(ours) : 7);
	return 0;
}

static int do_attach(struct request *q)
{
	uint32_t number = (uint32_t)get(&q->in, 4);
	int fd = fcntl(q->share->root, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	int r = fid_add(q->share, number, fd, NULL);
	return r ? r : put_qid_of(q, fd);
}

/* Every request is answered before the next is read: there is nothing to flush. */
static int do_flush(struct request *q)
{
	(void)q;
	return 0;
}

static int do_clunk(struct request *q)
{
	struct fid *f;
	int r = fid_get(q, &f);
	if (!r)
		fid_remove(q->share, f->number);
	return r;
}

static int do_remove(struct request *q)
{
	do_clunk(q);
	return EOPNOTSUPP; /* as with Trename */
}

/* ---- who answers what ---- */

static const struct {
	uint8_t type;
	int (*answer)(struct request *q);
} rows[] = {
	{8, do_statfs},	      {12, do_lopen},	  {14, do_lcreate},   {16, do_symlink},
	{20, do_rename},      {22, do_readlink},  {24, do_getattr},   {26, do_setattr},
	{40, do_readdir},     {50, do_fsync},	  {52, do_lock},      {54, do_getlock},
	{70, do_link},	      {72, do_mkdir},	  {74, do_renameat},  {76, do_unlinkat},
	{110, do_walk},	      {116, do_read},	  {118, do_write},    {TVERSION, do_version},
	{TATTACH, do_attach}, {TFLUSH, do_flush}, {TCLUNK, do_clunk}, {TREMOVE, do_remove},
};

static int answer(struct request *q, uint8_t type)
{
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		if (rows[i].type == type) {
			int r = rows[i].answer(q);
			return !r && q->out.is_full ? EMSGSIZE : r;
		}
	return EOPNOTSUPP; /* extended attributes, device nodes, authentication */
}

void share_error_answer(uint8_t out[SHARE_ERROR_BYTES], uint16_t tag, int error_number)
{
	struct writer w = {.at = out, .end = out + SHARE_ERROR_BYTES};
	put(&w, 4, SHARE_ERROR_BYTES);
	put(&w, 1, RLERROR);
	put(&w, 2, tag);
	put(&w, 4, (uint64_t)error_number);
}

size_t share_answer(struct share *s, const uint8_t *in, size_t in_bytes, uint8_t *out)
{
	struct request q = {.share = s, .in = {.at = in, .end = in + in_bytes}};
	uint64_t bytes = get(&q.in, 4);
	uint8_t type = (uint8_t)get(&q.in, 1);
	uint16_t tag = (uint16_t)get(&q.in, 2);
	if (q.in.is_short)
		return 0;
	q.out = (struct writer){.at = out + HEADER_BYTES, .end = out + s->message_max};
	int r = bytes == in_bytes && in_bytes <= s->message_max ? answer(&q, type) : EBADMSG;
	if (r) {
		share_error_answer(out, tag, r);
		return SHARE_ERROR_BYTES;
	}
	struct writer head = {.at = out, .end = out + HEADER_BYTES};
	size_t length = (size_t)(q.out.at - out);
	put(&head, 4, length);
	put(&head, 1, type + 1u);
	put(&head, 2, tag);
	return length;
}

/* ---- life ---- */

int share_create(struct share **out, int root, bool is_read_only, struct error *e)
{
	struct stat st;
	struct share *s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(e, -ENOMEM, "out of memory");
	*s = (struct share){.root = root,
			    .descriptors = -1,
			    .is_read_only = is_read_only,
			    .message_max = SHARE_MESSAGE_MAX};
	s->descriptors = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->descriptors < 0 || fstat(root, &st)) {
		share_destroy(s);
		return error_set(e, -errno, "there is no /proc/self/fd");
	}
	s->device = st.st_dev;
	*out = s;
	return 0;
}

void share_destroy(struct share *s)
{
	if (!s)
		return;
	fid_remove_all(s);
	close(s->root);
	if (s->descriptors >= 0)
		close(s->descriptors);
	free(s);
}

unsigned share_fid_count(const struct share *s)
{
	return s->fid_count;
}

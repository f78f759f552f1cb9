/*
 * A shared folder, message by message: what a client may do, and that nothing it says leads out of
 * the folder or to what is no file.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "share/share.h"

#include <cmocka.h>

#define NOFID 0xffffffffu

struct world {
	char folder[32], shared[48];
	struct share *share;
	uint8_t in[8192], out[SHARE_MESSAGE_MAX];
	size_t in_bytes, out_bytes;
};

/* ---- a client ---- */

static void add(struct world *w, unsigned bytes, uint64_t v)
{
	memcpy(w->in + w->in_bytes, &v, bytes);
	w->in_bytes += bytes;
}

static void add_text(struct world *w, const char *text)
{
	add(w, 2, strlen(text));
	memcpy(w->in + w->in_bytes, text, strlen(text));
	w->in_bytes += strlen(text);
}

static uint64_t field(const struct world *w, size_t offset, unsigned bytes)
{
	uint64_t v = 0;
	assert_true(offset + bytes <= w->out_bytes);
	memcpy(&v, w->out + offset, bytes);
	return v;
}

/* Sends what was added; 0 or the error number. */
static int say(struct world *w)
{
	uint8_t type = w->in[4];
	memcpy(w->in, &(uint32_t){(uint32_t)w->in_bytes}, 4);
	w->out_bytes = share_answer(w->share, w->in, w->in_bytes, w->out);
	assert_int_equal(field(w, 0, 4), w->out_bytes);
	assert_int_equal(field(w, 5, 2), 77);
	if (w->out[4] == 7)
		return (int)field(w, 7, 4);
	assert_int_equal(w->out[4], type + 1);
	return 0;
}

/* Begins a message; "4" and the like are the sizes of the numbers that follow, "s" a text. */
static void begin(struct world *w, uint8_t type, const char *fields, ...)
{
	va_list list;
	w->in_bytes = 4;
	add(w, 1, type);
	add(w, 2, 77);
	va_start(list, fields);
	for (; *fields; fields++)
		if (*fields == 's')
			add_text(w, va_arg(list, const char *));
		else if (*fields == '8')
			add(w, 8, va_arg(list, uint64_t));
		else
			add(w, (unsigned)(*fields - '0'), va_arg(list, unsigned));
	va_end(list);
}

#define SAY(type, ...) (begin(w, type, __VA_ARGS__), say(w))
#define WALK(from, to, name) SAY(110, "442s", from, to, 1u, name)

static int walk2(struct world *w, unsigned from, unsigned to, const char *a, const char *b)
{
	return SAY(110, "442ss", from, to, 2u, a, b);
}

static int clunk(struct world *w, unsigned fid)
{
	return SAY(120, "4", fid);
}

static void put_file(struct world *w, const char *name, const char *text)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", w->folder, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void open_share(struct world *w, bool is_read_only)
{
	struct error e = {0};
	share_destroy(w->share);
	int root = open(w->shared, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (share_create(&w->share, root, is_read_only, &e))
		fail_msg("%s", e.text);
	assert_int_equal(SAY(100, "4s", 65536u, "9P2000.L"), 0);
	assert_int_equal(field(w, 7, 4), 65536);
	assert_int_equal(SAY(104, "44ss4", 1u, NOFID, "root", "", 0u), 0);
	assert_int_equal(w->out[7], 0x80);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char path[128];
	strcpy(w->folder, "/tmp/gnomon-share-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	snprintf(w->shared, sizeof(w->shared), "%s/shared", w->folder);
	assert_int_equal(mkdir(w->shared, 0755), 0);
	snprintf(path, sizeof(path), "%s/sub", w->shared);
	assert_int_equal(mkdir(path, 0755), 0);
	put_file(w, "secret", "nobody may read this");
	put_file(w, "shared/hello", "hello, guest");
	put_file(w, "shared/sub/deep", "deep");
	snprintf(path, sizeof(path), "%s/out", w->shared);
	assert_int_equal(symlink("../secret", path), 0);
	snprintf(path, sizeof(path), "%s/up", w->shared);
	assert_int_equal(symlink("..", path), 0);
	snprintf(path, sizeof(path), "%s/pipe", w->shared);
	assert_int_equal(mkfifo(path, 0644), 0);
	umask(0);
	open_share(w, false);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[64];
	share_destroy(w->share);
	snprintf(command, sizeof(command), "rm -rf %s", w->folder);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

/* ---- what works ---- */

static void test_read(void **state)
{
	struct world *w = *state;
	assert_int_equal(WALK(1u, 2u, "hello"), 0);
	assert_int_equal(field(w, 7, 2), 1);
	assert_int_equal(SAY(12, "44", 2u, 0u), 0);
	assert_int_equal(SAY(116, "484", 2u, (uint64_t)7, 100u), 0);
	assert_int_equal(field(w, 7, 4), 5);
	assert_memory_equal(w->out + 11, "guest", 5);
	assert_int_equal(SAY(116, "484", 2u, (uint64_t)100, 100u), 0);
	assert_int_equal(field(w, 7, 4), 0);
	assert_int_equal(SAY(116, "484", 2u, UINT64_MAX, 100u), EBADF);
	assert_int_equal(SAY(24, "48", 2u, (uint64_t)0x7ff), 0);
	assert_int_equal(field(w, 7 + 8 + 13, 4), S_IFREG | 0644);
	assert_int_equal(field(w, 7 + 8 + 13 + 4 + 4 + 4 + 8 + 8, 8), 12);
	assert_int_equal(SAY(8, "4", 2u), 0);
	assert_int_equal(clunk(w, 2), 0);
	assert_int_equal(clunk(w, 2), EBADF);
	assert_int_equal(share_fid_count(w->share), 1);
}

static void test_walk(void **state)
{
	struct world *w = *state;
	assert_int_equal(walk2(w, 1, 2, "sub", "deep"), 0);
	assert_int_equal(field(w, 7, 2), 2);
	assert_int_equal(WALK(1u, 2u, "hello"), EBADF); /* the number is in use */
	assert_int_equal(walk2(w, 1, 3, "sub", "no"), 0);
	assert_int_equal(field(w, 7, 2), 1); /* half the way, and no fid */
	assert_int_equal(clunk(w, 3), EBADF);
	assert_int_equal(WALK(1u, 3u, "no"), ENOENT);
	assert_int_equal(WALK(9u, 3u, "hello"), EBADF);
	assert_int_equal(SAY(110, "442", 1u, 3u, 0u), 0); /* a copy */
	assert_int_equal(WALK(3u, 3u, "sub"), 0);	  /* the same fid goes on */
	assert_int_equal(WALK(3u, 3u, "deep"), 0);
	assert_int_equal(SAY(110, "442", 1u, 4u, 17u), EINVAL);
	assert_int_equal(share_fid_count(w->share), 3);
	assert_int_equal(SAY(100, "4s", 8192u, "9P2000.L"), 0); /* all over again */
	assert_int_equal(share_fid_count(w->share), 0);
	assert_int_equal(SAY(100, "4s", 8192u, "9P2000"), 0);
	assert_memory_equal(w->out + 13, "unknown", 7);
	assert_int_equal(SAY(100, "4s", 100u, "9P2000.L"), EINVAL);
}

static void test_list(void **state)
{
	struct world *w = *state;
	char names[256] = "";
	uint64_t offset = 0;
	assert_int_equal(SAY(12, "44", 1u, 0200000u), 0);
	for (unsigned round = 0; round < 20; round++) {
		/* Room for two entries a message. */
		assert_int_equal(SAY(40, "484", 1u, offset, 64u), 0);
		if (!field(w, 7, 4))
			break;
		for (size_t at = 11; at < w->out_bytes;) {
			size_t length = field(w, at + 22, 2);
			strcat(names, " ");
			strncat(names, (char *)w->out + at + 24, length);
			offset = field(w, at + 13, 8);
			at += 24 + length;
		}
	}
	static const char *const wanted[] = {" .", " ..", " hello", " sub", " out", " up", " pipe"};
	for (size_t i = 0; i < ARRAY_COUNT(wanted); i++)
		assert_non_null(strstr(names, wanted[i]));
	assert_int_equal(strlen(names), strlen(" . .. hello sub out up pipe"));
}

static void test_make_and_change(void **state)
{
	struct world *w = *state;
	struct stat st;
	char path[64];
	snprintf(path, sizeof(path), "%s/new", w->shared);
	assert_int_equal(SAY(110, "442", 1u, 2u, 0u), 0);
	/* With the bits that make it somebody else's program, which are left out. */
	assert_int_equal(SAY(14, "4s444", 2u, "new", 2u, 06755u, 0u), 0);
	begin(w, 118, "484", 2u, (uint64_t)3, 4u);
	add(w, 4, 0x64636261);
	assert_int_equal(say(w), 0);
	assert_int_equal(field(w, 7, 4), 4);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0755);
	assert_int_equal(st.st_size, 7);
	/* More than is there: nothing is written. */
	begin(w, 118, "484", 2u, (uint64_t)0, 5u);
	add(w, 4, 0);
	assert_int_equal(say(w), EBADF);
	assert_int_equal(SAY(26,
			     "44444"
			     "8"
			     "8888",
			     2u, 1u | 8u | 0x20u | 0x100u, 04711u, 0u, 0u, (uint64_t)2, (uint64_t)0,
			     (uint64_t)0, (uint64_t)1234567, (uint64_t)89),
			 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0711);
	assert_int_equal(st.st_size, 2);
	assert_int_equal(st.st_mtim.tv_sec, 1234567);
	assert_int_equal(st.st_mtim.tv_nsec, 89);
	assert_int_equal(SAY(50, "44", 2u, 1u), 0);
	assert_int_equal(SAY(52,
			     "4148"
			     "84s",
			     2u, 1u, 0u, (uint64_t)0, (uint64_t)0, 1u, "me"),
			 0);
	/* Exclusively: it is there already. */
	assert_int_equal(SAY(110, "442", 1u, 3u, 0u), 0);
	assert_int_equal(SAY(14, "4s444", 3u, "new", 0200u, 0644u, 0u), EEXIST);
	assert_int_equal(SAY(14, "4s444", 3u, "new", 2u, 0644u, 0u), 0);
}

static void test_names(void **state)
{
	struct world *w = *state;
	struct stat st;
	char path[64];
	assert_int_equal(SAY(72, "4s44", 1u, "dir", 0700u, 0u), 0);
	assert_int_equal(SAY(72, "4s44", 1u, "dir", 0700u, 0u), EEXIST);
	assert_int_equal(WALK(1u, 2u, "dir"), 0);
	assert_int_equal(SAY(16, "4ss4", 2u, "link", "../hello", 0u), 0);
	assert_int_equal(WALK(2u, 3u, "link"), 0);
	assert_int_equal(w->out[9], 0x02);
	assert_int_equal(SAY(22, "4", 3u), 0);
	assert_int_equal(field(w, 7, 2), 8);
	assert_memory_equal(w->out + 9, "../hello", 8);
	assert_int_equal(SAY(22, "4", 2u), EINVAL);
	assert_int_equal(WALK(1u, 4u, "hello"), 0);
	assert_int_equal(SAY(70, "44s", 2u, 4u, "second"), 0);
	assert_int_equal(SAY(74, "4s4s", 2u, "second", 1u, "third"), 0);
	snprintf(path, sizeof(path), "%s/third", w->shared);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_nlink, 2);
	assert_int_equal(SAY(76, "4s4", 1u, "dir", 0u), EISDIR);
	assert_int_equal(SAY(76, "4s4", 1u, "dir", 0x200u), ENOTEMPTY);
	assert_int_equal(SAY(76, "4s4", 2u, "link", 0u), 0);
	assert_int_equal(SAY(76, "4s4", 1u, "dir", 0x200u), 0);
	/* A file that has gone is still there for who holds it. */
	assert_int_equal(SAY(24, "48", 2u, (uint64_t)0x7ff), 0);
	assert_int_equal(SAY(72, "4s44", 2u, "x", 0700u, 0u), ENOENT);
}

/* ---- what must not ---- */

static void test_no_way_out(void **state)
{
	struct world *w = *state;
	static const char *const names[] = {"..", ".", "", "../secret", "/etc/passwd", "sub/deep"};
	for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
		assert_int_equal(WALK(1u, 2u, names[i]), EINVAL);
		assert_int_equal(SAY(72, "4s44", 1u, names[i], 0700u, 0u), EINVAL);
		assert_int_equal(SAY(76, "4s4", 1u, names[i], 0u), EINVAL);
		assert_int_equal(SAY(74, "4s4s", 1u, "hello", 1u, names[i]), EINVAL);
		assert_int_equal(SAY(16, "4ss4", 1u, names[i], "x", 0u), EINVAL);
		assert_int_equal(SAY(14, "4s444", 1u, names[i], 1u, 0644u, 0u), EINVAL);
	}
	/* A NUL inside a name. */
	begin(w, 110, "442", 1u, 2u, 1u);
	add(w, 2, 5);
	add(w, 5, 0x2f006c6c65);
	assert_int_equal(say(w), ENAMETOOLONG);
	/* Links are not followed: neither to the file nor through the folder. */
	assert_int_equal(WALK(1u, 2u, "out"), 0);
	assert_int_equal(SAY(12, "44", 2u, 0u), ELOOP);
	assert_int_equal(SAY(26,
			     "44444"
			     "8"
			     "8888",
			     2u, 8u, 0u, 0u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0, (uint64_t)0,
			     (uint64_t)0),
			 ELOOP);
	assert_int_equal(SAY(26,
			     "44444"
			     "8"
			     "8888",
			     2u, 1u, 0777u, 0u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0,
			     (uint64_t)0, (uint64_t)0),
			 EOPNOTSUPP);
	assert_int_equal(SAY(14, "4s444", 1u, "out", 2u, 0644u, 0u), ELOOP);
	assert_int_equal(walk2(w, 1, 3, "up", "secret"), 0);
	assert_int_equal(field(w, 7, 2), 1);
	assert_int_equal(clunk(w, 3), EBADF);
	assert_int_equal(SAY(70, "44s", 1u, 2u, "copy"), EPERM);
	/* Neither is a pipe opened, nor made. */
	assert_int_equal(WALK(1u, 3u, "pipe"), 0);
	assert_int_equal(SAY(12, "44", 3u, 0u), EACCES);
	assert_int_equal(SAY(14, "4s444", 1u, "pipe", 1u, 0644u, 0u), EACCES);
	assert_int_equal(SAY(18, "4s4444", 1u, "dev", 020644u, 1u, 3u, 0u), EOPNOTSUPP);
}

static void test_read_only(void **state)
{
	struct world *w = *state;
	open_share(w, true);
	assert_int_equal(WALK(1u, 2u, "hello"), 0);
	assert_int_equal(SAY(12, "44", 2u, 1u), EROFS);
	assert_int_equal(SAY(12, "44", 2u, 01000u), EROFS);
	assert_int_equal(SAY(14, "4s444", 1u, "new", 1u, 0644u, 0u), EROFS);
	assert_int_equal(SAY(16, "4ss4", 1u, "new", "x", 0u), EROFS);
	assert_int_equal(SAY(72, "4s44", 1u, "new", 0700u, 0u), EROFS);
	assert_int_equal(SAY(70, "44s", 1u, 2u, "new"), EROFS);
	assert_int_equal(SAY(74, "4s4s", 1u, "hello", 1u, "new"), EROFS);
	assert_int_equal(SAY(76, "4s4", 1u, "hello", 0u), EROFS);
	assert_int_equal(SAY(26,
			     "44444"
			     "8"
			     "8888",
			     2u, 1u, 0u, 0u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0, (uint64_t)0,
			     (uint64_t)0),
			 EROFS);
	assert_int_equal(SAY(12, "44", 2u, 0u), 0);
	begin(w, 118, "484", 2u, (uint64_t)0, 4u);
	add(w, 4, 0);
	assert_int_equal(say(w), EROFS);
}

/* Every message that ends too early is an error, or needs no more. */
static void test_short_messages(void **state)
{
	struct world *w = *state;
	for (unsigned type = 0; type < 256; type++)
		for (size_t size = 7; size < 40; size++) {
			w->in_bytes = 4;
			add(w, 1, type);
			add(w, 2, 77);
			memset(w->in + 7, 0, 40);
			w->in[7] = 1;
			w->in_bytes = size;
			say(w);
		}
	/* A length that is not the message's. */
	begin(w, 120, "4", 1u);
	memcpy(w->in, &(uint32_t){12}, 4);
	w->out_bytes = share_answer(w->share, w->in, w->in_bytes, w->out);
	assert_int_equal(field(w, 7, 4), EBADMSG);
	assert_int_equal(share_answer(w->share, w->in, 6, w->out), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_read),      TEST(test_walk),
		TEST(test_list),      TEST(test_make_and_change),
		TEST(test_names),     TEST(test_no_way_out),
		TEST(test_read_only), TEST(test_short_messages),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

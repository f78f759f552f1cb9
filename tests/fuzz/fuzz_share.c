/*
 * Messages of a hostile client of a shared folder. What is found is a crash, a sanitizer's report,
 * an answer longer than agreed, or a change outside the folder (its neighbour stays as it is).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "share/share.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/gnomon-fuzz-XXXXXX";

static void make_folder(void)
{
	char path[64];
	if (!mkdtemp(folder))
		abort();
	snprintf(path, sizeof(path), "%s/shared", folder);
	if (mkdir(path, 0755))
		abort();
	snprintf(path, sizeof(path), "%s/shared/a", folder);
	if (mkdir(path, 0755))
		abort();
	snprintf(path, sizeof(path), "%s/shared/up", folder);
	if (symlink("..", path))
		abort();
	snprintf(path, sizeof(path), "%s/neighbour", folder);
	close(open(path, O_CREAT | O_WRONLY, 0600));
}

static void remove_folder(void)
{
	char command[64];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	(void)!system(command);
}

static void check_neighbour(void)
{
	char path[64];
	struct stat st;
	snprintf(path, sizeof(path), "%s/neighbour", folder);
	if (stat(path, &st) || st.st_size || st.st_mode != (S_IFREG | 0600) || st.st_nlink != 1)
		abort();
	/* Where it lies there is nothing new: itself, "shared" and the two of every folder. */
	if (stat(folder, &st) || st.st_nlink != 3)
		abort();
}

static void say(struct share *s, const uint8_t *in, size_t size)
{
	static uint8_t out[SHARE_MESSAGE_MAX];
	size_t n = share_answer(s, in, size, out);
	uint32_t length;
	memcpy(&length, out, sizeof(length));
	if (n && (n > SHARE_MESSAGE_MAX || length != n || n < 7))
		abort();
}

/* What most messages need: a session. */
static void begin(struct share *s)
{
	static const uint8_t version[] = "\x15\0\0\0\x64\0\0\0\x20\0\0\x08\0"
					 "9P2000.L";
	static const uint8_t attach[] = "\x17\0\0\0\x68\0\0\1\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0";
	say(s, version, 21);
	say(s, attach, 23);
}

/* The input is messages: a length, a type out of those that there are, the rest as it is. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t types[] = {8,   12,  14,  16,  20,	 22,  24, 26,  40,  50,	 52,
					54,  70,  72,  74,  76,	 18,  30, 100, 104, 108, 110,
					116, 118, 120, 122, 110, 110, 12, 14,  72,  116};
	static bool has_folder;
	struct share *s;
	char path[64];
	if (!has_folder) {
		make_folder();
		atexit(remove_folder);
	}
	has_folder = true;
	snprintf(path, sizeof(path), "%s/shared", folder);
	if (share_create(&s, open(path, O_RDONLY | O_DIRECTORY), false, NULL))
		abort();
	begin(s);
	while (size > 2) {
		uint8_t message[7 + 255] = {0};
		size_t n = data[0] < size - 2 ? data[0] : size - 2;
		message[0] = (uint8_t)(7 + n);
		message[1] = (7 + n) >> 8;
		message[4] = types[data[1] % sizeof(types)];
		memcpy(message + 7, data + 2, n);
		say(s, message, 7 + n);
		data += 2 + n;
		size -= 2 + n;
	}
	share_destroy(s);
	check_neighbour();
	return 0;
}

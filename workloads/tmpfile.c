/* Writes and reads of a small file in memory: in $TMPDIR, /tmp, or /dev/shm, whichever can be
 * written. */
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int open_file(void)
{
	const char *folders[] = {getenv("TMPDIR"), "/tmp", "/dev/shm"};
	char path[4096];

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		if (!folders[i] || snprintf(path, sizeof(path), "%s/suite-XXXXXX", folders[i]) >=
					   (int)sizeof(path))
			continue;
		int fd = mkstemp(path);
		if (fd < 0)
			continue;
		unlink(path);
		return fd;
	}
	give_up("a temporary file");
}

uint64_t tmpfiles(unsigned scale)
{
	static unsigned char out[4096], in[4096];
	int fd = open_file();
	uint64_t sum = 0;

	for (size_t round = 0; round < 300ul * scale; round++) {
		off_t at = (off_t)(round % 16 * 4096);

		for (size_t i = 0; i < sizeof(out); i += 64)
			out[i] = (unsigned char)(round + i / 64);
		if (pwrite(fd, out, sizeof(out), at) != sizeof(out) ||
		    pread(fd, in, sizeof(in), at) != sizeof(in))
			give_up("a temporary file");
		for (size_t i = 0; i < sizeof(in); i += 64)
			sum = fold(sum, in[i]);
	}
	close(fd);
	return sum;
}

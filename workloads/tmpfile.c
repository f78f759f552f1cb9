/* Writes and reads of a small file in memory (/tmp, or /dev/shm when /tmp cannot be written). */
#include "suite.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int open_file(void)
{
	char in_tmp[] = "/tmp/suite-XXXXXX", in_shm[] = "/dev/shm/suite-XXXXXX";
	char *path = in_tmp;
	int fd = mkstemp(path);

	if (fd < 0)
		fd = mkstemp(path = in_shm);
	if (fd < 0)
		give_up("a temporary file");
	unlink(path);
	return fd;
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

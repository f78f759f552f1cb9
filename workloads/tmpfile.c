/* Writes and reads of a small file in memory. */
#include "suite.h"

#include <unistd.h>

uint64_t tmpfiles(unsigned scale)
{
	static unsigned char out[4096], in[4096];
	int fd = open_unnamed_file();
	uint64_t sum = 0;

	measure_begin();
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
	measure_end();
	close(fd);
	return sum;
}

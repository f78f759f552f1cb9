/* Reads of /dev/zero: the kernel's way of filling user memory. */
#include "suite.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

uint64_t devzero(unsigned scale)
{
	static unsigned char buffer[16384];
	int fd = open("/dev/zero", O_RDONLY);
	uint64_t sum = 0;

	if (fd < 0)
		give_up("/dev/zero");
	measure_begin();
	for (size_t round = 0; round < 200ul * scale; round++) {
		size_t count = 1 + (round * 977) % sizeof(buffer);

		buffer[count - 1] = 1;
		if (read(fd, buffer, count) != (ssize_t)count)
			give_up("/dev/zero");
		sum = fold(sum, buffer[count - 1] + count);
	}
	measure_end();
	close(fd);
	return sum;
}

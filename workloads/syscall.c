/* The cheapest system call there is: entry and return, nothing between. */
#include "suite.h"

#include <sys/syscall.h>
#include <unistd.h>

uint64_t syscalls(unsigned scale)
{
	long first = syscall(SYS_getppid);
	uint64_t same = 0;

	measure_begin();
	for (size_t i = 0; i < 10000ul * scale; i++)
		same += syscall(SYS_getppid) == first;
	measure_end();
	return fold(0, same);
}

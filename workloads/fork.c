/* fork and wait, with some dirty pages to share: page-table copies and copy-on-write. */
#include "suite.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 32

uint64_t forkwait(unsigned scale)
{
	unsigned char *memory = fresh_pages(PAGES * 4096);
	uint64_t sum = 0;
	int status;

	measure_begin();
	for (unsigned i = 0; i < 20 * scale; i++) {
		pid_t child;

		for (int page = 0; page < PAGES; page++)
			memory[page * 4096]++;
		child = fork();
		if (child < 0)
			give_up("fork");
		if (!child) {
			memory[(i % PAGES) * 4096] += 3;
			_exit(memory[(i % PAGES) * 4096] & 0x7f);
		}
		if (waitpid(child, &status, 0) != child)
			give_up("waitpid");
		sum = fold(sum, (uint64_t)WEXITSTATUS(status) << 8 | memory[(i % PAGES) * 4096]);
	}
	measure_end();
	munmap(memory, PAGES * 4096);
	return sum;
}

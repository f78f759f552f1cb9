/* fork, exec, wait: what a shell does all day. The child is this very program, which only returns a
 * status. */
#include "suite.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

uint64_t forkexec(unsigned scale)
{
	uint64_t sum = 0;
	char number[16];
	int status;

	measure_begin();
	for (unsigned i = 1; i <= 10 * scale; i++) {
		pid_t child = fork();

		if (child < 0)
			give_up("fork");
		if (!child) {
			snprintf(number, sizeof(number), "%u", i);
			execl("/proc/self/exe", "suite", "exit", number, (char *)NULL);
			_exit(127);
		}
		if (waitpid(child, &status, 0) != child)
			give_up("waitpid");
		sum = fold(sum, (uint64_t)WEXITSTATUS(status));
	}
	measure_end();
	return sum;
}

/* stat of paths that exist and paths that do not: string copies, path walks, dentry look-ups. */
#include "suite.h"

#include <errno.h>
#include <sys/stat.h>

uint64_t stats(unsigned scale)
{
	static const char *const paths[] = {"/", "/dev/null", "/proc/self", "/no/such/path",
					    "/dev/../dev/zero"};
	struct stat st;
	uint64_t sum = 0;

	measure_begin();
	for (size_t round = 0; round < 3000ul * scale; round++) {
		int failed = stat(paths[round % 5], &st);

		sum = fold(sum, failed ? (uint64_t)errno : (uint64_t)(st.st_mode & S_IFMT));
	}
	measure_end();
	return sum;
}

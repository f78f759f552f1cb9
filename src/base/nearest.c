#include "base/nearest.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

#define NAME_MAX_LENGTH 40

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;
	return m < c ? m : c;
}

/* Optimal string alignment distance, without regard to case. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[3][NAME_MAX_LENGTH + 1]; /* of i - 2, i - 1, i; taken modulo 3 */
	size_t m = strlen(a), n = strlen(b);
	if (m > NAME_MAX_LENGTH || n > NAME_MAX_LENGTH)
		return UINT_MAX;
	for (unsigned j = 0; j <= n; j++)
		row[0][j] = j;
	for (unsigned i = 1; i <= m; i++) {
		unsigned *now = row[i % 3], *above = row[(i + 2) % 3], *above2 = row[(i + 1) % 3];
		now[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			int x = tolower((unsigned char)a[i - 1]),
			    y = tolower((unsigned char)b[j - 1]);
			now[j] = min3(above[j] + 1, now[j - 1] + 1, above[j - 1] + (x != y));
			if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
			    y == tolower((unsigned char)a[i - 2]) && above2[j - 2] + 1 < now[j])
				now[j] = above2[j - 2] + 1;
		}
	}
	return row[m % 3][n];
}

const char *nearest(const char *wanted, size_t count,
		    const char *(*name)(const void *opaque, size_t i), const void *opaque)
{
	size_t length = strlen(wanted);
	/* Farther than this it is another word. */
	unsigned best_distance = (unsigned)(length / 3) + 2;
	const char *best = NULL;
	for (size_t i = 0; i < count; i++) {
		const char *candidate = name(opaque, i);
		if (!candidate)
			continue;
		/* An abbreviation is as good as one edit. */
		bool is_prefix = length >= 2 && !strncmp(candidate, wanted, length);
		unsigned d = is_prefix ? 1 : distance(wanted, candidate);
		if (d < best_distance) {
			best_distance = d;
			best = candidate;
		}
	}
	return best;
}

/*
 * What is odd about a profile that is well formed: values that contradict each other, and marks
 * that contradict their sources. A finding is no error, because a what-if may want exactly that.
 */
#pragma once

#include "hw/hw.h"

struct finding {
	char place[64]; /* as in struct fact */
	char text[200];
};

#define FINDINGS_MAX 64

/* How many findings there are; the first FINDINGS_MAX are in `out`. */
size_t profile_lint(const struct profile *p, struct finding out[FINDINGS_MAX]);

/* Classes of instructions, for the generator. */
#pragma once

#include "diff.h"

enum group {
	GROUP_INTEGER,
	GROUP_STRING,
	GROUP_STACK,
	GROUP_BRANCH,
	GROUP_PRIVILEGED,
	GROUP_BMI,
	GROUP_X87,
	GROUP_MMX,
	GROUP_SSE,
	GROUP_AVX,
	GROUP_MASKED,
	GROUP_STATE,
	GROUP_COUNT,
	GROUP_NONE,
};

enum group group_of(const struct test_case *t);
/* Results that legally differ, or that would touch what the harness stands on. */
bool is_excluded(const struct test_case *t);
/* Results that differ on AMD's processors; see native_is_amd(). */
bool is_excluded_on_amd(const struct test_case *t);
/* Several steps, each of which may raise an unmasked exception of its own before the next begins:
 * in which order is not documented. */
bool has_steps(ZydisMnemonic m);
bool is_xsave(ZydisMnemonic m);
bool is_xrstor(ZydisMnemonic m);

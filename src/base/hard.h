/*
 * Hard mode (-Dhard=true) makes rare events constant: caches of two entries, limits of one page,
 * checks at every exit. What is dear that way (dropping all translated code, auditing a shadow) is
 * rationed, so that unit tests and small guests see nothing else and a kernel still boots: limits
 * double after they were reached so many times, and what is done each time is done less and less
 * often. In the default build these are the full limit and never.
 */
#pragma once

#include <assert.h>

#include "base/types.h"

#ifdef GNOMON_HARD
#define IS_HARD true
#else
#define IS_HARD false
#endif

/* A limit: `tiny` until it was reached `patience` times, then twice that, up to `full`. */
static inline uint64_t hard_limit(uint64_t tiny, uint64_t full, uint64_t reached_count,
				  uint64_t patience)
{
	uint64_t doublings = reached_count / patience;
	return IS_HARD && doublings < 40 && tiny << doublings < full ? tiny << doublings : full;
}

/* Is the event number `count` one to do it at? The first `patience` are, then every second of as
 * many, every fourth of twice as many, and so on. */
static inline bool hard_is_due(uint64_t count, uint64_t patience)
{
	unsigned shift = 0;
	while (IS_HARD && count / patience >> shift && shift < 40)
		shift++;
	return IS_HARD && !(count & (((uint64_t)1 << shift) - 1));
}

/* What is too dear to be checked each time otherwise. */
#define hard_audit(condition) assert(!IS_HARD || (condition))

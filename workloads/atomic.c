/* Locked operations on one line: xadd, cmpxchg, xchg, or. */
#include "suite.h"

uint64_t atomics(unsigned scale)
{
	static uint64_t counter, word, flags;
	uint64_t sum = 0;

	counter = word = flags = 0;
	measure_begin();
	for (size_t i = 0; i < 150000ul * scale; i++) {
		uint64_t seen = __atomic_fetch_add(&counter, i, __ATOMIC_SEQ_CST);

		__atomic_compare_exchange_n(&word, &seen, seen + i, 0, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
		sum += seen;
		__atomic_fetch_or(&flags, 1ull << (i & 63), __ATOMIC_SEQ_CST);
		if (!(i & 15))
			sum = fold(sum, __atomic_exchange_n(&word, i, __ATOMIC_SEQ_CST));
	}
	measure_end();
	return fold(fold(sum, counter), flags);
}

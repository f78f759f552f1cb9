#include "paging/catalogue.h"

const struct strategy_entry strategy_catalogue[] = {
	{"native", "the guest's own one-dimensional walk, nothing virtualised: the baseline",
	 &native_ops, false, false, false},
	{"nested", "two-dimensional walk: guest tables, each reference through host tables",
	 &nested_ops, true, false, false},
	{"shadow", "virtual TLB: shadow tables built one entry per exit, emptied by a CR3 write",
	 &shadow_ops, true, true, true},
	{0},
};

const size_t strategy_count = ARRAY_COUNT(strategy_catalogue) - 1;

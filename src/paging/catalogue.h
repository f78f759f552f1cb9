/* Every paging strategy there is: --paging, its help and the tests iterate this. */
#pragma once

#include "paging/strategy.h"

/* Ends with a NULL name. */
extern const struct strategy_entry strategy_catalogue[];
extern const size_t strategy_count;

/* NULL if there is none of that name (of `length` bytes). */
const struct strategy_entry *strategy_find(const char *name, size_t length);
/* -EINVAL; the message lists those there are. */
int strategy_refuse(const char *name, size_t length, struct error *e);

extern const struct strategy_ops native_ops;
extern const struct strategy_ops nested_ops;
extern const struct strategy_ops shadow_ops;
extern const struct strategy_ops shadow_sync_ops;
extern const struct strategy_ops shadow_prefetch_ops;
extern const struct strategy_ops shadow_cache_ops;
extern const struct strategy_ops agile_ops;
extern const struct strategy_ops adaptive_ops;

#include "paging/catalogue.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const struct strategy_entry strategy_catalogue[] = {
	{"native", "the guest's own one-dimensional walk, nothing virtualised: the baseline",
	 &native_ops, false, false},
	{"nested", "two-dimensional walk: guest tables, each reference through host tables",
	 &nested_ops, true, false},
	{"shadow", "virtual TLB: shadow tables built one entry per exit, emptied by a CR3 write",
	 &shadow_ops, true, true},
	{"shadow-sync", "shadow, with guest tables write-protected: what watching alone costs",
	 &shadow_sync_ops, true, true},
	{"shadow-prefetch", "shadow-sync, where an exit fills the whole table of the missing entry",
	 &shadow_prefetch_ops, true, true},
	{"shadow-cache", "shadow tables that outlive CR3 writes and follow the guest's tables",
	 &shadow_cache_ops, true, true},
	{"agile", "one walk that starts in shadow tables and goes on nested below tables in flux",
	 &agile_ops, true, true},
	{"adaptive",
	 "nested or a shadow strategy, changed by the rates of misses, CR3 and table writes",
	 &adaptive_ops, true, false},
	{0},
};

const struct strategy_entry *strategy_find(const char *name, size_t length)
{
	for (const struct strategy_entry *s = strategy_catalogue; s->name; s++)
		if (strlen(s->name) == length && !strncmp(s->name, name, length))
			return s;
	return NULL;
}

int strategy_refuse(const char *name, size_t length, struct error *e)
{
	char legal[200] = "";
	for (const struct strategy_entry *s = strategy_catalogue; s->name; s++) {
		size_t used = strlen(legal);
		snprintf(legal + used, sizeof(legal) - used, "%s%s", used ? ", " : "", s->name);
	}
	return error_set(e, -EINVAL, "unknown paging strategy \"%.*s\"; there are: %s", (int)length,
			 name, legal);
}

const size_t strategy_count = ARRAY_COUNT(strategy_catalogue) - 1;

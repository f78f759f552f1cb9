#include "ledger/ledger.h"

#include <string.h>

struct event_row {
	const char *name;
	enum event_group group;
	const char *text;
};

static const struct event_row rows[] = {
#define EVENT(symbol, name, group, text) {name, group, text},
#include "ledger/events.def"
#undef EVENT
};

const char *event_name(enum event e)
{
	return rows[e].name;
}

enum event_group event_group(enum event e)
{
	return rows[e].group;
}

const char *event_text(enum event e)
{
	return rows[e].text;
}

int event_from_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		if (!strcmp(rows[i].name, name))
			return (int)i;
	return -1;
}

const char *event_group_name(enum event_group g)
{
	static const char *const names[GROUP_COUNT] = {
		[GROUP_WORK] = "work", [GROUP_TLB] = "tlb",	  [GROUP_WALK] = "walk",
		[GROUP_EXIT] = "exit", [GROUP_PAGING] = "paging", [GROUP_GUEST] = "guest",
	};

	return names[g];
}

static int event_of_group_from(enum event_group g, int e)
{
	for (; e < EVENT_COUNT; e++)
		if (rows[e].group == g)
			return e;
	return -1;
}

int event_first(enum event_group g)
{
	return event_of_group_from(g, 0);
}

int event_next(int e)
{
	return event_of_group_from(rows[e].group, e + 1);
}

uint64_t ledger_group_total(const struct ledger *l, enum event_group g)
{
	uint64_t total = 0;

	for (int e = event_first(g); e >= 0; e = event_next(e))
		total += ledger_total(l, (enum event)e);
	return total;
}

void ledger_add(struct ledger *to, const struct ledger *from)
{
	for (size_t e = 0; e < EVENT_COUNT; e++)
		for (size_t r = 0; r < RING_COUNT; r++)
			to->count[e][r] += from->count[e][r];
}

bool event_is_translation(enum event e)
{
	switch (e) {
	case EVENT_EXIT_CR3_WRITE:
	case EVENT_EXIT_INVLPG:
	case EVENT_EXIT_PF_HIDDEN:
	case EVENT_EXIT_PF_TRUE:
	case EVENT_EXIT_TABLE_WRITE:
	case EVENT_EXIT_NESTED_VIOLATION: return true;
	default: break;
	}
	enum event_group g = event_group(e);
	return g == GROUP_TLB || g == GROUP_WALK || g == GROUP_PAGING;
}

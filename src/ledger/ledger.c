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

void ledger_add(struct ledger *to, const struct ledger *from)
{
	for (size_t e = 0; e < EVENT_COUNT; e++)
		for (size_t r = 0; r < RING_COUNT; r++)
			to->count[e][r] += from->count[e][r];
}

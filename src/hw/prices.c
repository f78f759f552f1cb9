/*
 * The prices of a profile: which events have one, which parts it has, and which prices follow from
 * other facts.
 *
 * A price is stated once. What a reference costs that a cache answers is that cache's latency, so
 * it is derived unless the file insists; an exit that states no transition, or no handling, has
 * that of "exit.*".
 */
#include <stdio.h>
#include <string.h>

#include "hw/reader.h"

static const struct number_rule rule_cycles = {"cycles", 0, PRICE_MAX_CYCLES, true};

/* References by level of the table: their price is that of ref.*, by the cache that answers. */
static bool is_reference_by_level(enum event e)
{
	return e >= EVENT_WALK_G1 && e <= EVENT_WALK_S5;
}

bool event_must_be_priced(enum event e)
{
	switch (event_group(e)) {
	case GROUP_WALK: return !is_reference_by_level(e);
	case GROUP_EXIT: return true;
	case GROUP_PAGING: return e != EVENT_TLB_FLUSH && e != EVENT_TLB_INVALIDATE;
	default: break;
	}
	switch (e) {
	case EVENT_INSTRUCTION:
	case EVENT_REF_DATA_L2:
	case EVENT_REF_DATA_L3:
	case EVENT_REF_DATA_DRAM:
	case EVENT_TLB2_HIT:
	case EVENT_TLB_MISS:
	case EVENT_GUEST_CR3_WRITE:
	case EVENT_GUEST_INVLPG:
	case EVENT_GUEST_PAGE_FAULT:
	case EVENT_GUEST_EXCEPTION:
	case EVENT_GUEST_SOFTINT:
	case EVENT_GUEST_INTERRUPT:
	case EVENT_GUEST_SYSCALL:
	case EVENT_GUEST_IRET: return true;
	default: return false;
	}
}

static void set_derived(struct price *p, uint64_t millis, enum mark mark, const char *source)
{
	if (p->is_priced && !p->is_derived)
		return;
	*p = (struct price){.is_priced = true, .is_derived = true};
	p->has_part[PRICE_HARDWARE] = true;
	p->part[PRICE_HARDWARE] = (struct number){millis, mark, source};
}

/* A reference of the walker takes the latency of what answers it. A data access hides the first
 * level's in its instruction, and waits for the rest in full: nothing says how much of that a real
 * processor would overlap with other work, so the mark is an estimate's. */
void profile_derive_prices(struct profile *p)
{
	static const enum event walks[] = {EVENT_REF_GUEST_L1, EVENT_REF_HOST_L1,
					   EVENT_REF_SHADOW_L1};
	static const char *const walk_sources[CACHE_LEVEL_COUNT] = {
		"the latency of caches.l1d", "the latency of caches.l2", "the latency of caches.l3",
		"the latency of caches.dram"};
	static const char *const data_sources[CACHE_LEVEL_COUNT] = {
		"", "the latency of caches.l2 beyond that of l1d, without overlap",
		"the latency of caches.l3 beyond that of l1d, without overlap",
		"the latency of caches.dram beyond that of l1d, without overlap"};

	for (int level = 0; level < CACHE_LEVEL_COUNT; level++) {
		const struct number *n = &p->latency[level];
		enum mark mark = n->mark > MARK_DERIVED ? n->mark : MARK_DERIVED;

		for (size_t i = 0; i < ARRAY_COUNT(walks); i++)
			set_derived(&p->price[walks[i] + level], n->millis, mark,
				    walk_sources[level]);
		if (level != CACHE_L1D)
			set_derived(&p->price[EVENT_REF_DATA_L1 + level],
				    n->millis - p->latency[CACHE_L1D].millis, MARK_ESTIMATE,
				    data_sources[level]);
	}
}

/* Facts for the prices that no fact of the file states. */
static int note_derived(struct reader *r)
{
	for (int e = 0; e < EVENT_COUNT; e++) {
		const struct price *price = &r->profile->price[e];
		const struct number *n = &price->part[PRICE_HARDWARE];

		if (!price->is_derived)
			continue;
		size_t mark = reader_enter(r, event_name((enum event)e));
		int rc = reader_note_number(r, n, "cycles");

		if (rc)
			return rc;
		reader_leave(r, mark);
	}
	return 0;
}

/* The key of what any exit costs at least: the parts that an exit does not state. */
static const char *const default_exit_key = "exit.*";

static const struct price no_price;

static int read_exit(struct reader *r, const json_t *prices, const char *key,
		     const struct price *fallback, struct price *out)
{
	static const char *const parts[] = {"transition", "handling"};
	const json_t *object = json_object_get(prices, key);
	size_t mark = reader_enter(r, key);
	int rc = reader_check_keys(r, object, parts, ARRAY_COUNT(parts));

	*out = *fallback;
	out->is_priced = true;
	for (int i = 0; !rc && i < PRICE_PART_COUNT; i++) {
		if (out->has_part[i] && !json_object_get(object, parts[i]))
			continue;
		out->has_part[i] = true;
		out->is_default[i] = fallback == &no_price;
		rc = reader_number(r, object, parts[i], &rule_cycles, &out->part[i]);
	}
	if (!rc)
		reader_leave(r, mark);
	return rc;
}

/* What a strategy does is software; the rest is the processor's. */
static int read_price(struct reader *r, const json_t *prices, enum event e, struct price *out)
{
	enum price_part part = event_group(e) == GROUP_PAGING ? PRICE_SOFTWARE : PRICE_HARDWARE;

	if (is_reference_by_level(e))
		return reader_refuse(r,
				     "\"%s\" has no price: a reference costs what answers it "
				     "takes (\"ref.guest.l1\" and the like, from \"caches\")",
				     event_name(e));
	out->is_priced = true;
	out->has_part[part] = true;
	return reader_number(r, prices, event_name(e), &rule_cycles, &out->part[part]);
}

static int check_price_keys(struct reader *r, const json_t *prices)
{
	const char *keys[EVENT_COUNT + 1];
	const char *key;
	json_t *value;
	size_t count = 0;

	if (!json_is_object(prices))
		return reader_refuse(r, "must be an object: a price for every event that has one");
	for (int e = 0; e < EVENT_COUNT; e++)
		keys[count++] = event_name((enum event)e);
	keys[count++] = default_exit_key;
	json_object_foreach((json_t *)prices, key, value)
	{
		if (event_from_name(key) >= 0 || !strcmp(key, default_exit_key))
			continue;
		const char *near = nearest_word(key, keys, count);
		return reader_refuse(r, "no event is called \"%.60s\"%s%s%s", key,
				     near ? "; did you mean \"" : "", near ? near : "",
				     near ? "\"?" : "");
	}
	return 0;
}

static int check_complete(struct reader *r)
{
	for (int e = 0; e < EVENT_COUNT; e++)
		if (event_must_be_priced((enum event)e) && !r->profile->price[e].is_priced)
			return reader_refuse(r, "the price of \"%s\" is missing (%s)",
					     event_name((enum event)e), event_text((enum event)e));
	return 0;
}

int reader_prices(struct reader *r, const json_t *root)
{
	const json_t *prices = json_object_get(root, "prices");
	struct price any_exit = {0};
	size_t mark = reader_enter(r, "prices");
	int rc = check_price_keys(r, prices);

	if (!rc && json_object_get(prices, default_exit_key))
		rc = read_exit(r, prices, default_exit_key, &no_price, &any_exit);
	for (int e = 0; !rc && e < EVENT_COUNT; e++) {
		const char *name = event_name((enum event)e);
		struct price *price = &r->profile->price[e];
		bool is_exit = event_is_exit((enum event)e);

		if (is_exit && !json_object_get(prices, name))
			*price = any_exit;
		else if (is_exit)
			rc = read_exit(r, prices, name, &any_exit, price);
		else if (json_object_get(prices, name))
			rc = read_price(r, prices, (enum event)e, price);
	}
	if (rc)
		return rc;
	profile_derive_prices(r->profile);
	rc = check_complete(r);
	if (!rc)
		rc = note_derived(r);
	if (!rc)
		reader_leave(r, mark);
	return rc;
}

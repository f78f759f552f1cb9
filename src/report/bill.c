/*
 * Counts times prices, and who pays.
 *
 * The sides. Native: instructions, data accesses beyond the first-level cache, the second-level
 * look-up, references to the guest's tables (under nested paging these are the walk that bare metal
 * would do), references to shadow tables (one for one in the place of the guest's), walk caches,
 * A/D updates, and the guest's own events. Overhead: references to the host's tables, the nested
 * TLB, exits, the strategy's work. docs/report.md says what this leaves
 * out.
 */
#include "report/bill.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static bool is_host_reference(enum event e)
{
	return (e >= EVENT_REF_HOST_L1 && e <= EVENT_REF_HOST_DRAM) || e == EVENT_NESTED_TLB_HIT;
}

static bool is_shadow_reference(enum event e)
{
	return e >= EVENT_REF_SHADOW_L1 && e <= EVENT_REF_SHADOW_DRAM;
}

static enum bill_side side_of(const struct report_input *in, enum event e)
{
	enum event_group group = event_group(e);
	bool is_added = group == GROUP_EXIT || group == GROUP_PAGING || is_host_reference(e);

	if (!in->profile->price[e].is_priced || in->is_unavailable[group])
		return SIDE_NONE;
	if (is_added)
		return in->is_virtualized ? SIDE_OVERHEAD : SIDE_NONE;
	if (is_shadow_reference(e) && !in->is_virtualized)
		return SIDE_NONE;
	return SIDE_NATIVE;
}

static struct amount cost_of(uint64_t count, uint64_t millis)
{
	return (struct amount){(unsigned __int128)count * millis};
}

/* The same sum in another order: vcpu by vcpu, ring by ring, part by part, straight from the
 * ledgers. */
static struct amount sum_again(const struct bill *b, enum bill_side side)
{
	const struct report_input *in = b->input;
	struct amount sum = {0};

	for (unsigned v = 0; v < in->vcpu_count; v++)
		for (int e = 0; e < EVENT_COUNT; e++)
			for (int part = 0; part < PRICE_PART_COUNT; part++)
				for (int r = 0; r < RING_COUNT; r++)
					if (b->line[e].side == side)
						sum.millis += cost_of(in->ledgers[v]->count[e][r],
								      in->profile->price[e]
									      .part[part]
									      .millis)
								      .millis;
	return sum;
}

static bool does_close(const struct bill *b)
{
	for (int side = SIDE_NONE; side < SIDE_COUNT; side++) {
		unsigned __int128 by_mark = 0, by_group = 0;

		for (int m = 0; m < MARK_COUNT; m++)
			by_mark += b->basis[side][m].millis;
		for (int g = 0; g < GROUP_COUNT; g++)
			by_group += b->group[side][g].millis;
		if (by_mark != b->side[side].millis || by_group != b->side[side].millis)
			return false;
		if (side != SIDE_NONE &&
		    sum_again(b, (enum bill_side)side).millis != b->side[side].millis)
			return false;
	}
	return b->total.millis == b->side[SIDE_NATIVE].millis + b->side[SIDE_OVERHEAD].millis;
}

static void add_line(struct bill *b, enum event e)
{
	const struct report_input *in = b->input;
	struct bill_line *l = &b->line[e];

	l->event = e;
	l->price = profile_price(in->profile, e);
	l->side = side_of(in, e);
	l->is_unavailable = in->is_unavailable[event_group(e)];
	for (unsigned v = 0; v < in->vcpu_count; v++)
		for (int r = 0; r < RING_COUNT; r++)
			l->count[r] += in->ledgers[v]->count[e][r];
	if (l->side == SIDE_NONE)
		return;
	l->cost = cost_of(bill_count(l), price_millis(l->price));
	for (int part = 0; part < PRICE_PART_COUNT; part++)
		if (l->price->has_part[part])
			b->basis[l->side][l->price->part[part].mark].millis +=
				cost_of(bill_count(l), l->price->part[part].millis).millis;
	b->group[l->side][event_group(e)].millis += l->cost.millis;
	b->side[l->side].millis += l->cost.millis;
	b->total.millis += l->cost.millis;
}

void bill_make(struct bill *b, const struct report_input *input)
{
	memset(b, 0, sizeof(*b));
	b->input = input;
	for (int e = 0; e < EVENT_COUNT; e++)
		add_line(b, (enum event)e);
	b->closes = does_close(b);
	assert(b->closes);
}

const char *bill_hypothesis(const struct bill *b)
{
	const struct report_input *in = b->input;
	const struct profile *p = in->profile;
	uint64_t nested = bill_count(&b->line[EVENT_NESTED_FILL]);

	for (int e = EVENT_WALK_H1; e <= EVENT_WALK_H5; e++)
		nested += bill_count(&b->line[e]);
	if (!in->is_virtualized)
		return NULL;
	if (nested && !p->has_nested_paging)
		return "nested paging";
	/* Settings stand in the strategy's text, which is canonical. */
	if (!p->has_pf_filter && strstr(in->strategy, ":pf-filter=on"))
		return "filter of page faults";
	if (!p->tlb.tagged && strstr(in->strategy, ":tlb-tag=on"))
		return "tags in its TLB";
	return NULL;
}

const char *bill_side_name(enum bill_side side)
{
	static const char *const names[SIDE_COUNT] = {"none", "native", "overhead"};

	return names[side];
}

const char *bill_source_name(const struct bill_line *l)
{
	enum event_group g = event_group(l->event);

	if (l->is_unavailable)
		return "unavailable";
	return g == GROUP_TLB || g == GROUP_WALK ? "modelled" : "measured";
}

double amount_percent(struct amount a, struct amount b)
{
	return b.millis ? 100.0 * (double)a.millis / (double)b.millis : 0.0;
}

const char *amount_text(struct amount a, char separator, char text[AMOUNT_TEXT_MAX])
{
	unsigned __int128 whole = a.millis / 1000;
	unsigned thousandths = (unsigned)(a.millis % 1000);
	char *c = text + AMOUNT_TEXT_MAX - 1;
	unsigned digits = 0;

	*c = 0;
	if (thousandths) {
		for (int i = 0; i < 3; i++, thousandths /= 10)
			*--c = (char)('0' + thousandths % 10);
		*--c = '.';
	}
	do {
		if (separator && digits && digits % 3 == 0)
			*--c = separator;
		*--c = (char)('0' + (unsigned)(whole % 10));
		whole /= 10;
		digits++;
	} while (whole);
	return memmove(text, c, (size_t)(text + AMOUNT_TEXT_MAX - c));
}

const char *count_text(uint64_t count, char separator, char text[AMOUNT_TEXT_MAX])
{
	return amount_text((struct amount){(unsigned __int128)count * MILLIS_PER_CYCLE}, separator,
			   text);
}

const char *price_marks(const struct price *p, char text[8])
{
	char *c = text;

	for (int part = 0; part < PRICE_PART_COUNT; part++) {
		char letter = mark_letter(p->part[part].mark);

		if (!p->has_part[part] || (c > text && c[-1] == letter))
			continue;
		if (c > text)
			*c++ = '+';
		*c++ = letter;
	}
	*c = 0;
	return text;
}

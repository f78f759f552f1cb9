/*
 * The bill in long form: one value a line, for spreadsheets and data frames.
 *
 *   record,vcpu,name,part,unit,source,value
 *
 * `record` is fact, counter, price, cost or total; `vcpu` is a number, or "all"; `part` the ring of
 * a counter, the part of a price, the side of a cost. RFC 4180 but for line ends, which are "\n".
 */
#include "report/bill.h"
#include "report/csv_row.h"

struct row {
	const char *record, *vcpu, *name, *part, *unit, *source, *value;
};

static void put_row(FILE *out, const struct row *r)
{
	const char *const fields[] = {r->record, r->vcpu,   r->name, r->part,
				      r->unit,	 r->source, r->value};

	csv_put_row(out, fields, ARRAY_COUNT(fields));
}

static void put_fact(FILE *out, const char *name, const char *unit, const char *value)
{
	put_row(out, &(struct row){"fact", "all", name, "", unit, "measured", value});
}

static void put_number_fact(FILE *out, const char *name, const char *unit, uint64_t value)
{
	char text[AMOUNT_TEXT_MAX];

	if (value)
		put_fact(out, name, unit, count_text(value, 0, text));
}

static void put_facts(FILE *out, const struct bill *b)
{
	const struct report_input *in = b->input;

	put_fact(out, "profile", "", in->profile->name);
	put_fact(out, "strategy", "", in->strategy);
	if (in->engine)
		put_fact(out, "engine", "", in->engine);
	put_fact(out, "scope", "", in->scope ? in->scope : "the whole run");
	if (bill_is_hypothetical(b))
		put_fact(out, "hypothetical", "", "yes");
	put_number_fact(out, "frequency", "hz", in->profile->frequency_hz);
	put_number_fact(out, "vcpus", "vcpus", in->vcpu_count);
	put_number_fact(out, "guest_levels", "levels", in->guest_levels);
	put_number_fact(out, "virtual_cycles", "cycles", in->virtual_cycles);
	put_number_fact(out, "host_time", "ns", in->host_ns);
	put_number_fact(out, "peak_rss", "bytes", in->peak_rss_bytes);
}

static void put_counts(FILE *out, const struct bill_line *l, const char *vcpu,
		       const uint64_t count[RING_COUNT])
{
	static const char *const rings[RING_COUNT] = {"kernel", "user"};
	char text[AMOUNT_TEXT_MAX];

	for (int r = 0; r < RING_COUNT; r++)
		put_row(out, &(struct row){"counter", vcpu, event_name(l->event), rings[r],
					   "events", bill_source_name(l),
					   l->is_unavailable ? "" : count_text(count[r], 0, text)});
}

static void put_price_and_cost(FILE *out, const struct bill_line *l)
{
	static const char *const parts[PRICE_PART_COUNT] = {"hardware", "software"};
	const char *name = event_name(l->event);
	char text[AMOUNT_TEXT_MAX];

	for (int part = 0; part < PRICE_PART_COUNT; part++) {
		const struct number *n = &l->price->part[part];
		char mark[2] = {mark_letter(n->mark), 0};

		if (l->price->has_part[part])
			put_row(out,
				&(struct row){"price", "all", name, parts[part], "cycles", mark,
					      amount_text((struct amount){n->millis}, 0, text)});
	}
	if (l->side != SIDE_NONE)
		put_row(out, &(struct row){"cost", "all", name, bill_side_name(l->side), "cycles",
					   "modelled", amount_text(l->cost, 0, text)});
}

static void put_total(FILE *out, const char *name, const char *part, struct amount a)
{
	char text[AMOUNT_TEXT_MAX];

	put_row(out, &(struct row){"total", "all", name, part, "cycles", "modelled",
				   amount_text(a, 0, text)});
}

int bill_write_csv(FILE *out, const struct bill *b)
{
	const struct report_input *in = b->input;
	char vcpu[16];

	fputs("record,vcpu,name,part,unit,source,value\n", out);
	put_facts(out, b);
	for (int e = 0; e < EVENT_COUNT; e++) {
		const struct bill_line *l = &b->line[e];

		put_counts(out, l, "all", l->count);
		for (unsigned v = 0; in->vcpu_count > 1 && v < in->vcpu_count; v++) {
			snprintf(vcpu, sizeof(vcpu), "%u", v);
			put_counts(out, l, vcpu, in->ledgers[v]->count[e]);
		}
		put_price_and_cost(out, l);
	}
	for (int side = SIDE_NATIVE; side < SIDE_COUNT; side++) {
		const char *name = bill_side_name((enum bill_side)side);

		put_total(out, name, "", b->side[side]);
		for (int m = 0; m < MARK_COUNT; m++) {
			char part[] = {'c', 'l', 'a', 's', 's', ' ', mark_letter((enum mark)m), 0};

			put_total(out, name, part, b->basis[side][m]);
		}
	}
	put_total(out, "total", "", b->total);
	put_row(out, &(struct row){"total", "all", "closes", "", "", "", b->closes ? "yes" : "no"});
	return 0;
}

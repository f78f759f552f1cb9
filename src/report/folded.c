#include "report/folded.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "report/bill.h"
#include "report/symbols.h"

/* One cell of an open-addressed table: an event at a place. */
struct cell {
	uint64_t address;
	uint64_t count; /* 0: empty */
	enum event event;
};

/* What a vcpu's ledger held when it was last looked at, and where the guest was. */
struct place {
	uint64_t before[EVENT_COUNT];
	uint64_t address;
	bool is_known; /* `before` holds */
};

struct folded {
	struct cell *cells;
	size_t capacity, used; /* a power of two */
	struct place *places;
	unsigned vcpu_count;
	bool is_short_of_memory;
};

static bool is_told_of(enum event e)
{
	enum event_group g = event_group(e);

	return g == GROUP_TLB || g == GROUP_WALK || g == GROUP_EXIT || g == GROUP_PAGING;
}

int folded_create(struct folded **out, unsigned vcpu_count)
{
	struct folded *f = calloc(1, sizeof(*f));

	if (f) {
		f->capacity = 1u << 12;
		f->cells = calloc(f->capacity, sizeof(*f->cells));
		f->places = calloc(vcpu_count, sizeof(*f->places));
		f->vcpu_count = vcpu_count;
	}
	if (!f || !f->cells || !f->places) {
		folded_destroy(f);
		return -ENOMEM;
	}
	*out = f;
	return 0;
}

void folded_destroy(struct folded *f)
{
	if (f) {
		free(f->cells);
		free(f->places);
	}
	free(f);
}

/* ---- counting ---- */

static struct cell *find(const struct folded *f, enum event event, uint64_t address)
{
	uint64_t hash = (address * EVENT_COUNT + event) * 0x9e3779b97f4a7c15ull;
	size_t i = hash >> 32 & (f->capacity - 1);

	while (f->cells[i].count && (f->cells[i].address != address || f->cells[i].event != event))
		i = (i + 1) & (f->capacity - 1);
	return &f->cells[i];
}

static void grow(struct folded *f)
{
	struct folded bigger = {.capacity = 2 * f->capacity};

	bigger.cells = calloc(bigger.capacity, sizeof(*bigger.cells));
	if (!bigger.cells) {
		f->is_short_of_memory = true;
		return;
	}
	for (size_t i = 0; i < f->capacity; i++)
		if (f->cells[i].count)
			*find(&bigger, f->cells[i].event, f->cells[i].address) = f->cells[i];
	free(f->cells);
	f->cells = bigger.cells;
	f->capacity = bigger.capacity;
}

static void count(struct folded *f, enum event event, uint64_t address, uint64_t n)
{
	if (2 * f->used >= f->capacity)
		grow(f);
	struct cell *c = find(f, event, address);

	/* Without memory the table may fill up to one empty cell, at which searches end. */
	if (!c->count && f->used + 1 == f->capacity)
		return;
	f->used += !c->count;
	*c = (struct cell){address, c->count + n, event};
}

/* All that was charged since the last look belongs to `address`; `but_one` (-1: none) is one of
 * them less. */
static void settle(struct folded *f, struct place *p, const struct ledger *l, int but_one)
{
	for (int e = 0; e < EVENT_COUNT; e++) {
		uint64_t now = ledger_total(l, (enum event)e);
		uint64_t since = now - p->before[e] - (e == but_one);

		if (p->is_known && since && is_told_of((enum event)e))
			count(f, (enum event)e, p->address, since);
		p->before[e] = now;
	}
}

void folded_charge(struct folded *f, unsigned vcpu, const struct ledger *l, enum event event,
		   uint64_t address)
{
	struct place *p = &f->places[vcpu];

	settle(f, p, l, event);
	count(f, event, address, 1);
	p->address = address;
	p->is_known = true;
}

void folded_restart(struct folded *f)
{
	memset(f->cells, 0, f->capacity * sizeof(*f->cells));
	f->used = 0;
	for (unsigned i = 0; i < f->vcpu_count; i++)
		f->places[i].is_known = false;
}

void folded_leave(struct folded *f, unsigned vcpu)
{
	f->places[vcpu].is_known = false;
}

void folded_finish(struct folded *f, unsigned vcpu, const struct ledger *l)
{
	settle(f, &f->places[vcpu], l, -1);
}

uint64_t folded_count(const struct folded *f, enum event event)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < f->capacity; i++)
		if (f->cells[i].count && f->cells[i].event == event)
			sum += f->cells[i].count;
	return sum;
}

/* ---- writing ---- */

struct line {
	const char *name; /* of the place */
	enum event event;
	uint64_t count;
};

static const char *name_of(uint64_t address, const struct symbols *symbols)
{
	if (address < 1ull << 47)
		return "user";
	const char *name = symbols ? symbols_find(symbols, address) : NULL;
	return name ? name : "kernel";
}

static int by_stack(const void *left, const void *right)
{
	const struct line *a = left, *b = right;

	if (a->event != b->event)
		return a->event < b->event ? -1 : 1;
	return strcmp(a->name, b->name);
}

static void put_line(FILE *out, const struct line *l, const struct price *price)
{
	struct amount weight = {(unsigned __int128)l->count * price_millis(price)};
	char text[AMOUNT_TEXT_MAX];

	if (weight.millis)
		fprintf(out, "%s;%s;%s %s\n", event_group_name(event_group(l->event)),
			event_name(l->event), l->name, amount_text(weight, 0, text));
}

int folded_write(FILE *out, const struct folded *f, const struct report_input *in,
		 const struct symbols *symbols, struct error *e)
{
	struct line *lines = calloc(f->used + 1, sizeof(*lines));
	struct bill *bill = malloc(sizeof(*bill));
	size_t n = 0;

	if (!lines || !bill || f->is_short_of_memory) {
		free(lines);
		free(bill);
		return error_set(e, -ENOMEM, "no memory for folded stacks");
	}
	bill_make(bill, in);
	for (size_t i = 0; i < f->capacity; i++)
		if (f->cells[i].count && bill->line[f->cells[i].event].side != SIDE_NONE)
			lines[n++] = (struct line){name_of(f->cells[i].address, symbols),
						   f->cells[i].event, f->cells[i].count};
	qsort(lines, n, sizeof(*lines), by_stack);
	for (size_t i = 0; i < n; i++) {
		if (i + 1 < n && !by_stack(&lines[i], &lines[i + 1]))
			lines[i + 1].count += lines[i].count;
		else
			put_line(out, &lines[i], bill->line[lines[i].event].price);
	}
	free(lines);
	free(bill);
	if (fflush(out) || ferror(out))
		return error_set(e, -EIO, "cannot write the folded stacks");
	return 0;
}

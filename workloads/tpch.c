/*
 * TPC-H's pricing summary (Q1: scan, filter, aggregate by two flags) and its forecast of revenue
 * (Q6: scan, three filters, one sum), over generated lineitem rows. As in a database the rows are
 * tuples of variable length in 8K pages of a file, read through a pool of buffers, and each column
 * is decoded out of its tuple; so the work is system calls that copy, and loads that stay within a
 * page.
 */
#include "suite.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ROUNDS, QUERY, ROWS, BUFFERS };

#define PAGE_BYTES 8192u
#define SLOT_MAX 120u
#define BUFFER_MAX 4096u
#define GROUP_SLOTS 64u
#define SHIPDATE_MAX 2526u /* days from 1992-01-01 to the last one */

/* The page's head, then one offset a tuple, tuples from the end downwards. */
struct page {
	uint16_t tuple_count, free_end;
	uint16_t offset[SLOT_MAX];
};

/* A tuple: the fixed columns, then the comment, whose length is the last of them. */
struct lineitem {
	uint32_t order_key, part_key, supplier_key, line_number;
	int32_t quantity, discount, tax; /* in hundredths */
	uint16_t ship_date, commit_date, receipt_date;
	char return_flag, line_status;
	int64_t extended_price; /* in hundredths */
	char instruction[16], mode[8];
	uint16_t comment_bytes;
};

struct table {
	int fd;
	uint32_t page_count, buffer_count;
	unsigned char *buffers;
	uint32_t *held; /* page + 1 in each buffer */
};

static void make_row(struct lineitem *row, uint64_t *random, uint32_t number)
{
	static const char modes[8][8] = {"REG AIR", "AIR",  "RAIL", "SHIP",
					 "TRUCK",   "MAIL", "FOB",  "TRAM"};
	uint64_t r = next_random(random), q = next_random(random);
	uint32_t ship = (uint32_t)(r % SHIPDATE_MAX);

	memset(row, 0, sizeof(*row));
	row->order_key = number / 4;
	row->line_number = number % 4;
	row->part_key = (uint32_t)(q % 200000);
	row->supplier_key = (uint32_t)(q >> 20) % 10000;
	row->quantity = (int32_t)(1 + (r >> 16) % 50) * 100;
	row->extended_price = row->quantity / 100 * (int64_t)(90000 + row->part_key % 20001);
	row->discount = (int32_t)((r >> 24) % 11);
	row->tax = (int32_t)((r >> 32) % 9);
	row->ship_date = (uint16_t)ship;
	row->commit_date = (uint16_t)(ship + (r >> 40) % 60);
	row->receipt_date = (uint16_t)(ship + 1 + (r >> 48) % 30);
	row->return_flag = row->receipt_date > 1264 ? 'N' : r >> 63 ? 'R' : 'A';
	row->line_status = ship > 1264 ? 'O' : 'F';
	memcpy(row->instruction, "DELIVER IN PERSON", 16);
	memcpy(row->mode, modes[q >> 60 & 7], 8);
	row->comment_bytes = (uint16_t)(10 + (q >> 44) % 34);
}

/* Puts a row on the page; 0 if it is full. */
static int append_row(struct page *page, const struct lineitem *row)
{
	size_t size_bytes = (sizeof(*row) + row->comment_bytes + 7) & ~(size_t)7;
	unsigned char *at;

	if (page->tuple_count == SLOT_MAX || page->free_end < sizeof(*page) + size_bytes)
		return 0;
	page->free_end = (uint16_t)(page->free_end - size_bytes);
	at = (unsigned char *)page + page->free_end;
	memcpy(at, row, sizeof(*row));
	memset(at + sizeof(*row), 'a' + (int)row->part_key % 26, row->comment_bytes);
	page->offset[page->tuple_count++] = page->free_end;
	return 1;
}

static void write_page(struct table *t, const void *page)
{
	if (pwrite(t->fd, page, PAGE_BYTES, (off_t)t->page_count * PAGE_BYTES) != PAGE_BYTES)
		give_up("the table's file");
	t->page_count++;
}

static void load_table(struct table *t, uint64_t row_count)
{
	static union {
		struct page page;
		unsigned char bytes[PAGE_BYTES];
	} out;
	struct lineitem row;
	uint64_t random = 19920101;

	t->fd = open_unnamed_file();
	out.page.free_end = PAGE_BYTES;
	for (uint64_t i = 0; i < row_count; i++) {
		make_row(&row, &random, (uint32_t)i);
		if (append_row(&out.page, &row))
			continue;
		write_page(t, &out);
		memset(&out, 0, sizeof(out));
		out.page.free_end = PAGE_BYTES;
		append_row(&out.page, &row);
	}
	write_page(t, &out);
}

/* The buffer that holds the page, filled if it does not yet. */
static const struct page *fetch_page(struct table *t, uint32_t number)
{
	uint32_t slot = number % t->buffer_count;
	unsigned char *buffer = t->buffers + (size_t)slot * PAGE_BYTES;

	if (t->held[slot] != number + 1) {
		if (pread(t->fd, buffer, PAGE_BYTES, (off_t)number * PAGE_BYTES) != PAGE_BYTES)
			give_up("the table's file");
		t->held[slot] = number + 1;
	}
	return (const struct page *)buffer;
}

/* ---- taking tuples apart ---- */

enum column {
	QUANTITY,
	DISCOUNT,
	TAX,
	SHIP_DATE,
	RETURN_FLAG,
	LINE_STATUS,
	EXTENDED_PRICE,
	COLUMN_COUNT,
};

static const struct {
	uint8_t offset, size_bytes;
} columns[COLUMN_COUNT] = {
#define COLUMN(field)                                                                   \
	{                                                                               \
		offsetof(struct lineitem, field), sizeof(((struct lineitem *)0)->field) \
	}
	[QUANTITY] = COLUMN(quantity),
	[DISCOUNT] = COLUMN(discount),
	[TAX] = COLUMN(tax),
	[SHIP_DATE] = COLUMN(ship_date),
	[RETURN_FLAG] = COLUMN(return_flag),
	[LINE_STATUS] = COLUMN(line_status),
	[EXTENDED_PRICE] = COLUMN(extended_price),
#undef COLUMN
};

static void take_apart(const unsigned char *tuple, int64_t value[COLUMN_COUNT])
{
	for (unsigned i = 0; i < COLUMN_COUNT; i++) {
		const unsigned char *at = tuple + columns[i].offset;

		switch (columns[i].size_bytes) {
		case 1: value[i] = *at; break;
		case 2: value[i] = *(const uint16_t *)at; break;
		case 4: value[i] = *(const int32_t *)at; break;
		default: value[i] = *(const int64_t *)at;
		}
	}
}

/* ---- expressions ---- */

enum operation { CONSTANT, COLUMN, MINUS, TIMES, SHARE, AT_MOST, LESS, BOTH };

struct expression {
	enum operation operation;
	int64_t value; /* of CONSTANT, or the column */
	const struct expression *left, *right;
};

#define CONST(v) (&(const struct expression){CONSTANT, (v), NULL, NULL})
#define COL(c) (&(const struct expression){COLUMN, (c), NULL, NULL})
#define OP(o, l, r) (&(const struct expression){(o), 0, (l), (r)})

static int64_t evaluate(const struct expression *e, const int64_t *value)
{
	int64_t left, right;

	if (e->operation == CONSTANT)
		return e->value;
	if (e->operation == COLUMN)
		return value[e->value];
	left = evaluate(e->left, value);
	if (e->operation == BOTH && !left)
		return 0;
	right = evaluate(e->right, value);
	switch (e->operation) {
	case MINUS: return left - right;
	case TIMES: return left * right;
	case SHARE: return left * right / 100;
	case AT_MOST: return left <= right;
	case LESS: return left < right;
	default: return right;
	}
}

/* ---- plans ---- */

#define SUM_COUNT 5

struct plan {
	const struct expression *filter;
	const struct expression *key[2]; /* of the group; NULL: one group */
	const struct expression *sum[SUM_COUNT];
};

/* Shipped up to 90 days before the last date; by both flags. */
static const struct plan pricing_summary = {
	.filter = OP(AT_MOST, COL(SHIP_DATE), CONST(SHIPDATE_MAX - 90)),
	.key = {COL(RETURN_FLAG), COL(LINE_STATUS)},
	.sum = {COL(QUANTITY), COL(EXTENDED_PRICE),
		OP(TIMES, COL(EXTENDED_PRICE), OP(MINUS, CONST(100), COL(DISCOUNT))),
		OP(SHARE, OP(TIMES, COL(EXTENDED_PRICE), OP(MINUS, CONST(100), COL(DISCOUNT))),
		   OP(MINUS, CONST(100), OP(MINUS, CONST(0), COL(TAX)))),
		COL(DISCOUNT)},
};

/* One year, a discount of 5 to 7 per cent, less than 24 pieces. */
static const struct plan revenue_forecast = {
	.filter = OP(BOTH,
		     OP(BOTH, OP(AT_MOST, CONST(731), COL(SHIP_DATE)),
			OP(LESS, COL(SHIP_DATE), CONST(1096))),
		     OP(BOTH,
			OP(BOTH, OP(AT_MOST, CONST(5), COL(DISCOUNT)),
			   OP(AT_MOST, COL(DISCOUNT), CONST(7))),
			OP(LESS, COL(QUANTITY), CONST(2400)))),
	.sum = {OP(TIMES, COL(EXTENDED_PRICE), COL(DISCOUNT))},
};

struct group {
	uint32_t key; /* 0: free */
	uint64_t count;
	int64_t sum[SUM_COUNT];
};

static struct group *find_group(struct group *groups, uint32_t key)
{
	uint32_t at = key * 40503u >> 4 & (GROUP_SLOTS - 1);

	while (groups[at].key && groups[at].key != key)
		at = (at + 1) & (GROUP_SLOTS - 1);
	groups[at].key = key;
	return &groups[at];
}

static void add_row(const struct plan *plan, struct group *groups, const unsigned char *tuple)
{
	int64_t value[COLUMN_COUNT];
	uint32_t key = 1;
	struct group *g;

	take_apart(tuple, value);
	if (!evaluate(plan->filter, value))
		return;
	for (unsigned i = 0; i < 2 && plan->key[i]; i++)
		key = key << 8 | (uint32_t)evaluate(plan->key[i], value);
	g = find_group(groups, key);
	g->count++;
	for (unsigned i = 0; i < SUM_COUNT && plan->sum[i]; i++)
		g->sum[i] += evaluate(plan->sum[i], value);
}

static void scan(struct table *t, const struct plan *plan, struct group *groups)
{
	for (uint32_t number = 0; number < t->page_count; number++) {
		const struct page *page = fetch_page(t, number);

		for (uint32_t i = 0; i < page->tuple_count; i++)
			add_row(plan, groups, (const unsigned char *)page + page->offset[i]);
	}
}

static uint64_t fold_groups(uint64_t sum, const struct group *groups)
{
	for (uint32_t i = 0; i < GROUP_SLOTS; i++) {
		if (!groups[i].key)
			continue;
		sum = fold(fold(sum, groups[i].key), groups[i].count);
		for (unsigned k = 0; k < SUM_COUNT; k++)
			sum = fold(sum, (uint64_t)groups[i].sum[k]);
	}
	return sum;
}

static uint64_t tpch(const uint64_t *knob)
{
	struct table t = {.buffer_count = (uint32_t)knob[BUFFERS]};
	static struct group groups[GROUP_SLOTS];
	static uint32_t held[BUFFER_MAX];
	uint64_t sum = 0;

	if (knob[QUERY] != 1 && knob[QUERY] != 6)
		refuse("tpch", "--query is 1 or 6");
	t.buffers = fresh_pages((size_t)t.buffer_count * PAGE_BYTES);
	t.held = held;
	memset(held, 0, sizeof(held));
	load_table(&t, knob[ROWS]);
	measure_begin();
	for (uint64_t round = 0; round < knob[ROUNDS]; round++) {
		memset(groups, 0, sizeof(groups));
		scan(&t, knob[QUERY] == 1 ? &pricing_summary : &revenue_forecast, groups);
		sum = fold_groups(sum, groups);
	}
	measure_end();
	munmap(t.buffers, (size_t)t.buffer_count * PAGE_BYTES);
	close(t.fd);
	return sum;
}

const struct study tpch_study = {
	"tpch",
	"a database's scan and aggregate: TPC-H Q1 or Q6",
	{
		[ROUNDS] = {"rounds", 4, 1, 1, 1u << 31, "times the query runs"},
		[QUERY] = {"query", 1, 1, 1, 6, "1 or 6"},
		[ROWS] = {"rows", 300000, 20000, 1, 100000000, "rows of about 110 bytes"},
		[BUFFERS] = {"buffers", 256, 64, 1, BUFFER_MAX, "8K pages in the pool"},
	},
	tpch,
};

/*
 * RandomAccess of HPC Challenge (hpcchallenge.org), which the paper's HPCC run is dominated by:
 * T[r & (size - 1)] ^= r over a table of 2^n words, r from the primitive polynomial over GF(2) with
 * taps 7, 128 streams side by side as in its single-processor version.
 *
 * HPCC runs as several processes that exchange messages, so its CR3-write rate is high.
 * SWITCH-EVERY is the dial for that: after so many updates the other of two processes goes on, on
 * the same table and streams, at the price of one context switch. 0 is one process alone. XOR
 * commutes and the streams are shared, so the checksum is the same whoever does the updates.
 */
#include "pair.h"
#include "suite.h"

#include <sys/mman.h>

#define STREAMS 128
#define POLYNOMIAL 7u

enum { UPDATES, TABLE, SWITCH_EVERY };

struct job {
	uint64_t *table;
	uint64_t *stream; /* STREAMS words, then the number of updates done */
	uint64_t mask;
	uint64_t turn_updates, update_count;
};

/* a times b in GF(2)[x] modulo x^64 + x^2 + x + 1. */
static uint64_t multiply(uint64_t a, uint64_t b)
{
	uint64_t product = 0;

	for (; b; b >>= 1) {
		if (b & 1)
			product ^= a;
		a = a << 1 ^ (a >> 63 ? POLYNOMIAL : 0);
	}
	return product;
}

/* The n-th number of the sequence 1, x, x^2, ...: where a stream begins. */
static uint64_t sequence_at(uint64_t n)
{
	uint64_t result = 1, power = 2;

	for (; n; n >>= 1) {
		if (n & 1)
			result = multiply(result, power);
		power = multiply(power, power);
	}
	return result;
}

/* One turn: at most turn_updates updates, until update_count are done in all. */
static void update(void *opaque)
{
	struct job *job = opaque;
	uint64_t *table = job->table, *stream = job->stream, mask = job->mask;
	uint64_t from = stream[STREAMS], to = from + job->turn_updates;

	if (to > job->update_count)
		to = job->update_count;
	for (uint64_t i = from; i < to;) {
		uint64_t *at = stream + i % STREAMS, left = to - i;
		uint64_t *end = left < STREAMS - i % STREAMS ? at + left : stream + STREAMS;

		for (i += (uint64_t)(end - at); at < end; at++) {
			uint64_t r = *at << 1 ^ ((uint64_t)((int64_t)*at >> 63) & POLYNOMIAL);

			*at = r;
			table[r & mask] ^= r;
		}
	}
	stream[STREAMS] = to;
}

/* Before the measurement the second process maps the table as the first one has it. */
static void touch_table(void *opaque)
{
	struct job *job = opaque;

	for (uint64_t i = 0; i <= job->mask; i += 512)
		__atomic_fetch_xor((uint32_t *)(void *)&job->table[i], 0, __ATOMIC_RELAXED);
}

static void run_pair(struct job *job)
{
	struct pair pair;

	pair_start(&pair, touch_table, update, job);
	measure_begin();
	while (job->stream[STREAMS] < job->update_count) {
		update(job);
		pair_turn(&pair);
	}
	measure_end();
	pair_end(&pair);
}

static uint64_t gups(const uint64_t *knob)
{
	size_t size_bytes = (size_t)knob[TABLE], stream_bytes = (STREAMS + 1) * sizeof(uint64_t);
	struct job job = {.table = shared_pages(size_bytes),
			  .stream = shared_pages(stream_bytes),
			  .mask = size_bytes / 8 - 1,
			  .turn_updates = knob[SWITCH_EVERY] ? knob[SWITCH_EVERY] : knob[UPDATES],
			  .update_count = knob[UPDATES]};
	uint64_t sum = 1;

	if (size_bytes & (size_bytes - 1))
		refuse("gups", "--table must be a power of two");
	for (uint64_t i = 0; i <= job.mask; i++)
		job.table[i] = i;
	for (uint64_t i = 0; i < STREAMS; i++)
		job.stream[i] = sequence_at(knob[UPDATES] / STREAMS * i);
	if (knob[SWITCH_EVERY]) {
		run_pair(&job);
	} else {
		measure_begin();
		update(&job);
		measure_end();
	}
	for (uint64_t i = 0; i <= job.mask; i++)
		sum = sum * 0x9e3779b97f4a7c15ull + job.table[i];
	munmap(job.table, size_bytes);
	munmap(job.stream, stream_bytes);
	return sum;
}

const struct study gups_study = {
	"gups",
	"random updates of a table, by one process or by two in turn",
	{
		[UPDATES] = {"updates", 4000000, 100000, 1, 1ull << 40, "updates in all"},
		[TABLE] = {"table", 64 << 20, 4 << 20, 4096, 1u << 30,
			   "bytes of the table, a power of two"},
		[SWITCH_EVERY] = {"switch-every", 0, 1000, 0, 1ull << 40,
				  "updates until the other process goes on; 0: one process"},
	},
	gups,
};

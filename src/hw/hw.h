/*
 * Profiles: what one processor is like and what each event costs on it.
 *
 * A profile is data, a JSON file (docs/profiles.md), never code: the shape of the TLBs, the
 * frequency, and a price for every event of the ledger that has one. Every number carries a mark
 * (how well it is founded) and its source, and a report says what share of its total rests on
 * estimates. The profiles of profiles/ are built into the program.
 *
 * Invariant: a loaded profile is complete. Every event that must have a price has one, so report/
 * never meets a hole. The callers: vm/ takes frequency and TLB geometry from it, report/ the
 * prices, cli/ shows and checks it.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"
#include "ledger/ledger.h"
#include "x86/cache_geometry.h"
#include "x86/tlb_geometry.h"

struct json_t;

/* How well a number is founded; the letter is what profile files carry. */
enum mark {
	MARK_SEED,     /* S: a seed paper */
	MARK_READ,     /* T: read in the public source named, or measured here (calibrate/) */
	MARK_COMMON,   /* K: common knowledge, not checked again */
	MARK_DERIVED,  /* D: computed from sourced numbers; the source says how */
	MARK_ESTIMATE, /* E: an estimate; the source gives the reason */
	MARK_COUNT
};

char mark_letter(enum mark m);
/* "seed paper", "read in the source named", ... */
const char *mark_text(enum mark m);

/* Prices are integers of a thousandth of a cycle, so that sums close exactly. */
#define MILLIS_PER_CYCLE 1000ull
/* The dearest price a profile may state; with it no sum of 2^64 events comes near 128 bits. */
#define PRICE_MAX_CYCLES 1000000000ull

struct number {
	uint64_t millis; /* value x 1000, in the unit that its place in the profile demands */
	enum mark mark;
	const char *source; /* owned by the profile */
};

/* What the processor takes (a reference, a transition) and what the VMM's software takes (a
 * handler). */
enum price_part { PRICE_HARDWARE, PRICE_SOFTWARE, PRICE_PART_COUNT };

struct price {
	bool is_priced;	 /* false: the event is counted and costs nothing of its own */
	bool is_derived; /* the file does not state it: profile_derive_prices() made it */
	bool has_part[PRICE_PART_COUNT];
	bool is_default[PRICE_PART_COUNT];    /* of an exit: taken from "exit.*" */
	struct number part[PRICE_PART_COUNT]; /* all 0 where has_part is false */
};

static inline uint64_t price_millis(const struct price *p)
{
	return p->part[PRICE_HARDWARE].millis + p->part[PRICE_SOFTWARE].millis;
}

/* Load-to-use latencies behind the prices of references (ref.*). The first three are the levels of
 * struct cache_geometry. */
enum cache_level { CACHE_L1D, CACHE_L2, CACHE_L3, CACHE_DRAM, CACHE_LEVEL_COUNT };
const char *cache_level_name(enum cache_level level);

/* One stated fact of the file, for people: where it stands, its value as text, and why one may
 * believe it. */
struct fact {
	char *path;  /* "prices.exit.cpuid.transition" */
	char *value; /* "1300", "512 entries, 4-way, 4K" */
	const char *unit;
	enum mark mark;
	const char *source;
};

struct profile {
	const char *name;
	const char *description;
	char *origin; /* the file it was read from, or "built in" */
	uint64_t frequency_hz;
	bool has_nested_paging; /* false: nested paging on it is a thought experiment */
	bool has_pf_filter;	/* the guest's own page faults can be kept from exiting */
	struct tlb_geometry tlb;
	struct cache_geometry caches;
	/* In cycles. A level that the processor lacks has the latency of the next. */
	struct number latency[CACHE_LEVEL_COUNT];
	struct price price[EVENT_COUNT];
	struct fact *facts; /* in the file's order */
	size_t fact_count;
	struct json_t *document; /* owns the strings */
};

/*
 * Loads the profile of that name, or the file if `name_or_path` has a '/' or ends in ".json". Names
 * are looked for among the built-in ones, then as NAME.json in the installed data folder. -ENOENT
 * (the message lists the names there are), -EINVAL for a malformed file (the message names file,
 * place and what would be right), -EIO and the like, -ENOMEM.
 */
int profile_load(const char *name_or_path, struct profile **out, struct error *e);
/* The same from memory; `origin` is what messages call it. */
int profile_parse(const char *origin, const char *bytes, size_t size_bytes, struct profile **out,
		  struct error *e);
void profile_destroy(struct profile *p);

static inline const struct price *profile_price(const struct profile *p, enum event e)
{
	return &p->price[e];
}

/* The catalogue of built-in profiles: NULL after the last. */
const char *profile_name(size_t i);
/* The file as it was built in. */
const char *profile_builtin_text(size_t i, size_t *size_bytes);
/* The profile as one JSON document that extends no other, from malloc; NULL without memory. */
char *profile_text(const struct profile *p);

/* Whether a profile must have a price for it, stated or derived. */
bool event_must_be_priced(enum event e);
/* Makes the prices that follow from latencies and that the file does not state: what a reference
 * costs that a cache level or memory answers. To be called again after a latency was changed. */
void profile_derive_prices(struct profile *p);

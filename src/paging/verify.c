/*
 * --verify: each TLB miss's answer against the reference walk, which looks at the guest's tables
 * before the strategy touches them.
 *
 * A strategy that walks the guest's tables at each miss (native, nested) must give the reference's
 * answer and leave A and D as it says. One that keeps tables (shadow) is a large TLB: while the
 * guest has changed an entry and not yet invalidated it, the old translation is as legal as the new
 * one. So the verifier remembers, by guest page, every reference answer since the last invalidation
 * that covers the page; a retaining strategy must give the present answer or one of those, and
 * nothing else. Faults must always be the present ones, with all tables as they were.
 *
 * An observer's answers are held to the same; A and D bits are the primary's to set.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "paging/mmu_private.h"

/* One answer: the guest page `page` (its number in its own size) was at `frame`. */
struct record {
	uint64_t page;
	uint64_t frame;
	uint32_t round; /* dead unless it is the verifier's; 0: never used */
	uint8_t shift;
	uint8_t flags;
};

struct verify {
	struct record *records; /* open addressing; a key may be there several times */
	unsigned bits;
	uint64_t used_count; /* live, or dead since the last growth */
	uint32_t round;
	bool has_forgotten;
};

#define RECORD_BITS_FIRST 12

static const uint8_t page_shifts[] = {12, 21, 22, 30};

int verify_create(struct verify **out, struct error *e)
{
	struct verify *v = calloc(1, sizeof(*v));
	if (v) {
		v->bits = RECORD_BITS_FIRST;
		v->round = 1;
		v->records = calloc(1ull << v->bits, sizeof(*v->records));
	}
	*out = v;
	return v && v->records ? 0 : error_set(e, -ENOMEM, "no host memory for --verify");
}

void verify_destroy(struct verify *v)
{
	if (v)
		free(v->records);
	free(v);
}

static uint64_t slot_of(const struct verify *v, uint64_t page, unsigned shift)
{
	return (page * 64 + shift) * 0x9e3779b97f4a7c15ull >> (64 - v->bits);
}

static struct record *next_slot(const struct verify *v, struct record *r)
{
	return ++r == v->records + (1ull << v->bits) ? v->records : r;
}

static void put(struct verify *v, struct record new)
{
	struct record *r = v->records + slot_of(v, new.page, new.shift);
	for (; r->round; r = next_slot(v, r))
		if (r->round == v->round && r->page == new.page && r->shift == new.shift &&
		    r->frame == new.frame && r->flags == new.flags)
			return;
	*r = new;
	v->used_count++;
}

/* Keeps the table at most half full: throws dead records away, and grows when many live. Without
 * memory for that all are forgotten, and until the next flush the verifier cannot call an old
 * answer wrong. */
static void make_room(struct verify *v)
{
	uint64_t count = 1ull << v->bits, live_count = 0;
	if (v->used_count * 2 < count)
		return;
	for (uint64_t i = 0; i < count; i++)
		live_count += v->records[i].round == v->round;
	struct verify new = {.bits = v->bits + (live_count * 4 > count), .round = v->round};
	new.records = calloc(1ull << new.bits, sizeof(*new.records));
	if (!new.records) {
		memset(v->records, 0, count * sizeof(*v->records));
		v->used_count = 0;
		v->has_forgotten = true;
		return;
	}
	for (uint64_t i = 0; i < count; i++)
		if (v->records[i].round == v->round)
			put(&new, v->records[i]);
	new.has_forgotten = v->has_forgotten;
	free(v->records);
	*v = new;
}

void verify_invalidate(struct verify *v, gva_t address)
{
	if (!v)
		return;
	for (unsigned i = 0; i < ARRAY_COUNT(page_shifts); i++) {
		uint64_t page = address.v >> page_shifts[i];
		struct record *r = v->records + slot_of(v, page, page_shifts[i]);
		for (; r->round; r = next_slot(v, r))
			if (r->page == page && r->shift == page_shifts[i])
				r->round = UINT32_MAX; /* dead, but the chain goes on */
	}
}

void verify_flush(struct verify *v)
{
	if (!v)
		return;
	v->round++;
	v->has_forgotten = false;
}

void verify_begin(const struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		  struct walk_result *reference)
{
	const struct walk_context *c = &mmu->private->context;
	struct walk_source source = mmu_walk_source(mmu);
	struct mmu_private *first = mmu->private->primary->private;
	/* All schemes that miss on one access are checked against one walk. */
	if (first->reference_clock != mmu->use_clock || !first->next)
		walk(c, &source, address, kind, mode, &first->reference);
	first->reference_clock = mmu->use_clock;
	*reference = first->reference;
}

static uint64_t entry_now(const struct mmu *mmu, const struct walk_step *step)
{
	if (!step->host)
		return step->entry;
	if (mmu->private->context.mode->entry_bytes == 4)
		return *(const uint32_t *)(const void *)step->host;
	return *(const uint64_t *)(const void *)step->host;
}

static bool is_in_rom(const struct mmu *mmu, gpa_t a)
{
	const struct memslot *slot = memory_slot(mmu->memory, a);
	return slot && (slot->is_rom || (memory_page_flags(mmu->memory, a) & PAGE_ROM));
}

/* What step `i`'s entry must be now. Tables that point to themselves use one entry at several
 * levels. */
static uint64_t entry_expected(const struct mmu *mmu, const struct walk_result *r, unsigned i,
			       enum access_kind kind)
{
	uint64_t expected = r->step[i].entry;
	if (r->outcome != WALK_OK || !r->step[i].host || is_in_rom(mmu, r->step[i].address))
		return expected;
	for (unsigned j = 0; j < r->step_count; j++)
		if (r->step[j].host == r->step[i].host)
			expected |= walk_committed_entry(r, j, kind);
	return expected;
}

static const char *wrong_entries(const struct mmu *mmu, const struct walk_result *r,
				 enum access_kind kind)
{
	if (mmu->is_observer)
		return NULL; /* it leaves them to the primary */
	for (unsigned i = 0; i < r->step_count; i++)
		if (entry_now(mmu, &r->step[i]) != entry_expected(mmu, r, i, kind))
			return "accessed or dirty bits";
	return NULL;
}

/* Accesses that the hardware would let through without asking again. */
static unsigned granted(const struct mmu *mmu, const struct translation *t)
{
	unsigned mask = mmu->private->permit[t->flags & WALK_RIGHTS];
	for (unsigned m = 0; m < MMU_MODE_COUNT; m++)
		if (!(t->flags & WALK_D))
			mask &= ~(1u << WALK_ACCESS(m, ACCESS_WRITE));
	return mask;
}

/* Is `t` what a guest page with these facts may give? NULL, or what is wrong. */
static const char *wrong_translation(const struct mmu *mmu, gva_t address,
				     const struct translation *t, uint64_t frame, unsigned shift,
				     unsigned flags, enum access_kind kind, enum mmu_mode mode)
{
	const uint16_t *permit = mmu->private->context.permit;
	if (t->gpa.v != frame + (address.v & (BIT(shift) - 1)))
		return "guest-physical address";
	if (t->page_shift > shift || t->guest_shift < t->page_shift)
		return "page size";
	if (!walk_permits(permit, flags, kind, mode))
		return "an access that the guest forbids";
	if (!t->is_uncached && granted(mmu, t) & ~(unsigned)permit[flags & WALK_RIGHTS])
		return "more rights than the guest gives";
	return NULL;
}

static const char *wrong_present(const struct mmu *mmu, gva_t address, enum access_kind kind,
				 enum mmu_mode mode, const struct walk_result *r,
				 const struct translation *t)
{
	if (r->outcome != WALK_OK)
		return "a translation where the guest's tables fault";
	uint64_t frame = r->gpa.v - (address.v & (BIT(r->page_shift) - 1));
	const char *wrong =
		wrong_translation(mmu, address, t, frame, r->page_shift, r->flags, kind, mode);
	if (!wrong)
		wrong = wrong_entries(mmu, r, kind);
	const struct walk_step *leaf = &r->step[r->step_count - 1];
	bool is_dirty = mmu->is_observer || (entry_now(mmu, leaf) & PTE_D) ||
			is_in_rom(mmu, leaf->address);
	if (!wrong && !t->is_uncached && (t->flags & WALK_D) && !is_dirty)
		wrong = "dirty without the guest's D";
	return wrong;
}

static bool locate_old(void *opaque, gpa_t a, unsigned size_bytes, uint8_t **host)
{
	const struct mmu *mmu = opaque;
	const struct strategy *s = mmu->private->strategy;
	const uint8_t *old = s->old_table(s, a);
	*host = old ? (uint8_t *)(uintptr_t)old + (a.v & PAGE_OFFSET_MASK)
		    : memory_host(mmu->memory, a, size_bytes);
	return true;
}

/* A strategy that lets a table go out of sync may answer as the table was then, for pages that
 * nobody asked for since: as a processor may that translated ahead (SDM 3A 4.10.2.3). */
static bool was_legal_by_old_tables(const struct mmu *mmu, gva_t address, enum access_kind kind,
				    enum mmu_mode mode, const struct translation *t)
{
	struct walk_source source = mmu_walk_source(mmu);
	struct walk_result r;
	if (!mmu->private->strategy->old_table)
		return false;
	source.locate = locate_old;
	source.opaque = (void *)(uintptr_t)mmu;
	if (walk(&mmu->private->context, &source, address, kind, mode, &r) != WALK_OK)
		return false;
	uint64_t frame = r.gpa.v - (address.v & (BIT(r.page_shift) - 1));
	return !wrong_translation(mmu, address, t, frame, r.page_shift, r.flags, kind, mode);
}

/* Did the guest's tables say what `t` says, since the last invalidation? */
static bool was_legal(const struct mmu *mmu, gva_t address, enum access_kind kind,
		      enum mmu_mode mode, const struct translation *t)
{
	const struct verify *v = mmu->private->verify;
	for (unsigned i = 0; i < ARRAY_COUNT(page_shifts); i++) {
		unsigned shift = page_shifts[i];
		struct record *r = v->records + slot_of(v, address.v >> shift, shift);
		for (; r->round; r = next_slot(v, r))
			if (r->round == v->round && r->page == address.v >> shift &&
			    r->shift == shift &&
			    !wrong_translation(mmu, address, t, r->frame, shift, r->flags, kind,
					       mode))
				return true;
	}
	return v->has_forgotten || was_legal_by_old_tables(mmu, address, kind, mode, t);
}

static void describe_reference(const struct mmu *mmu, const struct walk_result *r, char *text,
			       size_t size)
{
	size_t n = 0;
	if (r->outcome == WALK_OK)
		n += (size_t)snprintf(text, size, "gpa %#" PRIx64 " in a 2^%u page, rights %s%s%s",
				      r->gpa.v, r->page_shift, r->flags & WALK_W ? "w" : "-",
				      r->flags & WALK_U ? "u" : "-",
				      r->flags & WALK_NX ? "-" : "x");
	else
		n += (size_t)snprintf(text, size, "fault %#x", r->error_code);
	for (unsigned i = 0; i < r->step_count && n < size; i++)
		n += (size_t)snprintf(text + n, size - n,
				      "; level %u at %#" PRIx64 " %#" PRIx64 " now %#" PRIx64,
				      r->step[i].level, r->step[i].address.v, r->step[i].entry,
				      entry_now(mmu, &r->step[i]));
}

static void report(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   const struct walk_result *r, const struct translation *t, uint32_t error_code,
		   const char *wrong)
{
	static const char *const kinds[] = {"read", "write", "fetch"};
	static const char *const modes[] = {"supervisor", "user", "supervisor (AC)"};
	struct mmu_private *p = mmu->private;
	char mine[160], reference[600];
	if (mmu->difference)
		return;
	if (t)
		snprintf(mine, sizeof(mine), "gpa %#" PRIx64 " in a 2^%u page, rights %s%s%s%s",
			 t->gpa.v, t->page_shift, t->flags & WALK_W ? "w" : "-",
			 t->flags & WALK_U ? "u" : "-", t->flags & WALK_NX ? "-" : "x",
			 t->is_uncached ? ", uncached" : "");
	else
		snprintf(mine, sizeof(mine), "fault %#x", error_code);
	describe_reference(mmu, r, reference, sizeof(reference));
	snprintf(p->difference, sizeof(p->difference),
		 "%s %s of %#" PRIx64 " (%s paging, CR3 %#" PRIx64 "): wrong is %s\n"
		 "  %s: %s\n  reference: %s",
		 modes[mode], kinds[kind], address.v, p->context.mode->name, mmu->vcpu->state.cr3,
		 wrong, p->entry->name, mine, reference);
	mmu->difference = p->difference;
}

void verify_end(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		const struct walk_result *r, const struct translation *t, uint32_t error_code)
{
	struct verify *v = mmu->private->verify;
	const char *wrong = NULL;
	if (r->outcome == WALK_OK && mmu->private->strategy->is_retaining) {
		uint64_t page = address.v >> r->page_shift;
		uint64_t frame = r->gpa.v - (address.v & (BIT(r->page_shift) - 1));
		make_room(v);
		put(v,
		    (struct record){page, frame, v->round, r->page_shift, r->flags & WALK_RIGHTS});
	}
	if (t)
		wrong = wrong_present(mmu, address, kind, mode, r, t);
	else if (r->outcome != WALK_FAULT)
		wrong = "a fault where the guest's tables translate";
	else if (r->error_code != error_code)
		wrong = "the fault's error code";
	else
		wrong = wrong_entries(mmu, r, kind);
	if (!wrong)
		return;
	if (t && mmu->private->strategy->is_retaining && was_legal(mmu, address, kind, mode, t))
		return;
	report(mmu, address, kind, mode, r, t, error_code, wrong);
}

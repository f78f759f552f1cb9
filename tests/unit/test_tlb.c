/* The modelled TLBs: replacement, sets, sizes, spaces, invalidation. Exact shapes are not there in
 * hard mode. */
#include "paging_world.h"

#include "paging/tlb.h"

struct dropped {
	unsigned count;
	const struct tlb_entry *last;
};

static void count_dropped(void *opaque, enum tlb_side_id side, const struct tlb_entry *entry,
			  uint64_t page)
{
	struct dropped *d = opaque;
	d->count++;
	d->last = entry;
}

static struct tlb *open_tlb(struct tlb_geometry g, struct dropped *d)
{
	struct tlb *t;
	assert_int_equal(tlb_create(&t, &g, count_dropped, d, NULL), 0);
	tlb_set_pcid(t, 0);
	return t;
}

static struct translation page(uint64_t to, unsigned shift, unsigned flags)
{
	return (struct translation){.gpa = gpa(to),
				    .page_shift = (uint8_t)shift,
				    .guest_shift = (uint8_t)shift,
				    .flags = (uint8_t)flags};
}

static struct tlb_entry *put(struct tlb *t, unsigned level, uint64_t at, unsigned shift,
			     unsigned flags, uint64_t now)
{
	struct translation p = page(at + 0x100000000ull, shift, flags);
	struct tlb_entry *e = tlb_insert(t, level, TLB_DATA, gva(at), &p, now);
	if (e && level == 0)
		e->fast_accesses = 1; /* the owner derived something from it */
	return e;
}

static bool has(struct tlb *t, unsigned level, uint64_t at)
{
	return tlb_find(t, level, TLB_DATA, gva(at)) != NULL;
}

static void the_least_recently_used_of_a_set_goes(void **state)
{
#ifdef GNOMON_HARD
	skip();
#endif
	struct dropped d = {0};
	struct tlb *t = open_tlb(geometry_intel(), &d); /* 16 sets of 4 */
	for (uint64_t i = 0; i < 4; i++)
		put(t, 0, (i * 16 + 5) << 12, 12, 0, i + 1);
	put(t, 0, 6 << 12, 12, 0, 5); /* another set */
	struct tlb_entry *first = tlb_find(t, 0, TLB_DATA, gva(5 << 12));
	*first->stamp = 6; /* used again */
	put(t, 0, (4 * 16 + 5) << 12, 12, 0, 7);
	assert_int_equal(d.count, 1);
	assert_true(has(t, 0, 5 << 12));
	assert_false(has(t, 0, (16 + 5) << 12)); /* the second was the oldest */
	assert_true(has(t, 0, (2 * 16 + 5) << 12));
	assert_true(has(t, 0, 6 << 12));
	tlb_destroy(t);
}

/* A fully associative array against a list kept by hand. */
static void full_associativity_is_true_lru(void **state)
{
#ifdef GNOMON_HARD
	skip();
#endif
	struct dropped d = {0};
	struct tlb *t = open_tlb(geometry_amd(), &d); /* 48 */
	uint64_t list[48];
	unsigned count = 0;
	struct world w = {.random = 7};
	for (uint64_t now = 1; now < 50000; now++) {
		uint64_t p = world_below(&w, 40 + (unsigned)(now % 30));
		struct tlb_entry *e = tlb_find(t, 0, TLB_DATA, gva(p << 12));
		unsigned i = 0;
		while (i < count && list[i] != p)
			i++;
		assert_int_equal(e != NULL, i < count);
		if (e)
			*e->stamp = now;
		else
			put(t, 0, p << 12, 12, 0, now);
		if (i == count)
			count < 48 ? count++ : (i = 47);
		memmove(&list[1], &list[0], i * sizeof(list[0]));
		list[0] = p;
	}
	tlb_destroy(t);
}

static void flushed_entries_go_before_live_ones(void **state)
{
#ifdef GNOMON_HARD
	skip();
#endif
	struct dropped d = {0};
	struct tlb *t = open_tlb(geometry_intel(), &d);
	put(t, 0, 5 << 12, 12, 0, 1); /* the oldest, and alive */
	tlb_set_pcid(t, 1);
	for (uint64_t i = 1; i < 4; i++)
		put(t, 0, (i * 16 + 5) << 12, 12, 0, i + 1);
	tlb_flush_pcid(t, 1);
	for (uint64_t i = 1; i < 4; i++)
		put(t, 0, (i * 16 + 5) << 12, 12, 0, i + 10);
	tlb_set_pcid(t, 0);
	assert_true(has(t, 0, 5 << 12));
	tlb_destroy(t);
}

static void each_size_finds_its_array_or_is_broken(void **state)
{
	struct dropped d = {0};
	struct tlb *t = open_tlb(geometry_tiny(), &d); /* no 1G, no 4M in the first level */
	struct tlb_entry *e = put(t, 0, 0x40000000, 30, WALK_W, 1);
	assert_int_equal(e->page_shift, 21);
	assert_true(e->frame == 0x140000000ull);
	struct translation p = page(0x180a03123, 30, 0);
	e = tlb_insert(t, 0, TLB_DATA, gva(0x80a03123), &p, 2);
	assert_true(e->frame == 0x180a00000ull);
	assert_int_equal(e->guest_shift, 30);
	assert_null(put(t, 1, 0x40000000, 30, 0, 3)); /* the second leaves it out */
	assert_int_equal(put(t, 1, 0x400000, 22, 0, 4)->page_shift, 22);
	assert_true(has(t, 1, 0x7fffff));
	assert_false(has(t, 1, 0x800000));
	/* INVLPG anywhere in the guest's page finds the fragment. */
	tlb_invalidate(t, 0, true, gva(0xbff00000));
	assert_false(has(t, 0, 0x80a00000));
	assert_true(has(t, 0, 0x40000000));
	tlb_destroy(t);
}

static void spaces_keep_pcids_apart_and_share_globals(void **state)
{
	struct dropped d = {0};
	struct tlb *t = open_tlb(geometry_intel(), &d);
	put(t, 1, 0x1000, 12, 0, 1);
	put(t, 1, 0x2000, 12, WALK_G, 2);
	tlb_set_pcid(t, 5);
	assert_false(has(t, 1, 0x1000));
	assert_true(has(t, 1, 0x2000));
	tlb_set_pcid(t, 0);
	assert_true(has(t, 1, 0x1000));
	tlb_flush_pcid(t, 5);
	assert_true(has(t, 1, 0x1000));
	tlb_flush_pcid(t, 0);
	assert_false(has(t, 1, 0x1000));
	assert_true(has(t, 1, 0x2000));
	put(t, 1, 0x3000, 12, 0, 3);
	tlb_flush_non_global(t);
	assert_false(has(t, 1, 0x3000));
	assert_true(has(t, 1, 0x2000));
	tlb_flush_all(t);
	assert_false(has(t, 1, 0x2000));
	tlb_destroy(t);
}

static void invalidation_takes_every_size_and_level(void **state)
{
	struct dropped d = {0};
	struct tlb *t = open_tlb(geometry_intel(), &d);
	put(t, 0, 0x200000, 12, 0, 1);
	put(t, 1, 0x200000, 21, 0, 2);
	put(t, 0, 0x201000, 12, WALK_G, 3);
	tlb_invalidate(t, 0, true, gva(0x200000));
	assert_false(has(t, 0, 0x200000));
	assert_false(has(t, 1, 0x200000));
	assert_true(has(t, 0, 0x201000));
	tlb_invalidate(t, 0, false, gva(0x201000)); /* INVPCID 0 leaves globals */
	assert_true(has(t, 0, 0x201000));
	tlb_invalidate(t, 0, true, gva(0x201000));
	assert_false(has(t, 0, 0x201000));
	tlb_set_pcid(t, 9);
	put(t, 0, 0x5000, 12, 0, 4);
	tlb_set_pcid(t, 0);
	tlb_invalidate(t, 9, false, gva(0x5000));
	tlb_set_pcid(t, 9);
	assert_false(has(t, 0, 0x5000));
	tlb_destroy(t);
}

/* The first level gives one answer for an address, also when the guest made a large page over small
 * ones. */
static void a_large_page_takes_the_place_of_small_ones(void **state)
{
	struct dropped d = {0};
	struct tlb *t = open_tlb(geometry_intel(), &d);
	put(t, 0, 0x201000, 12, 0, 1);
	put(t, 0, 0x401000, 12, 0, 2);
	put(t, 0, 0x200000, 21, 0, 3);
	assert_int_equal(tlb_find(t, 0, TLB_DATA, gva(0x201000))->page_shift, 21);
	assert_true(has(t, 0, 0x401000));
	assert_int_equal(d.count, 1);
	tlb_destroy(t);
}

/* 2^17 space numbers: far more flushes than that must neither leak old entries nor lose new ones.
 */
static void space_numbers_can_run_out(void **state)
{
	struct dropped d = {0};
	struct tlb *t = open_tlb(geometry_intel(), &d);
	for (unsigned i = 0; i < 300000; i++) {
		put(t, 1, 0x1000, 12, i & 1 ? WALK_G : 0, i + 1);
		assert_true(has(t, 1, 0x1000));
		if (i % 3 == 0)
			tlb_flush_all(t);
		else if (i % 3 == 1)
			tlb_set_pcid(t, i & 0xfff), tlb_flush_pcid(t, i & 0xfff);
		else
			tlb_flush_all(t);
		if (i % 3 != 1)
			assert_false(has(t, 1, 0x1000));
		tlb_flush_all(t);
	}
	tlb_destroy(t);
}

/* The TLBs as a person would write them: entries with all their facts, searched one by one. */

struct naive_entry {
	bool is_used, is_global;
	unsigned pcid, shift, guest_shift;
	uint64_t page, frame, stamp; /* page: the address */
};

struct naive_bank {
	unsigned level, side, sizes, sets, ways;
	struct naive_entry *entry;
};

struct naive {
	struct naive_bank bank[16];
	unsigned bank_count, pcid;
	bool is_unified, has_store;
};

static void naive_add(struct naive *n, const struct tlb_side *side, unsigned level, unsigned id)
{
	for (unsigned i = 0; i < side->array_count; i++) {
		const struct tlb_array *a = &side->array[i];
		struct naive_bank *b = &n->bank[n->bank_count++];
		unsigned ways = a->ways ? a->ways : a->entries;
		*b = (struct naive_bank){level, id, a->sizes, a->entries / ways, ways, NULL};
#ifdef GNOMON_HARD
		b->sets = 1;
		b->ways = a->entries < 2 ? a->entries : 2;
#endif
		b->entry = calloc((size_t)b->sets * b->ways, sizeof(*b->entry));
	}
}

static void naive_open(struct naive *n, const struct tlb_geometry *g)
{
	*n = (struct naive){.is_unified = g->l2_unified, .has_store = g->l1s.array_count};
	naive_add(n, &g->l1d, 0, TLB_DATA);
	naive_add(n, &g->l1i, 0, TLB_INSTRUCTION);
	naive_add(n, &g->l1s, 0, TLB_STORE);
	naive_add(n, &g->l2d, 1, TLB_DATA);
	naive_add(n, &g->l2i, 1, TLB_INSTRUCTION);
}

static void naive_close(struct naive *n)
{
	for (unsigned i = 0; i < n->bank_count; i++)
		free(n->bank[i].entry);
}

static bool is_of(const struct naive *n, const struct naive_bank *b, unsigned level, unsigned side)
{
	bool is_data = level ? n->is_unified || side == TLB_STORE
			     : side == TLB_STORE && !n->has_store;
	return b->level == level && b->side == (is_data ? TLB_DATA : side);
}

static bool is_visible(const struct naive *n, const struct naive_entry *e)
{
	return e->is_used && (e->is_global || e->pcid == n->pcid);
}

static struct naive_entry *naive_find(struct naive *n, unsigned level, unsigned side, uint64_t at)
{
	static const unsigned shifts[] = {12, 21, 22, 30};
	for (unsigned i = 0; i < n->bank_count; i++)
		for (unsigned s = 0; is_of(n, &n->bank[i], level, side) && s < 4; s++)
			for (unsigned k = 0; k < n->bank[i].sets * n->bank[i].ways; k++) {
				struct naive_entry *e = &n->bank[i].entry[k];
				if (is_visible(n, e) && e->shift == shifts[s] &&
				    e->page >> e->shift == at >> e->shift)
					return e;
			}
	return NULL;
}

static void naive_put(struct naive *n, unsigned level, unsigned side, uint64_t at,
		      struct naive_entry new)
{
	static const unsigned smaller[] = {[12] = 0, [21] = 12, [22] = 21, [30] = 22};
	unsigned size = 0;
	uint64_t from = at >> new.shift << new.shift;
	for (bool is_held = false; !is_held;) {
		size = new.shift == 12 ? 0 : new.shift == 30 ? 3 : new.shift - 20;
		for (unsigned i = 0; i < n->bank_count; i++)
			is_held |= is_of(n, &n->bank[i], level, side) &&
				   n->bank[i].sizes >> size & 1;
		if (!is_held && level)
			return;
		if (!is_held)
			new.shift = smaller[new.shift];
	}
	new.page = at >> new.shift << new.shift;
	new.frame += new.page - from;
	for (unsigned i = 0; !level && i < n->bank_count; i++)
		for (unsigned k = 0;
		     is_of(n, &n->bank[i], 0, side) && k < n->bank[i].sets * n->bank[i].ways; k++) {
			struct naive_entry *e = &n->bank[i].entry[k];
			if (is_visible(n, e) && e->shift < new.shift &&
			    e->page >> new.shift == new.page >> new.shift)
				*e = (struct naive_entry){0};
		}
	struct naive_entry *out = NULL;
	for (unsigned i = 0; i < n->bank_count; i++) {
		struct naive_bank *b = &n->bank[i];
		if (!is_of(n, b, level, side) || !(b->sizes >> size & 1))
			continue;
		struct naive_entry *set = b->entry + (new.page >> new.shift) % b->sets * b->ways;
		for (unsigned k = 0; k < b->ways; k++)
			if (!out || set[k].stamp < out->stamp)
				out = &set[k];
	}
	*out = new;
}

/* Drops what `pcid` (4096: every one) has, within the guest page at `at` (or anywhere). */
static void naive_drop(struct naive *n, unsigned pcid, bool with_global, const uint64_t *at)
{
	for (unsigned i = 0; i < n->bank_count; i++)
		for (unsigned k = 0; k < n->bank[i].sets * n->bank[i].ways; k++) {
			struct naive_entry *e = &n->bank[i].entry[k];
			bool is_his = e->is_global ? with_global : pcid == 4096 || e->pcid == pcid;
			if (e->is_used && is_his &&
			    (!at || e->page >> e->guest_shift == *at >> e->guest_shift))
				*e = (struct naive_entry){0};
		}
}

/* A guest's page at an address: its size, and the host's, follow from the region and from `era`:
 * the guest changes them now and then and does not always say so. */
static struct naive_entry page_at(const struct naive *n, uint64_t at, unsigned era)
{
	static const unsigned guest[] = {12, 12, 21, 21, 21, 22, 30, 12};
	static const unsigned host[] = {12, 12, 21, 12, 21, 21, 30, 12};
	unsigned kind = (unsigned)(at >> 30) % 8;
	if (kind < 3 && (at >> 21) % 4 == era % 4)
		kind = 2 - kind;
	return (struct naive_entry){
		.is_used = true,
		.is_global = (at >> 23) % 8 == 3,
		.pcid = n->pcid,
		.shift = host[kind],
		.guest_shift = guest[kind],
		.frame = (at + 0x4000000000) >> host[kind] << host[kind],
	};
}

static void naive_control(struct world *w, struct naive *n, struct tlb *t, uint64_t at)
{
	unsigned what = world_below(w, 12), pcid = world_below(w, 3);
	bool with_global = world_chance(w, 50);
	if (what < 4) {
		n->pcid = pcid;
		tlb_set_pcid(t, pcid);
	} else if (what < 9) {
		naive_drop(n, pcid, with_global, &at);
		tlb_invalidate(t, pcid, with_global, gva(at));
	} else if (what < 10) {
		naive_drop(n, pcid, false, NULL);
		tlb_flush_pcid(t, pcid);
	} else if (what < 11) {
		naive_drop(n, 4096, false, NULL);
		tlb_flush_non_global(t);
	} else {
		naive_drop(n, 4096, true, NULL);
		tlb_flush_all(t);
	}
}

static void naive_access(struct naive *n, struct tlb *t, unsigned side, uint64_t at, unsigned era,
			 uint64_t now)
{
	for (unsigned level = 0; level < 2; level++) {
		struct naive_entry *by_hand = naive_find(n, level, side, at);
		struct tlb_entry *e = tlb_find(t, level, side, gva(at));
		assert_int_equal(e != NULL, by_hand != NULL);
		if (!e)
			continue;
		assert_int_equal(e->page_shift, by_hand->shift);
		assert_int_equal(e->guest_shift, by_hand->guest_shift);
		assert_true(e->frame == by_hand->frame);
		*e->stamp = by_hand->stamp = now;
		if (level) {
			struct naive_entry copy = *by_hand;
			copy.pcid = n->pcid;
			naive_put(n, 0, side, at, copy);
			tlb_promote(t, side, gva(at), e, now);
		}
		return;
	}
	struct naive_entry new = page_at(n, at, era);
	new.stamp = now;
	struct translation p = page(new.frame + (at & ((1ull << new.shift) - 1)), new.shift,
				    new.is_global ? WALK_G : 0);
	p.guest_shift = (uint8_t) new.guest_shift;
	for (unsigned level = 2; level-- > 0;) {
		naive_put(n, level, side, at, new);
		tlb_insert(t, level, side, gva(at), &p, now);
	}
}

/* As Ice Lake's: stores apart, and a size that two second-level arrays hold. */
static struct tlb_geometry geometry_stores(void)
{
	struct tlb_geometry g = geometry_intel();
	g.l1s = (struct tlb_side){{{"L1 S", 16, 0, TLB_ALL_SIZES}}, 1};
	g.l2d = (struct tlb_side){
		{{"L2 2M", 32, 8, TLB_4K | TLB_2M | TLB_4M}, {"L2 1G", 16, 4, TLB_4K | TLB_1G}}, 2};
	return g;
}

static void every_answer_is_as_by_hand(void **state)
{
	struct tlb_geometry shapes[] = {geometry_intel(), geometry_amd(), geometry_tiny(),
					geometry_single(), geometry_stores()};
	for (unsigned s = 0; s < ARRAY_COUNT(shapes); s++) {
		struct world w = {.random = 99 + s};
		struct dropped d = {0};
		struct naive n;
		struct tlb *t = open_tlb(shapes[s], &d);
		naive_open(&n, &shapes[s]);
		for (uint64_t now = 1; now < 15000; now++) {
			uint64_t at = (uint64_t)world_below(&w, 8) << 30 |
				      (uint64_t)world_below(&w, 8) << 21 |
				      (uint64_t)world_below(&w, world_chance(&w, 20) ? 512 : 6)
					      << 12;
			if (world_chance(&w, 3))
				naive_control(&w, &n, t, at);
			else
				naive_access(&n, t, world_below(&w, 3), at, (unsigned)(now / 200),
					     now);
		}
		naive_close(&n);
		tlb_destroy(t);
	}
}

static void impossible_shapes_are_refused(void **state)
{
	static const struct tlb_array bad[] = {
		{"none", 0, 0, TLB_4K}, {"ways", 64, 5, TLB_4K},    {"sets", 48, 4, TLB_4K},
		{"sizes", 64, 4, 0x10}, {"2M only", 64, 4, TLB_2M},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
		struct tlb_geometry g = geometry_intel();
		struct tlb *t;
		struct error e = {0};
		g.l1d.array[0] = bad[i];
		assert_int_equal(tlb_create(&t, &g, count_dropped, NULL, &e), -22);
		assert_null(t);
		assert_true(e.text[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_least_recently_used_of_a_set_goes),
		cmocka_unit_test(full_associativity_is_true_lru),
		cmocka_unit_test(flushed_entries_go_before_live_ones),
		cmocka_unit_test(each_size_finds_its_array_or_is_broken),
		cmocka_unit_test(spaces_keep_pcids_apart_and_share_globals),
		cmocka_unit_test(invalidation_takes_every_size_and_level),
		cmocka_unit_test(a_large_page_takes_the_place_of_small_ones),
		cmocka_unit_test(space_numbers_can_run_out),
		cmocka_unit_test(every_answer_is_as_by_hand),
		cmocka_unit_test(impossible_shapes_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

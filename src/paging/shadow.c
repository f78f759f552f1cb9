/*
 * The shadow core's pages, links and protection. See shadow.h.
 *
 * Everything lies in arrays made once; lists are chains of indexes through them. Forgetting all is
 * a new epoch: heads and counts that carry an old one are empty.
 */
#include "paging/shadow.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/hard.h"
#define SHADOW_LIMIT_DEFAULT (32ull << 20)
#define SHADOW_PAGES_MIN 8u	    /* one path of a five-level guest, and a page to spare */
#define SHADOW_PAGES_PATIENCE 4096u /* in hard mode SHADOW_PAGES_MIN are all, at first */
#define SHADOW_PAGES_MAX (1u << 23)
#define ROOTS_DEFAULT 64u

static uint32_t page_limit(const struct mmu_config *config)
{
	uint64_t bytes = config->shadow_limit_bytes;
	uint64_t count = (bytes ? bytes : SHADOW_LIMIT_DEFAULT) >> PAGE_SHIFT;
	if (count < SHADOW_PAGES_MIN)
		return SHADOW_PAGES_MIN;
	return count < SHADOW_PAGES_MAX ? (uint32_t)count : SHADOW_PAGES_MAX;
}

/* Zeroed, and without cost until touched. */
static void *map_array(uint64_t count, size_t size_bytes)
{
	void *p = mmap(NULL, count * size_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

static void unmap_array(void *p, uint64_t count, size_t size_bytes)
{
	if (p)
		munmap(p, count * size_bytes);
}

static void take_mode(struct shadow *s)
{
	const struct paging_mode *guest = s->mmu->private->context.mode;
	s->mode = guest->entry_bytes == 4 ? &paging_modes[PAGING_PAE] : guest;
}

static uint64_t region_count(const struct shadow *s, unsigned i)
{
	return (s->mmu->memory->ram_bytes >> (i ? 30 : 21)) + 1;
}

int shadow_init(struct shadow *s, struct mmu *mmu, const struct mmu_config *config,
		const struct shadow_policy *policy, struct error *e)
{
	uint32_t count = page_limit(config);
	*s = (struct shadow){.mmu = mmu,
			     .policy = *policy,
			     .epoch = 1,
			     .newest = SHADOW_NONE,
			     .oldest = SHADOW_NONE,
			     .root = SHADOW_NONE,
			     .page_shift_max = config->host_page_shift,
			     .is_noting = config->verify || IS_HARD};
	if (!s->policy.root_count)
		s->policy.root_count = ROOTS_DEFAULT;
	while ((1u << s->bucket_bits) < count)
		s->bucket_bits++;
	take_mode(s);
	int r = table_pool_init(&s->pool, hpa(align_up(mmu->memory->ram_bytes, BIT(30))), count, e);
	if (r)
		return r;
	s->pages = map_array(count, sizeof(*s->pages));
	s->links = map_array((uint64_t)count * SHADOW_ENTRIES, sizeof(*s->links));
	s->buckets = map_array(1ull << s->bucket_bits, sizeof(*s->buckets));
	s->frames = map_array(mmu->memory->page_count, sizeof(*s->frames));
	s->regions[0] = map_array(region_count(s, 0), sizeof(*s->regions[0]));
	s->regions[1] = map_array(region_count(s, 1), sizeof(*s->regions[1]));
	s->roots = calloc(s->policy.root_count, sizeof(*s->roots));
	if (!s->pages || !s->links || !s->buckets || !s->frames || !s->regions[0] ||
	    !s->regions[1] || !s->roots)
		return error_set(e, -ENOMEM, "no host memory for shadow tables");
	struct memory_watcher watcher = {shadow_written, s, PAGE_TABLE};
	if (policy->is_watching && memory_add_watcher(mmu->memory, watcher))
		return error_set(e, -ENOSPC, "too many strategies watch the guest's tables");
	return 0;
}

void shadow_fini(struct shadow *s)
{
	if (!s->mmu)
		return;
	uint32_t count = s->pool.page_count;
	if (s->frames)
		shadow_drop_all(s);
	memory_remove_watcher(s->mmu->memory, s);
	unmap_array(s->pages, count, sizeof(*s->pages));
	unmap_array(s->links, (uint64_t)count * SHADOW_ENTRIES, sizeof(*s->links));
	unmap_array(s->buckets, 1ull << s->bucket_bits, sizeof(*s->buckets));
	unmap_array(s->frames, s->mmu->memory->page_count, sizeof(*s->frames));
	for (unsigned i = 0; i < 2; i++)
		unmap_array(s->regions[i], region_count(s, i), sizeof(*s->regions[i]));
	table_pool_fini(&s->pool);
	free(s->roots);
	free(s->unsync);
}

/* Lists */

static uint32_t *first_in(const struct shadow *s, struct shadow_head *h)
{
	if (h->epoch != s->epoch)
		*h = (struct shadow_head){SHADOW_NONE, s->epoch};
	return &h->first;
}

static uint32_t *mappings_at(const struct shadow *s, uint64_t host_address, unsigned level)
{
	if (level == 1)
		return first_in(s, &s->frames[host_address >> 12].mappings);
	if (level == 2)
		return first_in(s, &s->regions[0][host_address >> 21].mappings);
	return first_in(s, &s->regions[1][host_address >> 30].mappings);
}

/* The list that the present entry at `at` is in. */
static uint32_t *list_of(const struct shadow *s, uint32_t at)
{
	uint64_t entry = *shadow_entry(s, at);
	unsigned level = s->pages[shadow_page_of(at)].role.level;
	if (entry & SHADOW_SWITCH)
		return mappings_at(s, entry & SHADOW_ADDRESS, 1);
	if (shadow_is_leaf(entry, level))
		return mappings_at(s, entry & SHADOW_ADDRESS, level);
	return &s->pages[shadow_child(s, entry)].parents;
}

static void link_in(struct shadow *s, uint32_t at)
{
	uint32_t *first = list_of(s, at);
	s->links[at] = (struct shadow_link){*first, SHADOW_NONE};
	if (*first != SHADOW_NONE)
		s->links[*first].previous = at;
	*first = at;
}

static void link_out(struct shadow *s, uint32_t at)
{
	struct shadow_link l = s->links[at];
	if (l.previous != SHADOW_NONE)
		s->links[l.previous].next = l.next;
	else
		*list_of(s, at) = l.next;
	if (l.next != SHADOW_NONE)
		s->links[l.next].previous = l.previous;
}

static void age_out(struct shadow *s, uint32_t page)
{
	struct shadow_page *p = &s->pages[page];
	if (p->newer != SHADOW_NONE)
		s->pages[p->newer].older = p->older;
	else
		s->newest = p->older;
	if (p->older != SHADOW_NONE)
		s->pages[p->older].newer = p->newer;
	else
		s->oldest = p->newer;
}

static void age_in(struct shadow *s, uint32_t page)
{
	struct shadow_page *p = &s->pages[page];
	p->newer = SHADOW_NONE;
	p->older = s->newest;
	if (s->newest != SHADOW_NONE)
		s->pages[s->newest].newer = page;
	else
		s->oldest = page;
	s->newest = page;
}

void shadow_touch(struct shadow *s, uint32_t page)
{
	if (s->newest == page)
		return;
	age_out(s, page);
	age_in(s, page);
}

/* Entries */

void shadow_set_pointer(struct shadow *s, uint32_t at, uint32_t child, uint64_t size_code)
{
	*shadow_entry(s, at) = table_pool_hpa(&s->pool, child).v | size_code | PTE_P | PTE_W |
			       PTE_U;
	s->pages[shadow_page_of(at)].used_count++;
	link_in(s, at);
	shadow_note(s, at);
}

void shadow_set_leaf(struct shadow *s, uint32_t at, uint64_t entry)
{
	*shadow_entry(s, at) = entry;
	s->pages[shadow_page_of(at)].used_count++;
	link_in(s, at);
	shadow_note(s, at);
}

/* A page that nothing leads to any more goes at once where it could not be found again (no
 * watching), would have to be compared in full (out of sync), or would be a burden to a guest that
 * writes to it (agile). */
static bool is_worthless(const struct shadow *s, uint32_t page)
{
	const struct shadow_page *p = &s->pages[page];
	if (p->parents != SHADOW_NONE || p->is_root || page == s->root)
		return false;
	if (!s->policy.is_watching || s->policy.is_nested)
		return true;
	const struct shadow_frame *f = shadow_is_table(p) ? shadow_frame_of(s, p->gfn) : NULL;
	return f && f->table_epoch == s->epoch && f->unsync_slot;
}

/* A leaf lost rights, or went. */
static void note_loss(struct shadow *s)
{
	s->is_flush_due |= !s->policy.is_invlpg_exitless;
}

void shadow_clear_entry(struct shadow *s, uint32_t at)
{
	uint64_t *entry = shadow_entry(s, at);
	if (!(*entry & PTE_P)) {
		*entry = 0;
		return;
	}
	struct shadow_page *p = &s->pages[shadow_page_of(at)];
	uint32_t child = shadow_is_leaf(*entry, p->role.level) ? SHADOW_NONE
							       : shadow_child(s, *entry);
	link_out(s, at);
	*entry = 0;
	p->used_count--;
	note_loss(s);
	if (child != SHADOW_NONE && is_worthless(s, child))
		shadow_zap(s, child);
}

/* Who may write what */

struct shadow_frame *shadow_frame_of(const struct shadow *s, uint64_t gfn)
{
	uint64_t index = memory_page_index(s->mmu->memory, gpa_from_gfn(gfn));
	return index == MEMORY_NO_PAGE ? NULL : &s->frames[index];
}

/* With the counts of this epoch. */
static struct shadow_frame *fresh_frame(const struct shadow *s, uint64_t gfn)
{
	struct shadow_frame *f = shadow_frame_of(s, gfn);
	if (f && f->table_epoch != s->epoch) {
		f->table_epoch = s->epoch;
		f->table_count = 0;
		f->idle_write_count = 0;
		f->unsync_slot = 0;
	}
	return f;
}

bool shadow_is_protected(const struct shadow *s, uint64_t gfn)
{
	const struct shadow_frame *f = shadow_frame_of(s, gfn);
	return f && f->table_epoch == s->epoch && f->table_count && !f->unsync_slot;
}

static struct shadow_region *region_of(const struct shadow *s, unsigned i, uint64_t host_address)
{
	struct shadow_region *r = &s->regions[i][host_address >> (i ? 30 : 21)];
	if (r->epoch != s->epoch) {
		r->epoch = s->epoch;
		r->protected_count = 0;
	}
	return r;
}

unsigned shadow_shift_at(const struct shadow *s, uint64_t gfn, unsigned shift_max)
{
	gpa_t a = gpa_from_gfn(gfn);
	if (shift_max == 22)
		shift_max = 21;
	if (shift_max > s->page_shift_max)
		shift_max = s->page_shift_max;
	unsigned shift = host_page_shift_at(s->mmu->memory, a, shift_max);
	if (!s->policy.is_watching || shift <= PAGE_SHIFT)
		return shift;
	uint64_t host_address = hpa_from_gpa(s->mmu->memory, a).v;
	if (shift == 30 && region_of(s, 1, host_address)->protected_count)
		shift = 21;
	if (shift == 21 && region_of(s, 0, host_address)->protected_count)
		shift = PAGE_SHIFT;
	return shift;
}

void shadow_protect(struct shadow *s, uint64_t gfn)
{
	gpa_t a = gpa_from_gfn(gfn);
	uint64_t host_address = hpa_from_gpa(s->mmu->memory, a).v;
	memory_hold_table(s->mmu->memory, a);
	for (unsigned i = 0; i < 2; i++) {
		struct shadow_region *r = region_of(s, i, host_address);
		r->protected_count++;
		for (uint32_t at; (at = *first_in(s, &r->mappings)) != SHADOW_NONE;)
			shadow_clear_entry(s, at);
	}
	uint32_t at = *mappings_at(s, host_address, 1);
	for (; at != SHADOW_NONE; at = s->links[at].next) {
		uint64_t *entry = shadow_entry(s, at);
		assert(!(*entry & SHADOW_SWITCH));
		s->is_flush_due |= (*entry & PTE_W) != 0;
		*entry &= ~PTE_W;
		shadow_note(s, at);
	}
	/* What two dimensions gave the TLBs is in no list. */
	s->is_flush_due |= s->policy.is_nested != NULL;
}

/* A region without tables can be mapped whole again: what splintered it goes. */
static void merge(struct shadow *s, uint64_t gfn, unsigned level)
{
	uint64_t first = align_down(gfn, BIT(9 * level));
	for (uint32_t page = shadow_first_of(s, first), next; page != SHADOW_NONE; page = next) {
		next = shadow_next_of(s, page);
		if (s->pages[page].role.is_direct && s->pages[page].role.level == level)
			shadow_zap(s, page);
	}
}

void shadow_unprotect(struct shadow *s, uint64_t gfn)
{
	gpa_t a = gpa_from_gfn(gfn);
	uint64_t host_address = hpa_from_gpa(s->mmu->memory, a).v;
	memory_release_table(s->mmu->memory, a);
	for (unsigned i = 0; i < 2; i++) {
		struct shadow_region *r = region_of(s, i, host_address);
		assert(r->protected_count);
		if (!--r->protected_count && s->page_shift_max >= (i ? 30u : 21u))
			merge(s, gfn, i + 1);
	}
}

/* Pages */

static struct shadow_head *bucket_of(const struct shadow *s, uint64_t gfn)
{
	uint64_t hash = gfn * 0x9e3779b97f4a7c15ull;
	return &s->buckets[s->bucket_bits ? hash >> (64 - s->bucket_bits) : 0];
}

static uint32_t next_with(const struct shadow *s, uint32_t page, uint64_t gfn)
{
	while (page != SHADOW_NONE && s->pages[page].gfn != gfn)
		page = s->pages[page].hash_next;
	return page;
}

uint32_t shadow_first_of(const struct shadow *s, uint64_t gfn)
{
	return next_with(s, *first_in(s, bucket_of(s, gfn)), gfn);
}

uint32_t shadow_next_of(const struct shadow *s, uint32_t page)
{
	return next_with(s, s->pages[page].hash_next, s->pages[page].gfn);
}

uint32_t shadow_find(const struct shadow *s, uint64_t gfn, union shadow_role role)
{
	uint32_t page = shadow_first_of(s, gfn);
	while (page != SHADOW_NONE && s->pages[page].role.bits != role.bits)
		page = shadow_next_of(s, page);
	return page;
}

static void hash_out(struct shadow *s, uint32_t page)
{
	uint32_t *at = first_in(s, bucket_of(s, s->pages[page].gfn));
	while (*at != page)
		at = &s->pages[*at].hash_next;
	*at = s->pages[page].hash_next;
}

/* The guest frame becomes a table, or has one more shadow. */
static void count_table(struct shadow *s, uint64_t gfn)
{
	struct shadow_frame *f = fresh_frame(s, gfn);
	if (!f)
		return;
	if (f->unsync_slot)
		shadow_sync(s, gfn);
	f->idle_write_count = 0;
	if (f->table_count++)
		return;
	shadow_protect(s, gfn);
	ledger_charge(s->mmu->ledger, EVENT_SHADOW_PROTECT);
}

uint32_t shadow_get(struct shadow *s, uint64_t gfn, union shadow_role role)
{
	bool is_watching = s->policy.is_watching;
	uint32_t page = is_watching ? shadow_find(s, gfn, role) : SHADOW_NONE;
	if (page != SHADOW_NONE) {
		const struct shadow_frame *f =
			shadow_is_table(&s->pages[page]) ? fresh_frame(s, gfn) : NULL;
		if (f && f->unsync_slot)
			shadow_sync(s, gfn);
		shadow_touch(s, page);
		return page;
	}
	page = table_pool_alloc(&s->pool, 1);
	if (page == TABLE_POOL_NONE)
		return SHADOW_NONE;
	struct shadow_page *p = &s->pages[page];
	*p = (struct shadow_page){.gfn = gfn, .role = role, .parents = SHADOW_NONE};
	age_in(s, page);
	s->live_count++;
	ledger_charge(s->mmu->ledger, EVENT_SHADOW_TABLE);
	if (!is_watching)
		return page;
	uint32_t *first = first_in(s, bucket_of(s, gfn));
	p->hash_next = *first;
	*first = page;
	if (!shadow_is_table(p))
		return page;
	count_table(s, gfn);
	if (s->policy.is_pf_filtered && role.level == 1)
		shadow_mark_absent(s, page);
	return page;
}

static void uncount_table(struct shadow *s, uint64_t gfn)
{
	struct shadow_frame *f = fresh_frame(s, gfn);
	if (!f || --f->table_count)
		return;
	if (f->unsync_slot)
		shadow_forget_unsync(s, gfn);
	else
		shadow_unprotect(s, gfn);
}

void shadow_zap(struct shadow *s, uint32_t page)
{
	struct shadow_page *p = &s->pages[page];
	bool was_due = s->is_flush_due;
	bool was_reached = p->parents != SHADOW_NONE || p->is_root || s->root == page;
	while (p->parents != SHADOW_NONE) {
		uint32_t at = p->parents;
		link_out(s, at);
		*shadow_entry(s, at) = 0;
		s->pages[shadow_page_of(at)].used_count--;
	}
	for (uint32_t at = page * SHADOW_ENTRIES; p->used_count; at++)
		shadow_clear_entry(s, at);
	if (p->is_root)
		shadow_forget_root(s, page);
	if (s->root == page)
		s->root = SHADOW_NONE;
	if (s->policy.is_watching)
		hash_out(s, page);
	age_out(s, page);
	table_pool_free(&s->pool, page);
	s->live_count--;
	/* What nothing led to, the TLBs lost when the last pointer went. */
	s->is_flush_due = was_due;
	if (was_reached)
		note_loss(s);
	if (s->policy.is_watching && shadow_is_table(p))
		uncount_table(s, p->gfn);
}

unsigned shadow_zap_table(struct shadow *s, uint64_t gfn)
{
	unsigned count = 0;
	for (uint32_t page = shadow_first_of(s, gfn), next; page != SHADOW_NONE; page = next) {
		next = shadow_next_of(s, page);
		if (!shadow_is_table(&s->pages[page]))
			continue;
		shadow_zap(s, page);
		count++;
		/* Zapping frees pages below, which may be of this frame too. */
		next = shadow_first_of(s, gfn);
	}
	return count;
}

uint64_t shadow_switch_entry(const struct shadow *s, uint64_t gfn, unsigned access)
{
	return hpa_from_gpa(s->mmu->memory, gpa_from_gfn(gfn)).v | SHADOW_SWITCH | PTE_P |
	       (access & WALK_W ? PTE_W : 0) | (access & WALK_U ? PTE_U : 0) |
	       (access & WALK_NX ? PTE_NX : 0);
}

void shadow_switch_table(struct shadow *s, uint64_t gfn)
{
	uint32_t page = shadow_first_of(s, gfn);
	while (page != SHADOW_NONE) {
		struct shadow_page *p = &s->pages[page];
		if (!shadow_is_table(p)) {
			page = shadow_next_of(s, page);
			continue;
		}
		while (p->parents != SHADOW_NONE) {
			uint32_t at = p->parents;
			link_out(s, at);
			s->pages[shadow_page_of(at)].used_count--;
			shadow_set_leaf(s, at, shadow_switch_entry(s, gfn, p->role.access));
		}
		shadow_zap(s, page);
		note_loss(s);
		page = shadow_first_of(s, gfn);
	}
}

void shadow_unswitch_table(struct shadow *s, uint64_t gfn)
{
	uint64_t host_address = hpa_from_gpa(s->mmu->memory, gpa_from_gfn(gfn)).v;
	for (uint32_t at = *mappings_at(s, host_address, 1), next; at != SHADOW_NONE; at = next) {
		next = s->links[at].next;
		if (!(*shadow_entry(s, at) & SHADOW_SWITCH))
			continue;
		shadow_clear_entry(s, at);
		if (s->unswitched_count < SHADOW_UNSWITCHED_MAX)
			s->unswitched[s->unswitched_count++] = at;
	}
}

uint32_t shadow_free_count(const struct shadow *s)
{
	uint64_t limit = hard_limit(SHADOW_PAGES_MIN, s->pool.page_count, s->full_count,
				    SHADOW_PAGES_PATIENCE);
	return (uint32_t)limit - s->live_count;
}

void shadow_reserve(struct shadow *s, uint32_t count)
{
	if (likely(shadow_free_count(s) >= count))
		return;
	s->full_count++;
	if (!s->policy.is_watching) {
		shadow_drop_all(s);
		s->is_flush_due = true;
		ledger_charge(s->mmu->ledger, EVENT_SHADOW_FLUSH);
		return;
	}
	for (uint32_t page = s->oldest, next; shadow_free_count(s) < count; page = next) {
		assert(page != SHADOW_NONE);
		next = s->pages[page].newer;
		if (page == s->root)
			continue;
		shadow_zap(s, page);
		ledger_charge(s->mmu->ledger, EVENT_SHADOW_EVICT);
		next = s->oldest; /* others may have gone with it */
	}
}

static void release_table(struct shadow *s, const struct shadow_page *p)
{
	struct shadow_frame *f = shadow_is_table(p) ? fresh_frame(s, p->gfn) : NULL;
	if (!f || !f->table_count)
		return;
	if (f->unsync_slot)
		shadow_forget_unsync(s, p->gfn);
	else
		memory_release_table(s->mmu->memory, gpa_from_gfn(p->gfn));
	f->table_count = 0;
}

bool shadow_drop_all(struct shadow *s)
{
	bool had_any = s->live_count != 0;
	if (s->policy.is_watching)
		for (uint32_t page = s->newest; page != SHADOW_NONE; page = s->pages[page].older)
			release_table(s, &s->pages[page]);
	table_pool_clear(&s->pool);
	s->epoch++;
	s->newest = s->oldest = s->root = SHADOW_NONE;
	s->live_count = s->root_count = 0;
	s->noted_count = 0;
	s->is_flush_due |= had_any;
	take_mode(s);
	return had_any;
}

/*
 * The code cache: host code, the translations that own it, their links, and their end.
 *
 * Memory is mapped twice, writable for us and executable for the processor, never both at one
 * address. Translations hang on the interpreter's blocks: a block that dies takes its translations
 * along (links to them are turned back, look-up tables forget them), their code stays where it is
 * until the cache is full and everything goes at once. That happens between blocks only, so nothing
 * that runs is ever taken away.
 *
 * Links: a direct jump is patched to lead straight to its target's code. A link stays in one
 * guest-virtual page, so the target's mapping is the one that its source was fetched through.
 */
#include <errno.h>
#include <string.h>

#include "base/hard.h"
#include "base/pages.h"
#include "engine/trans/trans_private.h"

int cache_init(struct trans *trans, struct error *e)
{
	trans->records = pages_map_large(TRANS_RECORD_BYTES);
	trans->sites = pages_map_large(TRANS_SITES_MAX * sizeof(struct site));
	trans->found = pages_map_large(sizeof(struct found) << FOUND_BITS);
	if (!trans->records || !trans->sites || !trans->found)
		return error_set(e, -ENOMEM, "no memory for the translator's records");
	void *writable, *running;
	if (!pages_map_twice(TRANS_CODE_BYTES, &writable, &running))
		return error_set(e, -errno, "cannot map memory for code: %s", strerror(errno));
	trans->writable = writable;
	trans->running = running;
	return 0;
}

void cache_fini(struct trans *trans)
{
	pages_unmap(trans->writable, TRANS_CODE_BYTES);
	pages_unmap(trans->running, TRANS_CODE_BYTES);
	pages_unmap(trans->records, TRANS_RECORD_BYTES);
	pages_unmap(trans->sites, TRANS_SITES_MAX * sizeof(struct site));
	pages_unmap(trans->found, sizeof(struct found) << FOUND_BITS);
}

#define RECORD_MAX                                                                              \
	(sizeof(struct translation) + PARTS_MAX * sizeof(struct part) +                         \
	 TRANS_LINKS_MAX(PARTS_MAX) * sizeof(struct link) + PLACES_MAX * sizeof(struct place) + \
	 64)

bool cache_has_room(const struct trans *trans)
{
	uint64_t limit = hard_limit(TRANS_CODE_TINY, TRANS_CODE_BYTES, trans->full_count,
				    TRANS_CODE_PATIENCE);
	return trans->code_used + TRANS_BLOCK_CODE_MAX <= limit &&
	       trans->records_used + RECORD_MAX <= TRANS_RECORD_BYTES &&
	       trans->site_count + 8 * BLOCK_INSNS_MAX <= TRANS_SITES_MAX;
}

/* So much of a large page is in use when it becomes one: small guests need none. */
#define GATHER_BYTES (LARGE_PAGE_BYTES / 4)

void cache_take_code(struct trans *trans, uint64_t size_bytes)
{
	trans->code_used = align_up(trans->code_used + size_bytes, 16);
	if (trans->code_used < trans->code_gathered + GATHER_BYTES ||
	    trans->code_gathered + LARGE_PAGE_BYTES > TRANS_CODE_BYTES)
		return;
	pages_gather(trans->running + trans->code_gathered, LARGE_PAGE_BYTES);
	trans->code_gathered += LARGE_PAGE_BYTES;
}

/* Runs `act` on every space of every vcpu. */
static void for_all_spaces(struct trans *trans, void (*act)(struct space *, uint64_t),
			   uint64_t argument)
{
	for (unsigned n = 0; n < trans->interp->vcpu_count; n++) {
		struct trans_vcpu *t = trans->vcpus[n];
		if (!t)
			continue;
		act(t->kernel, argument);
		act(t->kernel_ac, argument);
		for (unsigned k = 0; k < SPACE_USER_COUNT; k++)
			act(t->user[k], argument);
	}
}

static void forget_jumps(struct space *p, uint64_t unused)
{
	(void)unused;
	space_flush_jumps(p);
}

/* Everything: the blocks that translations hang on must not be asked again. */
void cache_flushed(void *opaque)
{
	struct trans *trans = opaque;
	for_all_spaces(trans, forget_jumps, 0);
	trans->code_used = trans->code_fixed;
	trans->records_used = 0;
	trans->site_count = 0;
	memset(trans->slots, 0, sizeof(trans->slots));
	memset(trans->found, 0, sizeof(struct found) << FOUND_BITS);
	trans->pending = NULL;
}

void cache_flush(struct trans *trans)
{
	block_flush(trans->interp); /* calls cache_flushed() */
}

static void *take_record(struct trans *trans, size_t size_bytes)
{
	void *p = trans->records + trans->records_used;
	trans->records_used += align_up(size_bytes, 16);
	return p;
}

struct translation *cache_add(struct trans *trans, const struct part *parts, unsigned part_count)
{
	struct translation *x = take_record(trans, sizeof(*x));
	*x = (struct translation){.part_count = (uint8_t)part_count};
	x->parts = take_record(trans, part_count * sizeof(*parts));
	memcpy(x->parts, parts, part_count * sizeof(*parts));
	x->links = take_record(trans, TRANS_LINKS_MAX(part_count) * sizeof(*x->links));
	x->places = take_record(trans, 0);
	return x;
}

struct slot *cache_take_slot(struct trans *trans, unsigned mode)
{
	struct slot *s = take_record(trans, sizeof(*s));
	*s = (struct slot){0};
	trans->slots[mode].count++;
	return s;
}

void cache_keep_places(struct trans *trans, const struct translation *x)
{
	take_record(trans, x->place_count * sizeof(*x->places));
}

uint32_t cache_add_site(struct trans *trans, struct site site)
{
	trans->sites[trans->site_count] = site;
	return trans->site_count++;
}

static struct found *found_at(const struct trans *trans, uint64_t gpa)
{
	return &trans->found[gpa * 0x9e3779b97f4a7c15ull >> (64 - FOUND_BITS)];
}

/* The guest-physical address, and in what its 52 bits leave the mode and the block's key. */
static uint64_t found_place(uint64_t gpa, unsigned mode, unsigned key)
{
	return gpa | (uint64_t)mode << 52 | (uint64_t)key << 56;
}

struct translation *cache_recall(const struct trans *trans, uint64_t gpa, uint64_t rip,
				 const struct interp_vcpu *c)
{
	const struct found *e = found_at(trans, gpa);
	return e->place == found_place(gpa, c->mode, c->key) && e->rip == rip ? e->x : NULL;
}

void cache_note(struct trans *trans, struct translation *x)
{
	uint64_t gpa = x->block->gpa;
	*found_at(trans, gpa) = (struct found){
		.place = found_place(gpa, x->mode, x->block->key), .rip = x->rip, .x = x};
}

void cache_lead(const struct trans *trans, const struct link *l, const uint8_t *target)
{
	uint32_t distance = (uint32_t)(target - (l->patch + 4));
	memcpy(trans->writable + (l->patch - trans->running), &distance, 4);
}

void cache_link(struct trans *trans, struct link *l, struct translation *to)
{
	if (l->to)
		return;
	l->to = to;
	l->next_in = to->incoming;
	to->incoming = l;
	cache_lead(trans, l, to->code);
}

static void unlink_incoming(struct trans *trans, struct translation *x)
{
	for (struct link *l = x->incoming; l; l = l->next_in) {
		cache_lead(trans, l, l->stub);
		l->to = NULL;
	}
	x->incoming = NULL;
}

static void unlink_outgoing(struct translation *x)
{
	for (unsigned k = 0; k < x->link_count; k++) {
		struct link *l = &x->links[k];
		if (!l->to)
			continue;
		struct link **at = &l->to->incoming;
		while (*at != l)
			at = &(*at)->next_in;
		*at = l->next_in;
		l->to = NULL;
	}
}

void cache_forget(struct trans *trans, struct translation *x)
{
	struct found *e = found_at(trans, x->block->gpa);
	if (e->x == x)
		*e = (struct found){0};
	unlink_incoming(trans, x);
	unlink_outgoing(x);
	for_all_spaces(trans, space_forget, x->rip);
	if (trans->pending && trans->pending->from == x)
		trans->pending = NULL;
}

void cache_dropped(void *opaque, struct block *b)
{
	for (struct translation *x = b->translation; x; x = x->variant) {
		cache_forget(opaque, x);
		rewritten_give_back(opaque, x);
	}
	b->translation = NULL;
}

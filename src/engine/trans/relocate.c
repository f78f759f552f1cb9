/*
 * The same guest code at another virtual address: a translation is not made anew, but copied.
 *
 * Blocks are found by guest-physical address, so a program that runs again at other addresses
 * (ASLR) finds its page cache's blocks, warm ones with translations. What such a translation has of
 * its addresses is little: constants that are addresses relative to RIP, where the space's tables
 * have those, and where the code itself lies relative to the thunks and to what C knows of it. All
 * those places are noted when a translation is made; the rest of its bytes is the same anywhere,
 * for what it goes on with lies in the same page.
 *
 * A block has few copies. When one more is asked for the oldest is moved instead, in place: most
 * likely nobody is left who runs it.
 *
 * A constant has the length that its value needs. Only those of 8 bytes can become any other; a
 * translation with a shorter one is bound to its address. Those are kernels and programs that were
 * linked for a fixed place, which always come back to it.
 */
#include "engine/trans/translate_private.h"

#include <assert.h>

#ifdef GNOMON_HARD
#define COPIES_MAX 2
#else
#define COPIES_MAX 4
#endif

/* ---- noting ---- */

void place_add(struct work *w, enum place_kind kind, const uint8_t *at)
{
	static_assert(TRANS_BLOCK_CODE_MAX <= UINT16_MAX, "places have offsets of 16 bits");
	struct translation *x = w->x;
	if (x->place_count == PLACES_MAX) {
		x->is_bound = true;
		return;
	}
	ptrdiff_t offset = at + w->e.to_running - x->code;
	x->places[x->place_count++] = (struct place){.offset = (uint16_t)offset, .kind = kind};
}

void emit_address(struct work *w, unsigned to, uint64_t address)
{
	const uint8_t *before = w->e.at;
	emit_constant(&w->e, to, address);
	if (w->e.at - before == EMIT_QUAD_BYTES)
		place_add(w, PLACE_ADDRESS, w->e.at - 8);
	else
		w->x->is_bound = true;
}

/* ---- using it ---- */

/* How far a translation goes: in the guest's space, on the host, in the numbers of its sites. */
struct way {
	uint64_t guest;
	ptrdiff_t code;
	uint32_t site;
};

static uint64_t add_to_quad(uint8_t *at, uint64_t by)
{
	uint64_t value;
	memcpy(&value, at, 8);
	value += by;
	memcpy(at, &value, 8);
	return value;
}

static void add_to_word(uint8_t *at, uint32_t by)
{
	uint32_t value;
	memcpy(&value, at, 4);
	value += by;
	memcpy(at, &value, 4);
}

/* The displacement of a slot in one of the TLB's arrays. */
static void move_slot(uint8_t *at, uint64_t by)
{
	const uint32_t slots = (SPACE_TLB_COUNT - 1) * 8;
	uint32_t old, new;
	static_assert(!offsetof(struct space, read), "each array is aligned to its size");
	memcpy(&old, at, 4);
	new = old + (uint32_t)(by >> PAGE_SHIFT) * 8;
	new = (old & ~slots) | (new &slots);
	memcpy(at, &new, 4);
}

static void patch_code(struct trans *trans, struct translation *x, const struct way *way)
{
	uint8_t *code = trans->writable + (x->code - trans->running), *at;
	uint64_t address = 0;
	for (unsigned k = 0; k < x->place_count; k++) {
		at = code + x->places[k].offset;
		switch ((enum place_kind)x->places[k].kind) {
		case PLACE_ADDRESS: address = add_to_quad(at, way->guest); break;
		case PLACE_TLB: move_slot(at, way->guest); break;
		case PLACE_JUMP:
			add_to_word(at, (uint32_t)sizeof(struct space_jump) *
						(space_jump_slot(address) -
						 space_jump_slot(address - way->guest)));
			break;
		case PLACE_THUNK: add_to_word(at, (uint32_t)-way->code); break;
		case PLACE_HELPER:
			add_to_word(at, way->site);
			add_to_word(at + SITE_TO_THUNK, (uint32_t)-way->code);
			break;
		}
	}
}

static void patch_record(struct trans *trans, struct translation *x, const struct way *way)
{
	x->rip += way->guest;
	for (unsigned k = 0; k < x->part_count; k++)
		x->parts[k].rip += way->guest;
	for (unsigned k = 0; k < x->link_count; k++) {
		struct link *l = &x->links[k];
		*l = (struct link){.rip = l->rip + way->guest,
				   .patch = l->patch + way->code,
				   .stub = l->stub + way->code,
				   .from = x};
		cache_lead(trans, l, l->stub);
	}
}

static const uint8_t *moved(const uint8_t *code, ptrdiff_t by)
{
	return code ? code + by : NULL;
}

static void copy_sites(struct trans *trans, struct translation *x, const struct way *way)
{
	for (unsigned k = 0; k < x->site_count; k++) {
		struct site s = trans->sites[x->first_site - way->site + k];
		s.from = x;
		s.resume = moved(s.resume, way->code);
		s.next = moved(s.next, way->code);
		cache_add_site(trans, s);
	}
}

static struct translation *copy(struct trans *trans, const struct translation *from, uint64_t rip)
{
	struct translation *x = cache_add(trans, from->parts, from->part_count);
	const struct way way = {.guest = rip - from->rip,
				.code = trans->running + trans->code_used - from->code,
				.site = trans->site_count - from->first_site};
	struct part *parts = x->parts;
	struct link *links = x->links;
	*x = *from;
	x->parts = parts;
	x->links = links;
	x->incoming = NULL;
	x->code = from->code + way.code;
	x->first_site = trans->site_count;
	memcpy(links, from->links, from->link_count * sizeof(*links));
	memcpy(trans->writable + trans->code_used, trans->writable + (from->code - trans->running),
	       from->code_bytes);
	cache_take_code(trans, from->code_bytes);
	copy_sites(trans, x, &way);
	patch_code(trans, x, &way);
	patch_record(trans, x, &way);
	return x;
}

static void move(struct trans *trans, struct translation *x, uint64_t rip)
{
	const struct way way = {.guest = rip - x->rip};
	cache_forget(trans, x);
	patch_code(trans, x, &way);
	patch_record(trans, x, &way);
}

static void take_out(struct block *b, struct translation *x)
{
	struct translation *y = b->translation;
	if (y == x)
		b->translation = x->variant;
	while (y && y->variant != x)
		y = y->variant;
	if (y)
		y->variant = x->variant;
}

static struct translation *relocate(struct trans *trans, struct block *b,
				    struct translation *oldest, unsigned count, uint64_t rip)
{
	struct translation *x = oldest;
	if (count < COPIES_MAX) {
		if (!cache_has_room(trans))
			return NULL;
		x = copy(trans, oldest, rip);
	} else {
		move(trans, x, rip);
		take_out(b, x);
	}
	x->variant = b->translation;
	b->translation = x;
	perf_map_add(trans, x);
	return x;
}

struct translation *relocate_find(struct trans *trans, struct block *b, uint64_t rip, unsigned mode)
{
	struct translation *oldest = NULL;
	unsigned count = 0;
	for (struct translation *x = b->translation; x; x = x->variant) {
		if (x->mode != mode)
			continue;
		if (x->rip == rip)
			return x;
		if (x->is_bound)
			continue;
		oldest = x;
		count++;
	}
	return oldest ? relocate(trans, b, oldest, count, rip) : NULL;
}

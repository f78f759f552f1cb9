/*
 * Checks translations against relocated ones. Both are made at the same place of the code cache, so
 * that not only their code is the same but also all that C knows of it. The blocks' own
 * translations are out of the way meanwhile, and what is made here is given back.
 */
#include "relocation.h"

#include <stdlib.h>
#include <string.h>

#include "engine/trans/trans_private.h"

/* Pages far away from each other, in slots of their own of every table. */
#define PAGE_OF(n) (0x00007a5b3c4d2000ull - (n)*0x0000001234567000ull)
#define CODE_MAX (2 * TRANS_BLOCK_CODE_MAX)
#define MOVES_MAX 32

struct mark {
	size_t code, records;
	uint32_t sites;
};

struct image {
	uint8_t code[CODE_MAX];
	struct site sites[8 * BLOCK_INSNS_MAX];
	struct part parts[PARTS_MAX];
	struct link links[PARTS_MAX + 1];
	struct translation x;
};

struct check {
	struct trans *trans;
	struct trans_vcpu *t;
	struct block *block;
	struct image one, other;
};

static struct mark marked(const struct trans *trans)
{
	return (struct mark){trans->code_used, trans->records_used, trans->site_count};
}

static void rewind_to(struct trans *trans, struct mark m)
{
	trans->code_used = m.code;
	trans->records_used = m.records;
	trans->site_count = m.sites;
}

static uint64_t address(const struct check *c, unsigned n)
{
	return PAGE_OF(n) | (c->block->gpa & PAGE_OFFSET_MASK);
}

static struct translation *make(struct check *c, unsigned n)
{
	c->t->c->s->rip = address(c, n);
	return translate(c->t, c->block);
}

static struct translation *place(struct check *c, unsigned n)
{
	return relocate_find(c->trans, c->block, address(c, n), c->t->c->mode);
}

static void take(struct image *i, const struct check *c, const struct translation *x)
{
	memcpy(i->code, x->code, x->code_bytes);
	memcpy(i->sites, &c->trans->sites[x->first_site], x->site_count * sizeof(*i->sites));
	memcpy(i->parts, x->parts, x->part_count * sizeof(*i->parts));
	memcpy(i->links, x->links, x->link_count * sizeof(*i->links));
	i->x = *x;
}

static bool is_same_site(const struct site *a, const struct site *b)
{
	return a->from == b->from && a->resume == b->resume && a->next == b->next &&
	       a->part == b->part && a->index == b->index && a->is_write == b->is_write &&
	       a->is_aligned == b->is_aligned && a->size_bytes == b->size_bytes &&
	       a->undo_sp == b->undo_sp;
}

static bool is_same_part(const struct part *a, const struct part *b)
{
	return a->block == b->block && a->rip == b->rip && a->first == b->first &&
	       a->rest == b->rest;
}

static bool is_same_link(const struct link *a, const struct link *b)
{
	return a->rip == b->rip && a->patch == b->patch && a->stub == b->stub &&
	       a->from == b->from && !a->to && !b->to;
}

/* But for which translations there are besides. */
static bool is_same_head(const struct translation *a, const struct translation *b)
{
	return a->block == b->block && a->code == b->code && a->rip == b->rip &&
	       a->code_bytes == b->code_bytes && a->mode == b->mode && a->count == b->count &&
	       a->part_count == b->part_count && a->link_count == b->link_count &&
	       a->first_site == b->first_site && a->site_count == b->site_count && !a->is_bound &&
	       !b->is_bound && !a->incoming && !b->incoming;
}

static bool is_same(const struct image *a, const struct image *b)
{
	bool same = is_same_head(&a->x, &b->x) && !memcmp(a->code, b->code, a->x.code_bytes);
	for (unsigned k = 0; same && k < a->x.site_count; k++)
		same = is_same_site(&a->sites[k], &b->sites[k]);
	for (unsigned k = 0; same && k < a->x.part_count; k++)
		same = is_same_part(&a->parts[k], &b->parts[k]);
	for (unsigned k = 0; same && k < a->x.link_count; k++)
		same = is_same_link(&a->links[k], &b->links[k]);
	return same;
}

/* Copies: until the block has so many that the first one is moved. Returns how many. */
static unsigned fill(struct check *c, const struct translation *first)
{
	for (unsigned n = 1; n < MOVES_MAX; n++) {
		const struct translation *y = place(c, n);
		if (!y || y == first)
			return y ? n : 0;
	}
	return 0;
}

static const char *moved_and_back(struct check *c, const struct translation *first)
{
	take(&c->one, c, first);
	unsigned copies = fill(c, first);
	if (!copies)
		return cache_has_room(c->trans) ? "is never moved" : NULL;
	for (unsigned n = 1; n < copies; n++)
		if (place(c, copies + n) == first)
			return "is moved out of turn";
	if (place(c, 0) != first)
		return "is not moved back";
	take(&c->other, c, first);
	return is_same(&c->one, &c->other) ? NULL : "is not what it was when it has moved back";
}

static const char *compare_one(struct check *c)
{
	struct trans *trans = c->trans;
	c->block->translation = NULL;
	struct translation *first = make(c, 0);
	if (!first || first->is_bound)
		return NULL;
	struct mark behind = marked(trans);
	struct translation *x = place(c, 1);
	if (!x)
		return cache_has_room(trans) ? "is not copied" : NULL;
	take(&c->one, c, x);
	rewind_to(trans, behind);
	c->block->translation = first;
	x = make(c, 1);
	take(&c->other, c, x);
	if (!is_same(&c->one, &c->other))
		return "is another when it is made there";
	rewind_to(trans, behind);
	c->block->translation = first;
	return moved_and_back(c, first);
}

static const char *check_block(struct check *c)
{
	struct interp_vcpu *v = c->t->c;
	struct translation *own = c->block->translation;
	uint64_t rip = v->s->rip;
	uint8_t mode = v->mode;
	struct mark begin = marked(c->trans);
	v->mode = own->mode;
	const char *what = compare_one(c);
	v->mode = mode;
	v->s->rip = rip;
	rewind_to(c->trans, begin);
	c->block->translation = own;
	return what;
}

/* A checked block may be one of bytes that are there no more: it would be dropped, not translated.
 */
static bool is_stale(const struct interp *vm, struct block *b)
{
	return b->gfn2 == BLOCK_CHECKED &&
	       memcmp(block_bytes(vm->config.memory, b), block_copy(b), b->bytes) != 0;
}

const char *relocation_difference(struct interp *vm)
{
	const char *what = NULL;
	struct check *c = calloc(1, sizeof(*c));
	if (!c)
		return "cannot be checked without memory";
	c->trans = (struct trans *)(uintptr_t)vm->translator;
	c->t = c->trans->vcpus[0];
	for (size_t h = 0; h < 1u << CODE_PAGE_HASH_BITS; h++)
		for (struct code_page *p = vm->cache.pages[h]; p; p = p->link)
			for (c->block = p->blocks; c->block; c->block = c->block->page_link)
				if (!what && c->block->translation && !is_stale(vm, c->block) &&
				    cache_has_room(c->trans))
					what = check_block(c);
	free(c);
	return what;
}

/*
 * The modelled data caches. See data_cache.h.
 *
 * A set is its tags in order of use, the most recent first: that is all the state there is, 4 bytes
 * a line, so that 16 ways are one line of the host's cache. A hit moves a tag to the front, a fill
 * pushes the last one out; the commonest access, to the most recent line of its set, changes
 * nothing. Tags are compared four at a time (SSE2, which every x86-64 has).
 *
 * A tag is the line number divided by the number of sets, plus one: 0 is an empty way. 32 bits hold
 * the tags of 256 GiB for each set there is; addresses beyond are a fault of ours.
 */
#include "paging/data_cache.h"

#include <assert.h>
#include <emmintrin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/types.h"

#define TAGS_AT_ONCE 4u
#define WAYS_MAX 64u
#define SETS_MAX (1ull << 24) /* the division below is exact up to here, for lines below 2^40 */
#define LINE_MAX (1ull << 40)

struct level {
	uint32_t *tags; /* set_count times `stride`, each set by recency */
	unsigned ways, stride;
	unsigned set_count;
	uint64_t reciprocal; /* 2^64 / set_count, rounded up; 0: one set */
	size_t bytes;
};

struct data_cache {
	struct level level[CACHE_ARRAY_COUNT];
	unsigned level_count;		       /* present ones, packed */
	uint8_t number[CACHE_ARRAY_COUNT + 1]; /* by packed index: which level it is */
};

static int init_level(struct level *l, const struct cache_array *a, struct error *e)
{
	uint64_t lines = a->size_bytes >> CACHE_LINE_SHIFT;
	if (!a->ways || a->ways > WAYS_MAX || a->size_bytes % (1u << CACHE_LINE_SHIFT) ||
	    lines % a->ways || lines / a->ways > SETS_MAX)
		return error_set(e, -EINVAL,
				 "a data cache of %llu bytes in %u ways is not a shape a cache has",
				 (unsigned long long)a->size_bytes, a->ways);
	l->set_count = (unsigned)(lines / a->ways);
	l->ways = a->ways;
#ifdef GNOMON_HARD
	l->set_count = 1;
	l->ways = a->ways < 2 ? a->ways : 2;
#endif
	l->stride = (unsigned)align_up(l->ways, TAGS_AT_ONCE);
	l->reciprocal = l->set_count > 1 ? UINT64_MAX / l->set_count + 1 : 0;
	l->bytes = (size_t)l->set_count * l->stride * sizeof(*l->tags);
	l->tags = aligned_alloc(64, align_up(l->bytes, 64));
	if (!l->tags)
		return error_set(e, -ENOMEM, "no host memory for a data cache");
	memset(l->tags, 0, l->bytes);
	return 0;
}

int data_cache_create(struct data_cache **out, const struct cache_geometry *g, struct error *e)
{
	struct data_cache *c = calloc(1, sizeof(*c));
	int r = c ? 0 : error_set(e, -ENOMEM, "no host memory for a data cache");
	for (unsigned i = 0; !r && i < CACHE_ARRAY_COUNT; i++) {
		if (!g->level[i].size_bytes)
			continue;
		c->number[c->level_count] = (uint8_t)i;
		r = init_level(&c->level[c->level_count++], &g->level[i], e);
	}
	if (r) {
		data_cache_destroy(c);
		c = NULL;
	} else {
		c->number[c->level_count] = CACHE_ARRAY_COUNT;
	}
	*out = c;
	return r;
}

void data_cache_destroy(struct data_cache *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < c->level_count; i++)
		free(c->level[i].tags);
	free(c);
}

void data_cache_flush(struct data_cache *c)
{
	for (unsigned i = 0; i < c->level_count; i++)
		memset(c->level[i].tags, 0, c->level[i].bytes);
}

struct place {
	uint32_t *set;
	uint32_t tag;
};

static inline struct place find_set(const struct level *l, uint64_t line)
{
	uint64_t tag = l->reciprocal ? (uint64_t)((unsigned __int128)line * l->reciprocal >> 64)
				     : line;
	uint64_t set = line - tag * l->set_count;
	assert(line < LINE_MAX && tag < UINT32_MAX);
	return (struct place){l->tags + set * l->stride, (uint32_t)tag + 1};
}

static inline __m128i load_tags(const uint32_t *from)
{
	return _mm_load_si128((const __m128i *)(const void *)from);
}

/* Where `tag` is in the set's order; the last way if it is not there. */
static inline unsigned find_tag(const struct level *l, const uint32_t *set, uint32_t tag,
				bool *is_hit)
{
	__m128i wanted = _mm_set1_epi32((int)tag);
	uint64_t found = 0;
	for (unsigned i = 0; i < l->stride; i += TAGS_AT_ONCE) {
		__m128i same = _mm_cmpeq_epi32(load_tags(set + i), wanted);
		found |= (uint64_t)_mm_movemask_ps(_mm_castsi128_ps(same)) << i;
	}
	*is_hit = found != 0;
	return (unsigned)__builtin_ctzll(found | BIT(l->ways - 1));
}

/* Puts `tag` first; what came before place `at` moves back by one. Where a line is in the order of
 * its set nobody can predict, so there is no branch on it. */
static inline void put_first(const struct level *l, uint32_t *set, unsigned at, uint32_t tag)
{
	__m128i last = _mm_set1_epi32((int)at), place = _mm_setr_epi32(0, 1, 2, 3);
	__m128i before = _mm_set1_epi32((int)tag);
	for (unsigned i = 0; i < l->stride; i += TAGS_AT_ONCE) {
		__m128i old = load_tags(set + i);
		__m128i moved = _mm_or_si128(_mm_slli_si128(old, 4), _mm_srli_si128(before, 12));
		__m128i stays = _mm_cmpgt_epi32(place, last);
		__m128i new =
			_mm_or_si128(_mm_and_si128(stays, old), _mm_andnot_si128(stays, moved));
		_mm_store_si128((__m128i *)(void *)(set + i), new);
		before = old;
		place = _mm_add_epi32(place, _mm_set1_epi32(TAGS_AT_ONCE));
	}
}

/* True: the level had the line. Either way it has it now. */
static inline bool touch(const struct level *l, struct place p)
{
	bool is_hit;
	put_first(l, p.set, find_tag(l, p.set, p.tag, &is_hit), p.tag);
	return is_hit;
}

static unsigned access_behind_first(struct data_cache *c, uint64_t line)
{
	struct place place[CACHE_ARRAY_COUNT];
	for (unsigned i = 1; i < c->level_count; i++) {
		place[i] = find_set(&c->level[i], line);
		__builtin_prefetch(place[i].set);
	}
	for (unsigned i = 1; i < c->level_count; i++)
		if (touch(&c->level[i], place[i]))
			return c->number[i];
	return CACHE_ARRAY_COUNT;
}

unsigned data_cache_access(struct data_cache *c, uint64_t hpa)
{
	uint64_t line = hpa >> CACHE_LINE_SHIFT;
	if (unlikely(!c->level_count))
		return CACHE_ARRAY_COUNT;
	struct place p = find_set(&c->level[0], line);
	if (likely(p.set[0] == p.tag) || touch(&c->level[0], p))
		return c->number[0];
	return access_behind_first(c, line);
}

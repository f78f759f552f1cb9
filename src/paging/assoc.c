/* Making and emptying associative arrays. See assoc.h. */
#include "paging/assoc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/types.h"

#define WAY_BITS_MIN 2 /* keys are compared four at a time */

static uint8_t bits_for(unsigned count)
{
	uint8_t n = 0;
	while (1u << n < count)
		n++;
	return n;
}

int assoc_init(struct assoc *a, unsigned entries, unsigned ways, struct error *e)
{
	*a = (struct assoc){0};
	ways = ways ? ways : entries;
	if (!entries || entries > ASSOC_ENTRIES_MAX || entries % ways ||
	    !is_power_of_two(entries / ways))
		return -EINVAL;
#ifdef GNOMON_HARD
	entries = ways = entries < 2 ? entries : 2;
#endif
	a->set_mask = entries / ways - 1;
	a->ways = (uint16_t)ways;
	a->way_bits = bits_for(ways);
	if (a->way_bits < WAY_BITS_MIN)
		a->way_bits = WAY_BITS_MIN;
	size_t slots = assoc_slots(a);
	a->keys = aligned_alloc(64, align_up(slots * sizeof(*a->keys), 64));
	a->stamps = aligned_alloc(64, align_up(slots * sizeof(*a->stamps), 64));
	if (ways > ASSOC_KEY_WAYS_MAX)
		a->marks = aligned_alloc(64, align_up(slots * sizeof(*a->marks), 64));
	if (!a->keys || !a->stamps || (ways > ASSOC_KEY_WAYS_MAX && !a->marks)) {
		assoc_fini(a);
		return error_set(e, -ENOMEM, "no host memory for a cache of %u entries", entries);
	}
	assoc_clear(a);
	return 0;
}

void assoc_fini(struct assoc *a)
{
	free(a->keys);
	free(a->stamps);
	free(a->marks);
	*a = (struct assoc){0};
}

void assoc_clear(struct assoc *a)
{
	size_t slots = assoc_slots(a);
	memset(a->keys, 0, slots * sizeof(*a->keys));
	memset(a->stamps, 0, slots * sizeof(*a->stamps));
	if (a->marks)
		memset(a->marks, 0, slots * sizeof(*a->marks));
}

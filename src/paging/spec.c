/*
 * Strategies as text: NAME[:KEY=VALUE]..., what --paging and --strategy take and what reports
 * print. The keys are one table; a key is refused for a strategy that has no use for it.
 */
#include "paging/mmu_private.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "paging/catalogue.h"

enum value_kind {
	VALUE_CHOICE,	/* an enum: the index in `words` */
	VALUE_BOOL,	/* the same for a bool */
	VALUE_SHIFT,	/* unsigned: `words` are sizes, the value is the shift */
	VALUE_COUNT,	/* unsigned in min..max; `words[0]`, if there is one, means `max` */
	VALUE_SIZE,	/* uint64_t, bytes */
	VALUE_NUMBER,	/* uint64_t */
	VALUE_STRATEGY, /* const char *: a name from the catalogue */
};

struct key {
	const char *name;
	enum value_kind kind;
	size_t offset;
	uint64_t min, max;
	const char *words[5];
	const char *families; /* the strategies that know it, each between spaces; NULL: all */
};

#define NESTED_LIKE " nested agile adaptive "
#define WATCHING " shadow-sync shadow-prefetch shadow-cache adaptive "
#define CACHE_LIKE " shadow-cache agile adaptive "
#define AT(member) offsetof(struct mmu_config, member)

static const struct key keys[] = {
	{"tlb-tag", VALUE_CHOICE, AT(tlb_tagged), 0, 0, {"profile", "on", "off"}, NULL},
	{"host-page", VALUE_SHIFT, AT(host_page_shift), 0, 0, {"4K", "2M", "1G"}, NULL},
	{"tables",
	 VALUE_CHOICE,
	 AT(table_placement),
	 0,
	 0,
	 {"as-is", "confined", "scattered"},
	 NESTED_LIKE},
	{"host-levels", VALUE_COUNT, AT(host_levels), 1, 5, {NULL}, NESTED_LIKE},
	{"walk-cache", VALUE_CHOICE, AT(walk_cache), 0, 0, {"profile", "none", "1d", "2d"}, NULL},
	{"nested-tlb", VALUE_COUNT, AT(nested_tlb_entries), 0, 4096, {NULL}, NESTED_LIKE},
	{"pf-filter", VALUE_BOOL, AT(is_pf_filtered), 0, 0, {"off", "on"}, WATCHING},
	{"cr3-exits", VALUE_BOOL, AT(is_cr3_exitless), 0, 0, {"on", "off"}, CACHE_LIKE},
	{"sync", VALUE_BOOL, AT(is_oos), 0, 0, {"strict", "oos"}, CACHE_LIKE},
	{"prefetch",
	 VALUE_COUNT,
	 AT(prefetch_count),
	 1,
	 MMU_PREFETCH_TABLE,
	 {"table"},
	 " shadow-prefetch shadow-cache adaptive "},
	{"roots", VALUE_COUNT, AT(root_count), 1, 65536, {NULL}, CACHE_LIKE},
	{"limit",
	 VALUE_SIZE,
	 AT(shadow_limit_bytes),
	 64 << 10,
	 1ull << 40,
	 {NULL},
	 " shadow shadow-sync shadow-prefetch shadow-cache agile adaptive "},
	{"shadow", VALUE_STRATEGY, AT(adaptive_shadow), 0, 0, {NULL}, " adaptive "},
	{"rule", VALUE_BOOL, AT(is_adaptive_by_rates), 0, 0, {"cost", "paper"}, " adaptive "},
	{"interval",
	 VALUE_NUMBER,
	 AT(adaptive_interval),
	 1000,
	 1ull << 40,
	 {NULL},
	 " adaptive agile "},
};

static bool is_known_to(const struct key *k, const char *strategy)
{
	char padded[40];
	snprintf(padded, sizeof(padded), " %s ", strategy);
	return !k->families || strstr(k->families, padded);
}

/* "host-page, prefetch, ...": what `strategy` takes. */
static void list_keys(const char *strategy, char *text, size_t size)
{
	size_t used = 0;
	text[0] = 0;
	for (size_t i = 0; i < ARRAY_COUNT(keys) && used < size; i++)
		if (is_known_to(&keys[i], strategy))
			used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "",
						 keys[i].name);
}

static int refuse_value(const struct key *k, const char *value, struct error *e)
{
	char words[80] = "";
	size_t used = 0;
	for (unsigned i = 0; i < ARRAY_COUNT(k->words) && k->words[i]; i++)
		used += (size_t)snprintf(words + used, sizeof(words) - used, "%s%s",
					 used ? ", " : "", k->words[i]);
	if (k->kind == VALUE_COUNT || k->kind == VALUE_NUMBER)
		return error_set(e, -EINVAL, "%s=%s: %s%sa number from %llu to %llu is right",
				 k->name, value, words, used ? " or " : "",
				 (unsigned long long)k->min, (unsigned long long)k->max);
	if (k->kind == VALUE_SIZE)
		return error_set(e, -EINVAL, "%s=%s: a size such as 512K or 32M is right", k->name,
				 value);
	return error_set(e, -EINVAL, "%s=%s: one of %s is right", k->name, value,
			 k->kind == VALUE_STRATEGY ? "the shadow strategies" : words);
}

static int find_word(const struct key *k, const char *value)
{
	for (unsigned i = 0; i < ARRAY_COUNT(k->words) && k->words[i]; i++)
		if (!strcasecmp(k->words[i], value))
			return (int)i;
	return -1;
}

/* A number with K, M or G behind it where `is_size`. */
static bool parse_number(const char *text, bool is_size, uint64_t *out)
{
	char *end;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	if (errno || end == text || *text == '-')
		return false;
	unsigned shift = 0;
	if (is_size && *end) {
		const char *units = "KMG", *unit = strchr(units, *end & ~0x20);
		if (!unit || !*unit)
			return false;
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
	}
	*out = v << shift;
	return !*end && *out >> shift == v;
}

static int set_value(const struct key *k, const char *value, struct mmu_config *out,
		     struct error *e)
{
	static const unsigned shifts[] = {12, 21, 30};
	void *at = (char *)out + k->offset;
	uint64_t number = k->min;
	int word = find_word(k, value);
	if (k->kind == VALUE_COUNT && word == 0)
		number = k->max;
	if (k->kind == VALUE_STRATEGY) {
		const struct strategy_entry *s = strategy_find(value, strlen(value));
		if (!s || strncmp(s->name, "shadow", 6) != 0)
			return refuse_value(k, value, e);
		*(const char **)at = s->name;
		return 0;
	}
	if (k->kind == VALUE_CHOICE || k->kind == VALUE_BOOL || k->kind == VALUE_SHIFT) {
		if (word < 0)
			return refuse_value(k, value, e);
		if (k->kind == VALUE_BOOL)
			*(bool *)at = word;
		else
			*(unsigned *)at = k->kind == VALUE_SHIFT ? shifts[word] : (unsigned)word;
		return 0;
	}
	if (word < 0 && (!parse_number(value, k->kind == VALUE_SIZE, &number) || number < k->min ||
			 number > k->max))
		return refuse_value(k, value, e);
	if (k->kind == VALUE_COUNT)
		*(unsigned *)at = (unsigned)number;
	else
		*(uint64_t *)at = number;
	if (k->offset == AT(nested_tlb_entries))
		out->has_nested_tlb_entries = true;
	return 0;
}

static int parse_setting(const char *text, size_t length, struct mmu_config *out, struct error *e)
{
	char setting[64], legal[200];
	if (length >= sizeof(setting))
		return error_set(e, -EINVAL, "\"%.*s\" is too long for a setting", (int)length,
				 text);
	memcpy(setting, text, length);
	setting[length] = 0;
	char *value = strchr(setting, '=');
	if (value)
		*value++ = 0;
	for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
		if (!strcmp(keys[i].name, setting) && is_known_to(&keys[i], out->strategy))
			return value ? set_value(&keys[i], value, out, e)
				     : error_set(e, -EINVAL, "%s needs a value: %s=...", setting,
						 setting);
	list_keys(out->strategy, legal, sizeof(legal));
	return error_set(e, -EINVAL, "paging strategy \"%s\" has no setting \"%s\"; it has: %s",
			 out->strategy, setting, legal);
}

int mmu_parse_strategy(const char *text, struct mmu_config *out, struct error *e)
{
	size_t length = strcspn(text, ":");
	const struct strategy_entry *entry = strategy_find(text, length);
	if (!entry)
		return strategy_refuse(text, length, e);
	out->strategy = entry->name;
	for (text += length; *text == ':'; text += length) {
		length = strcspn(++text, ":");
		int r = parse_setting(text, length, out, e);
		if (r)
			return r;
	}
	return 0;
}

static bool format_value(const struct key *k, const struct mmu_config *c, char *text, size_t size)
{
	const void *at = (const char *)c + k->offset;
	unsigned word = 0;
	uint64_t number = 0;
	switch (k->kind) {
	case VALUE_STRATEGY:
		return *(const char *const *)at &&
		       snprintf(text, size, "%s", *(const char *const *)at);
	case VALUE_BOOL: word = *(const bool *)at; break;
	case VALUE_SHIFT:
		word = *(const unsigned *)at ? (*(const unsigned *)at - 12) / 9 : 0;
		break;
	case VALUE_CHOICE: word = *(const unsigned *)at; break;
	case VALUE_COUNT: number = *(const unsigned *)at; break;
	default: number = *(const uint64_t *)at; break;
	}
	if (k->offset == AT(nested_tlb_entries)) {
		snprintf(text, size, "%llu", (unsigned long long)number);
		return c->has_nested_tlb_entries;
	}
	if (word || (k->kind == VALUE_COUNT && k->words[0] && number == k->max))
		return snprintf(text, size, "%s", k->words[word]);
	return number && snprintf(text, size, "%llu", (unsigned long long)number);
}

const char *mmu_format_strategy(const struct mmu_config *c, char text[MMU_STRATEGY_TEXT_MAX])
{
	size_t used = (size_t)snprintf(text, MMU_STRATEGY_TEXT_MAX, "%s", c->strategy);
	for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
		char value[40];
		if (is_known_to(&keys[i], c->strategy) &&
		    format_value(&keys[i], c, value, sizeof(value)) && used < MMU_STRATEGY_TEXT_MAX)
			used += (size_t)snprintf(text + used, MMU_STRATEGY_TEXT_MAX - used,
						 ":%s=%s", keys[i].name, value);
	}
	return text;
}

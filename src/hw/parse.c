/*
 * From the bytes of a profile file to a struct profile: which members there are, which units and
 * ranges they have, and what must not be missing. docs/profiles.md describes the same format for
 * people. Called by profile_load() and, for bytes from anywhere, by tests and the fuzzer; nothing
 * in the bytes may do more than be refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hw/reader.h"

#define SCHEMA_NAME "gnomon-profile"
#define SCHEMA_VERSION 1

static const struct number_rule rule_hz = {"hz", 1000000, 100000000000, false};
static const struct number_rule rule_entries = {"entries", 0, 65536, false};
static const struct number_rule rule_cycles = {"cycles", 0, PRICE_MAX_CYCLES, true};

static int read_header(struct reader *r, const json_t *root)
{
	static const char *const keys[] = {"schema",	  "version",   "name",		 "extends",
					   "description", "frequency", "virtualization", "tlb",
					   "caches",	  "prices"};
	const json_t *version = json_object_get(root, "version");
	const char *schema;
	struct number hz;
	int rc = reader_check_keys(r, root, keys, ARRAY_COUNT(keys));

	if (!rc)
		rc = reader_string(r, root, "schema", 64, &schema);
	if (rc)
		return rc;
	if (strcmp(schema, SCHEMA_NAME))
		return reader_refuse(r, "\"schema\" must be \"%s\"", SCHEMA_NAME);
	if (!json_is_integer(version) || json_integer_value(version) != SCHEMA_VERSION)
		return reader_refuse(r, "\"version\" must be %d", SCHEMA_VERSION);
	rc = reader_string(r, root, "name", 48, &r->profile->name);
	if (!rc && strpbrk(r->profile->name, "/ "))
		rc = reader_refuse(r, "\"name\" must have no '/' and no space");
	if (!rc)
		rc = reader_string(r, root, "description", 160, &r->profile->description);
	if (!rc)
		rc = reader_number(r, root, "frequency", &rule_hz, &hz);
	if (!rc)
		r->profile->frequency_hz = hz.millis / 1000;
	return rc;
}

static const struct size_name {
	const char *name;
	uint8_t bit;
} size_names[] = {{"4K", TLB_4K}, {"2M", TLB_2M}, {"4M", TLB_4M}, {"1G", TLB_1G}};

static int read_sizes(struct reader *r, const json_t *object, uint8_t *out)
{
	const json_t *sizes = json_object_get(object, "sizes");

	*out = 0;
	for (size_t i = 0; i < json_array_size(sizes); i++) {
		const char *text = json_string_value(json_array_get(sizes, i));
		size_t k = 0;

		while (k < ARRAY_COUNT(size_names) && text && strcmp(text, size_names[k].name))
			k++;
		if (!text || k == ARRAY_COUNT(size_names) || (*out & size_names[k].bit))
			return reader_refuse(
				r,
				"\"sizes\" are \"4K\", \"2M\", \"4M\", \"1G\", each at most once");
		*out |= size_names[k].bit;
	}
	if (!*out)
		return reader_refuse(r, "\"sizes\" must be a list of page sizes, such as [\"4K\"]");
	return 0;
}

static int read_unsigned(struct reader *r, const json_t *object, const char *key, unsigned min,
			 unsigned max, unsigned *out)
{
	const json_t *value = json_object_get(object, key);
	json_int_t v = json_integer_value(value);

	if (!json_is_integer(value) || v < min || v > max)
		return reader_refuse(r, "\"%s\" must be an integer from %u to %u", key, min, max);
	*out = (unsigned)v;
	return 0;
}

/* Prints the array as people read it: "512 entries, 4-way, 4K 2M". */
static void array_text(const struct tlb_array *a, char *text, size_t size)
{
	int n = snprintf(text, size, "%u entries, ", a->entries);

	n += a->ways ? snprintf(text + n, size - (size_t)n, "%u-way,", a->ways)
		     : snprintf(text + n, size - (size_t)n, "fully associative,");
	for (size_t k = 0; k < ARRAY_COUNT(size_names); k++)
		if (a->sizes & size_names[k].bit)
			n += snprintf(text + n, size - (size_t)n, " %s", size_names[k].name);
}

static int read_array(struct reader *r, const json_t *object, struct tlb_array *a)
{
	static const char *const keys[] = {"name", "entries", "ways", "sizes", "class", "source"};
	const char *name, *source;
	enum mark basis;
	char text[80];
	int rc = reader_check_keys(r, object, keys, ARRAY_COUNT(keys));

	if (!rc)
		rc = reader_string(r, object, "name", sizeof(a->name) - 1, &name);
	if (!rc)
		rc = read_unsigned(r, object, "entries", 1, 65536, &a->entries);
	if (!rc)
		rc = read_unsigned(r, object, "ways", 0, 65536, &a->ways);
	if (!rc)
		rc = read_sizes(r, object, &a->sizes);
	if (!rc)
		rc = reader_basis(r, object, &basis, &source);
	if (rc)
		return rc;
	if (a->ways && (a->entries % a->ways || !is_power_of_two(a->entries / a->ways)))
		return reader_refuse(r,
				     "%u entries in %u ways are no power of two of sets "
				     "(0 ways: fully associative)",
				     a->entries, a->ways);
	strcpy(a->name, name);
	array_text(a, text, sizeof(text));
	return reader_note(r, text, "", basis, source);
}

static int read_side(struct reader *r, const json_t *tlb, const char *key, struct tlb_side *side)
{
	const json_t *arrays = json_object_get(tlb, key);
	size_t mark = reader_enter(r, key);

	if (!json_is_array(arrays))
		return reader_refuse(r, "must be a list of TLB arrays (empty: there is none)");
	if (json_array_size(arrays) > TLB_ARRAY_MAX)
		return reader_refuse(r, "holds more than %d TLB arrays", TLB_ARRAY_MAX);
	for (size_t i = 0; i < json_array_size(arrays); i++) {
		size_t inner = reader_enter_index(r, i);
		int rc = read_array(r, json_array_get(arrays, i), &side->array[i]);

		if (rc)
			return rc;
		side->array_count++;
		reader_leave(r, inner);
	}
	reader_leave(r, mark);
	return 0;
}

static int read_walk_cache(struct reader *r, const json_t *tlb, struct walk_cache_geometry *out)
{
	static const char *const keys[] = {"pde",	 "pdpte",  "pml4e",
					   "nested_tlb", "shared", "two_dimensional"};
	const json_t *object = json_object_get(tlb, "walk_cache");
	unsigned *const slots[] = {&out->pde_entries, &out->pdpte_entries, &out->pml4e_entries,
				   &out->nested_tlb_entries};
	size_t mark = reader_enter(r, "walk_cache");
	int rc = reader_check_keys(r, object, keys, ARRAY_COUNT(keys));

	for (size_t i = 0; !rc && i < ARRAY_COUNT(slots); i++) {
		struct number n;

		rc = reader_number(r, object, keys[i], &rule_entries, &n);
		if (!rc)
			*slots[i] = (unsigned)(n.millis / 1000);
	}
	if (!rc)
		rc = reader_bool(r, object, "shared", &out->is_shared);
	if (!rc)
		rc = reader_bool(r, object, "two_dimensional", &out->is_two_dimensional);
	if (!rc && out->is_shared && (out->pdpte_entries || out->pml4e_entries))
		rc = reader_refuse(r, "where \"shared\" is true, \"pde\" holds all levels, and "
				      "\"pdpte\" and \"pml4e\" are 0");
	if (!rc)
		reader_leave(r, mark);
	return rc;
}

static int check_sides(struct reader *r, const struct tlb_geometry *g)
{
	static const char *const names[] = {"l1d", "l1i", "l1s"};
	const struct tlb_side *first[] = {&g->l1d, &g->l1i, &g->l1s};

	if (g->l2_unified && g->l2i.array_count)
		return reader_refuse(r, "\"l2i\" must be empty where \"l2_unified\" is true");
	for (size_t s = 0; s < ARRAY_COUNT(first); s++) {
		bool holds_4k = first[s] == &g->l1s && !g->l1s.array_count;

		for (unsigned i = 0; i < first[s]->array_count; i++)
			holds_4k |= (first[s]->array[i].sizes & TLB_4K) != 0;
		if (!holds_4k)
			return reader_refuse(r, "\"%s\" must have an array that holds 4K pages",
					     names[s]);
	}
	return 0;
}

static int read_tlb(struct reader *r, const json_t *root)
{
	static const char *const keys[] = {"tagged", "pcid", "l2_unified", "l1d", "l1i",
					   "l2d",    "l2i",  "walk_cache", "l1s"};
	const json_t *tlb = json_object_get(root, "tlb");
	struct tlb_geometry *g = &r->profile->tlb;
	struct tlb_side *const sides[] = {&g->l1d, &g->l1i, &g->l2d, &g->l2i};
	size_t mark = reader_enter(r, "tlb");
	int rc = reader_check_keys(r, tlb, keys, ARRAY_COUNT(keys));

	if (!rc)
		rc = reader_bool(r, tlb, "tagged", &g->tagged);
	if (!rc)
		rc = reader_bool(r, tlb, "pcid", &g->pcid);
	if (!rc)
		rc = reader_bool(r, tlb, "l2_unified", &g->l2_unified);
	for (size_t i = 0; !rc && i < ARRAY_COUNT(sides); i++)
		rc = read_side(r, tlb, keys[3 + i], sides[i]);
	if (!rc && json_object_get(tlb, "l1s"))
		rc = read_side(r, tlb, "l1s", &g->l1s);
	if (!rc)
		rc = read_walk_cache(r, tlb, &g->walk_cache);
	if (!rc)
		rc = check_sides(r, g);
	if (!rc)
		reader_leave(r, mark);
	return rc;
}

/* What one member of "caches" holds: the array, where the level is one, and its latency. */
static int read_cache_array(struct reader *r, const json_t *level, struct cache_array *out)
{
	static const char *const keys[] = {"size_kb", "ways", "class", "source"};
	const json_t *object = json_object_get(level, "array");
	unsigned size_kb, ways;
	const char *source;
	enum mark basis;
	char text[48];
	size_t mark = reader_enter(r, "array");
	int rc = reader_check_keys(r, object, keys, ARRAY_COUNT(keys));

	if (!rc)
		rc = read_unsigned(r, object, "size_kb", 1, 4u << 20, &size_kb);
	if (!rc)
		rc = read_unsigned(r, object, "ways", 1, 1024, &ways);
	if (!rc)
		rc = reader_basis(r, object, &basis, &source);
	if (rc)
		return rc;
	if (((size_kb * 1024) >> CACHE_LINE_SHIFT) % ways)
		return reader_refuse(r, "%u KB in %u ways are no whole number of 64-byte lines",
				     size_kb, ways);
	out->size_bytes = 1024ull * size_kb;
	out->ways = ways;
	snprintf(text, sizeof(text), "%u KB, %u-way", size_kb, ways);
	rc = reader_note(r, text, "", basis, source);
	if (!rc)
		reader_leave(r, mark);
	return rc;
}

static int read_cache_level(struct reader *r, const json_t *caches, enum cache_level i)
{
	static const char *const keys[] = {"latency", "array"};
	const char *name = cache_level_name(i);
	const json_t *level = json_object_get(caches, name);
	size_t mark = reader_enter(r, name);
	int rc = reader_check_keys(r, level, keys, i == CACHE_DRAM ? 1 : 2);

	if (!rc && i < CACHE_DRAM)
		rc = read_cache_array(r, level, &r->profile->caches.level[i]);
	if (!rc)
		rc = reader_number(r, level, "latency", &rule_cycles, &r->profile->latency[i]);
	if (!rc)
		reader_leave(r, mark);
	return rc;
}

/* A level may be missing, but from the outside in: then its references are answered, and priced, by
 * the next one out. */
static int check_ladder(struct reader *r, const json_t *caches)
{
	struct profile *p = r->profile;

	if (json_object_get(caches, "l3") && !json_object_get(caches, "l2"))
		return reader_refuse(r, "\"l3\" is there without \"l2\"");
	for (int i = CACHE_DRAM - 1; i >= 0; i--) {
		if (!p->caches.level[i].size_bytes)
			p->latency[i] = p->latency[i + 1];
		if (p->latency[i].millis > p->latency[i + 1].millis)
			return reader_refuse(r,
					     "the latency of \"%s\" is above that of \"%s\"; each "
					     "level is at least as slow as the one before",
					     cache_level_name((enum cache_level)i),
					     cache_level_name((enum cache_level)(i + 1)));
	}
	return 0;
}

static int read_caches(struct reader *r, const json_t *root)
{
	const json_t *caches = json_object_get(root, "caches");
	const char *keys[CACHE_LEVEL_COUNT];
	size_t mark = reader_enter(r, "caches");

	for (int i = 0; i < CACHE_LEVEL_COUNT; i++)
		keys[i] = cache_level_name((enum cache_level)i);

	int rc = reader_check_keys(r, caches, keys, ARRAY_COUNT(keys));

	for (int i = 0; !rc && i < CACHE_LEVEL_COUNT; i++) {
		bool is_optional = i == CACHE_L2 || i == CACHE_L3;

		if (!is_optional || json_object_get(caches, keys[i]))
			rc = read_cache_level(r, caches, (enum cache_level)i);
	}
	if (!rc)
		rc = check_ladder(r, caches);
	if (!rc)
		reader_leave(r, mark);
	return rc;
}

static int read_virtualization(struct reader *r, const json_t *root)
{
	static const char *const keys[] = {"nested_paging", "pf_filter"};
	const json_t *object = json_object_get(root, "virtualization");
	size_t mark = reader_enter(r, "virtualization");
	int rc = reader_check_keys(r, object, keys, ARRAY_COUNT(keys));

	if (!rc)
		rc = reader_bool(r, object, keys[0], &r->profile->has_nested_paging);
	if (!rc)
		rc = reader_bool(r, object, keys[1], &r->profile->has_pf_filter);
	if (!rc)
		reader_leave(r, mark);
	return rc;
}

static int read_document(struct reader *r, const json_t *root)
{
	int rc = json_is_object(root) ? read_header(r, root)
				      : reader_refuse(r, "must be an object");

	if (!rc)
		rc = read_virtualization(r, root);
	if (!rc)
		rc = read_tlb(r, root);
	if (!rc)
		rc = read_caches(r, root);
	if (!rc)
		rc = reader_prices(r, root);
	return rc;
}

int profile_parse(const char *origin, const char *bytes, size_t size_bytes, struct profile **out,
		  struct error *e)
{
	struct profile *p = calloc(1, sizeof(*p));
	struct reader r = {.profile = p, .error = e, .origin = origin};
	json_error_t json_error;
	int rc;

	*out = NULL;
	if (!p)
		return error_set(e, -ENOMEM, "no memory for a profile");
	p->origin = strdup(origin);
	p->document = json_loadb(bytes, size_bytes, JSON_REJECT_DUPLICATES, &json_error);
	if (!p->origin)
		rc = error_set(e, -ENOMEM, "no memory for a profile");
	else if (!p->document)
		rc = error_set(e, -EINVAL, "%.100s: line %d, column %d: %s", origin,
			       json_error.line, json_error.column, json_error.text);
	else
		rc = reader_resolve(&r, p->document);
	if (!rc)
		rc = read_document(&r, p->document);
	if (rc) {
		profile_destroy(p);
		return rc;
	}
	*out = p;
	return 0;
}

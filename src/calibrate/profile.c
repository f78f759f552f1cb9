/*
 * Measurements as a profile: a copy of the nearest built-in one whose facts are marked down to
 * "taken from another processor", with what was measured put over them.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/private.h"
#include "hw/hw.h"

/* As profiles allow. */
#define SOURCE_MAX 400

/* A profile being written. Failed allocations leave members out, and the check at the end finds
 * that. */
struct draft {
	const struct calibration *c;
	const char *base;
	json_t *root;
};

/* Marks down */

/* What another processor's number is here, at best. */
static void mark_down(const struct draft *d, json_t *fact)
{
	const char *class = json_string_value(json_object_get(fact, "class"));
	const char *source = json_string_value(json_object_get(fact, "source"));
	char text[SOURCE_MAX + 1];

	if (!class || !source)
		return;
	snprintf(text, sizeof(text), "as %s: %s", d->base, source);
	if (*class != 'E')
		json_object_set_new(fact, "class", json_string("D"));
	json_object_set_new(fact, "source", json_string(text));
}

static void mark_all_down(const struct draft *d, json_t *value)
{
	const char *key;
	json_t *member;
	size_t i;

	if (json_is_array(value)) {
		json_array_foreach(value, i, member) mark_all_down(d, member);
		return;
	}
	if (!json_is_object(value))
		return;
	if (json_object_get(value, "class")) {
		mark_down(d, value);
		return;
	}
	json_object_foreach(value, key, member) mark_all_down(d, member);
}

/* Putting facts */

static json_t *member(json_t *object, const char *key)
{
	json_t *m = json_object_get(object, key);

	if (m)
		return m;
	json_object_set_new(object, key, json_object());
	return json_object_get(object, key);
}

/* A tenth of a cycle is finer than any spread seen. */
static json_t *json_tenths(double value)
{
	double tenths = nearbyint(value * 10);

	return fmod(tenths, 10) ? json_real(tenths / 10) : json_integer((json_int_t)(tenths / 10));
}

static void put_number(json_t *object, const char *key, double value, char class,
		       const char *format, ...) __attribute__((format(printf, 5, 6)));

static void put_number(json_t *object, const char *key, double value, char class,
		       const char *format, ...)
{
	char letter[2] = {class, 0}, source[SOURCE_MAX + 1];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(source, sizeof(source), format, arguments);
	va_end(arguments);
	json_object_set_new(object, key,
			    json_pack("{s:o, s:s, s:s, s:s}", "value", json_tenths(value), "unit",
				      "cycles", "class", letter, "source", source));
}

#define MEASURED_MAX 260

/* "measured on this host on 2026-11-21 by gnomon calibrate: median of 15, spread 2 %" */
static const char *measured_text(const struct draft *d, const struct measure *m,
				 char text[MEASURED_MAX])
{
	snprintf(text, MEASURED_MAX,
		 "measured on this host on %.10s by gnomon calibrate: %s of %u, spread %.0f "
		 "%%%s%.100s",
		 d->c->date, m->value > m->lowest ? "median" : "lowest", m->sample_count, m->spread,
		 *m->note ? "; " : "", m->note);
	return text;
}

static const struct measure *measured(const struct draft *d, enum measure_id id)
{
	return &d->c->measure[id];
}

/* Header */

static void put_header(struct draft *d, const char *name)
{
	const struct measure *m = measured(d, MEASURE_FREQUENCY);
	const char *brand = d->c->host.brand;
	char text[MEASURED_MAX];

	brand += strspn(brand, " ");
	snprintf(text, 150, "%s, measured by gnomon calibrate on %s", *brand ? brand : "this host",
		 d->c->date);
	json_object_set_new(d->root, "name", json_string(name));
	json_object_set_new(d->root, "description", json_string(text));
	json_object_set_new(d->root, "frequency",
			    json_pack("{s:I, s:s, s:s, s:s}", "value",
				      (json_int_t)(nearbyint(m->value / 1e6) * 1e6), "unit", "hz",
				      "class", "T", "source", measured_text(d, m, text)));
}

/* Caches */

static void put_cache_array(struct draft *d, json_t *level, const struct host_cache *h)
{
	if (!h->size_kb || !h->ways || h->size_kb * 16 % h->ways)
		return;
	json_object_set_new(level, "array",
			    json_pack("{s:i, s:i, s:s, s:s}", "size_kb", (int)h->size_kb, "ways",
				      (int)h->ways, "class", "T", "source", "CPUID of this host"));
}

/* The latency that a level has now, in cycles. */
static double latency_of(const json_t *caches, const char *name)
{
	return json_number_value(json_object_get(
		json_object_get(json_object_get(caches, name), "latency"), "value"));
}

/* A level that could not be measured may have got between two that were: it is moved, not they. */
static void keep_in_order(const struct draft *d, json_t *caches)
{
	static const char *const names[] = {"l1d", "l2", "l3", "dram"};
	double floor = 0;

	for (int i = 0; i < 4; i++) {
		double latency = latency_of(caches, names[i]);

		if (!json_object_get(caches, names[i]))
			continue;
		if (latency < floor)
			put_number(member(caches, names[i]), "latency", floor, 'E',
				   "that of the level before it: %.1f was found or taken from %s, "
				   "which is less",
				   latency, d->base);
		else
			floor = latency;
	}
}

static void put_caches(struct draft *d)
{
	static const enum measure_id ids[] = {MEASURE_L1, MEASURE_L2, MEASURE_L3, MEASURE_DRAM};
	static const char *const names[] = {"l1d", "l2", "l3", "dram"};
	json_t *caches = member(d->root, "caches");
	bool does_cpuid_say = d->c->host.cache[0].size_kb != 0;
	char text[MEASURED_MAX];

	for (int i = 0; i < 4; i++) {
		const struct measure *m = measured(d, ids[i]);

		if (i > 0 && i < 3 && does_cpuid_say && !d->c->host.cache[i].size_kb) {
			json_object_del(caches, names[i]);
			continue;
		}
		if (i < 3 && d->c->host.cache[i].size_kb)
			put_cache_array(d, member(caches, names[i]), &d->c->host.cache[i]);
		if (m->is_available)
			put_number(member(caches, names[i]), "latency", m->value, 'T', "%s",
				   measured_text(d, m, text));
	}
	keep_in_order(d, caches);
}

/* TLBs */

/* Ways for a number of entries that leave a power of two of sets: `wanted` or the next that do. */
static unsigned fitting_ways(unsigned entries, unsigned wanted)
{
	unsigned ways = entries >> __builtin_ctz(entries); /* the odd part */

	if (!wanted || wanted >= entries)
		return 0;
	if (entries % wanted == 0 && is_power_of_two(entries / wanted))
		return wanted;
	while (ways < wanted)
		ways *= 2;
	return ways < entries ? ways : 0;
}

static json_t *array_for_4k(json_t *side)
{
	json_t *array, *size;
	size_t i, k;

	json_array_foreach(side, i, array)
	{
		json_array_foreach(json_object_get(array, "sizes"), k,
				   size) if (!strcmp(json_string_value(size), "4K")) return array;
	}
	return NULL;
}

/* CPUID's word where the knee bears it out, else the knee's. (Walks take entries for themselves,
 * and a hypervisor's more of them: the knee may come early.) */
static void put_tlb(struct draft *d, const char *key, const struct measure *m, unsigned said,
		    unsigned said_ways)
{
	json_t *array = array_for_4k(json_object_get(member(d->root, "tlb"), key));
	unsigned entries = (unsigned)m->value, ways;
	char source[160];

	if (!array || !m->is_available)
		return;
	ways = (unsigned)json_integer_value(json_object_get(array, "ways"));
	if (said && said < 1.5 * m->lowest && said > 0.8 * m->lowest) {
		entries = said;
		ways = said_ways;
		snprintf(source, sizeof(source),
			 "CPUID of this host; gnomon calibrate found the knee at %.0f pages on %s",
			 m->lowest, d->c->date);
	} else {
		snprintf(
			source, sizeof(source),
			"knee at %.0f pages, measured on this host on %s by gnomon calibrate; ways "
			"as %s",
			m->lowest, d->c->date, d->base);
	}
	json_object_set_new(array, "entries", json_integer(entries));
	json_object_set_new(array, "ways", json_integer(fitting_ways(entries, ways)));
	json_object_set_new(array, "class", json_string("T"));
	json_object_set_new(array, "source", json_string(source));
}

static void put_tlbs(struct draft *d)
{
	const struct host *h = &d->c->host;
	const struct measure *hit = measured(d, MEASURE_TLB2_HIT);
	json_t *prices = member(d->root, "prices");
	char text[MEASURED_MAX];

	put_tlb(d, "l1d", measured(d, MEASURE_TLB1_ENTRIES), h->tlb1_entries, h->tlb1_ways);
	put_tlb(d, "l2d", measured(d, MEASURE_TLB2_ENTRIES), h->tlb2_entries, h->tlb2_ways);
	if (!hit->is_available || hit->value < 0.5)
		return;
	put_number(prices, "tlb.l2_hit", hit->value, 'T', "%s", measured_text(d, hit, text));
	put_number(prices, "tlb.miss", hit->value, 'E',
		   "the look-up of the second level that found nothing, as dear as one that hits, "
		   "which was measured");
}

/* Exits */

static double part_of(const json_t *prices, const char *exit, const char *part)
{
	return json_number_value(
		json_object_get(json_object_get(json_object_get(prices, exit), part), "value"));
}

/* One exit's round trip with the cheapest handling, and where that figure comes from. */
static const struct measure *cheapest_exit(const struct draft *d, const char **how)
{
	const struct measure *own = measured(d, MEASURE_CPUID);
	const struct measure *guest = measured(d, MEASURE_EXIT_CPUID);

	/* Below a hypervisor our own CPUID is one exit; a guest of ours would show nested ones. */
	if (d->c->host.is_virtualized) {
		*how = "CPUID on this host, an exit to its own hypervisor,";
		return own->is_available && own->value > 400 ? own : NULL;
	}
	*how = "CPUID of a guest through /dev/kvm";
	return guest->is_available ? guest : NULL;
}

/* The sum is measured, its division is not: the handler's share is the base's where the sum has
 * room for it. */
static void put_exits(struct draft *d)
{
	json_t *prices = member(d->root, "prices");
	double handling = part_of(prices, "exit.*", "handling");
	double share = part_of(prices, "exit.*", "transition");
	const char *how;
	const struct measure *m = cheapest_exit(d, &how);
	char text[MEASURED_MAX];

	if (!m)
		return;
	share /= share + handling;
	if (m->value < 1.5 * handling)
		handling = m->value * (1 - share);
	measured_text(d, m, text);
	put_number(member(prices, "exit.*"), "transition", m->value - handling, 'D',
		   "%s takes %.0f in all, less %.0f for the handler; %s", how, m->value, handling,
		   text);
	put_number(member(prices, "exit.*"), "handling", handling, 'D',
		   "the share of the handler in %.0f, as in %s: %s %s", m->value, d->base, how,
		   text);
	if (d->c->host.is_virtualized)
		return;
	static const struct {
		const char *exit;
		enum measure_id id, like; /* `like` if `id` was not measured */
	} list[] = {{"exit.port_read", MEASURE_EXIT_PORT_READ, MEASURE_EXIT_PORT},
		    {"exit.port_write", MEASURE_EXIT_PORT, MEASURE_EXIT_PORT},
		    {"exit.mmio_read", MEASURE_EXIT_MMIO_READ, MEASURE_EXIT_MMIO},
		    {"exit.mmio_write", MEASURE_EXIT_MMIO, MEASURE_EXIT_MMIO}};
	for (size_t i = 0; i < ARRAY_COUNT(list); i++) {
		const struct measure *whole = measured(d, list[i].id);
		if (!whole->is_available)
			whole = measured(d, list[i].like);
		double rest = whole->value - (m->value - handling);

		if (whole->is_available && rest > 0)
			put_number(member(prices, list[i].exit), "handling", rest, 'D',
				   "%.0f in all, less the transition: %s", whole->value,
				   measured_text(d, whole, text));
	}
}

static void put_lock(struct draft *d)
{
	const struct measure *m = measured(d, MEASURE_LOCK);
	char text[MEASURED_MAX];

	if (m->is_available)
		put_number(member(d->root, "prices"), "walk.ad_update", m->value, 'E',
			   "LOCK XADD, taken for the walker's locked update: %s",
			   measured_text(d, m, text));
}

/* Our strategies' software: the price of the event of the same name. */
static void put_vmm(struct draft *d)
{
	char text[MEASURED_MAX];

	for (int id = MEASURE_VMM_FILL; id <= MEASURE_VMM_UPDATE; id++) {
		const struct measure *m = measured(d, (enum measure_id)id);

		if (m->is_available)
			put_number(member(d->root, "prices"), measure_name((enum measure_id)id),
				   m->value, 'T', "Gnomon's own software: %s",
				   measured_text(d, m, text));
	}
}

/* The draft goes through the reader, which refuses what no profile may be. */
static int finish(const struct draft *d, char **text, struct error *e)
{
	char *draft = json_dumps(d->root, 0);
	struct profile *p = NULL;
	int rc = draft ? profile_parse("the measured profile", draft, strlen(draft), &p, e)
		       : error_set(e, -ENOMEM, "no memory for a profile");

	free(draft);
	if (rc)
		return rc;
	*text = profile_text(p);
	profile_destroy(p);
	return *text ? 0 : error_set(e, -ENOMEM, "no memory for a profile");
}

int calibrate_profile(const struct calibration *c, const char *name, const char *base, char **text,
		      struct error *e)
{
	struct draft d = {.c = c};
	struct profile *p;
	char *base_text;
	int rc = profile_load(base, &p, e);

	*text = NULL;
	if (rc)
		return rc;
	base_text = profile_text(p);
	d.base = p->name;
	d.root = base_text ? json_loads(base_text, 0, NULL) : NULL;
	free(base_text);
	if (d.root) {
		mark_all_down(&d, d.root);
		put_header(&d, name);
		put_caches(&d);
		put_tlbs(&d);
		put_lock(&d);
		put_exits(&d);
		put_vmm(&d);
		rc = finish(&d, text, e);
	} else {
		rc = error_set(e, -ENOMEM, "no memory for a profile");
	}
	json_decref(d.root);
	profile_destroy(p);
	return rc;
}

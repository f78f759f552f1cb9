#include "hw/vary.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hw/reader.h"

#define KEY_MAX 80
#define PART_NAMES                       \
	{                                \
		"transition", "handling" \
	}

/* `.prices["exit.cpuid"].transition` becomes exit.cpuid.transition. False if it is too long. */
static bool normalize(const char *key, char out[KEY_MAX])
{
	size_t n = 0;

	for (; *key; key++) {
		if (strchr("[]\"", *key))
			continue;
		if (n + 1 >= KEY_MAX)
			return false;
		if (*key != '.' || n)
			out[n++] = *key;
	}
	out[n] = 0;
	if (!strncmp(out, "prices.", 7))
		memmove(out, out + 7, n - 6);
	else if (!strncmp(out, "prices", 6)) /* the dot went with the bracket */
		memmove(out, out + 6, n - 5);
	return true;
}

static void fill_knob(struct knob *k, enum knob_kind kind, int index, const struct number *n)
{
	*k = (struct knob){.kind = kind,
			   .index = index,
			   .millis = n->millis,
			   .mark = n->mark,
			   .max_millis = PRICE_MAX_CYCLES * MILLIS_PER_CYCLE};
}

/* A level never answers faster than the one before it. */
static void bound_latency(const struct profile *p, int level, struct knob *out)
{
	int inner = level - 1;

	while (inner > CACHE_L1D && !p->caches.level[inner].size_bytes)
		inner--;
	if (inner >= CACHE_L1D)
		out->min_millis = p->latency[inner].millis;
	if (level < CACHE_DRAM)
		out->max_millis = p->latency[level + 1].millis;
}

static int find_latency(const struct profile *p, const char *name, struct knob *out,
			struct error *e)
{
	for (int i = 0; i < CACHE_LEVEL_COUNT; i++) {
		const char *level = cache_level_name((enum cache_level)i);
		size_t length = strlen(level);

		if (strncmp(name, level, length) ||
		    (name[length] && strcmp(name + length, ".latency")))
			continue;
		if (i < CACHE_DRAM && !p->caches.level[i].size_bytes)
			return error_set(e, -EINVAL, "%s has no %s cache", p->name, level);
		fill_knob(out, KNOB_LATENCY, i, &p->latency[i]);
		bound_latency(p, i, out);
		return 0;
	}
	return error_set(
		e, -EINVAL,
		"caches.%s cannot be varied: there are caches.l1d, caches.l2, caches.l3 and "
		"caches.dram, their latencies",
		name);
}

/* The event that `key` begins with, and what stands after it ("" or ".transition"). */
static int split_event(const char *key, const char **rest)
{
	int best = -1;
	size_t best_length = 0;

	for (int e = 0; e < EVENT_COUNT; e++) {
		size_t length = strlen(event_name((enum event)e));

		if (length > best_length && !strncmp(key, event_name((enum event)e), length) &&
		    (!key[length] || key[length] == '.')) {
			best = e;
			best_length = length;
		}
	}
	*rest = key + best_length;
	return best;
}

static int find_part(const char *key, const char *rest, enum price_part *out, struct error *e)
{
	static const char *const names[PRICE_PART_COUNT] = PART_NAMES;

	for (int i = 0; i < PRICE_PART_COUNT; i++) {
		if (*rest == '.' && !strcmp(rest + 1, names[i])) {
			*out = (enum price_part)i;
			return 0;
		}
	}
	return error_set(e, -EINVAL,
			 "%s: an exit's price has two parts; which one: %.*s.transition or "
			 "%.*s.handling?",
			 key, (int)(rest - key), key, (int)(rest - key), key);
}

static int find_price(const struct profile *p, const char *key, int event, const char *rest,
		      struct knob *out, struct error *e)
{
	const struct price *price = &p->price[event];
	enum price_part part = price->has_part[PRICE_SOFTWARE] ? PRICE_SOFTWARE : PRICE_HARDWARE;
	int rc = 0;

	if (!price->is_priced)
		return error_set(e, -EINVAL, "%s has no price in %s: it is counted only", key,
				 p->name);
	if (event_is_exit((enum event)event))
		rc = find_part(key, rest, &part, e);
	else if (*rest)
		rc = error_set(e, -EINVAL, "%s: the price of \"%s\" has no parts", key,
			       event_name((enum event)event));
	if (rc)
		return rc;
	fill_knob(out, KNOB_PRICE, event, &price->part[part]);
	out->part = part;
	return 0;
}

/* "exit.*.transition": the number of the exits that share it. */
static int find_exits(const struct profile *p, const char *key, struct knob *out, struct error *e)
{
	enum price_part part;
	int rc = find_part(key, key + strlen("exit.*"), &part, e);

	if (rc)
		return rc;
	for (int i = EVENT_EXIT_CR_READ; i <= EVENT_EXIT_TRIPLE_FAULT; i++) {
		if (!p->price[i].is_default[part])
			continue;
		fill_knob(out, KNOB_EXITS, i, &p->price[i].part[part]);
		out->part = part;
		return 0;
	}
	return error_set(e, -EINVAL, "%s: in %s every exit states its own", key, p->name);
}

static int refuse(const char *key, struct error *e)
{
	const char *names[EVENT_COUNT];

	if (!strncmp(key, "tlb", 3) || !strncmp(key, "virtualization", 14))
		return error_set(e, -EINVAL,
				 "%s cannot be varied: it decides which events happen, and these "
				 "are counted already; run with a profile that has another value "
				 "(a file with \"extends\")",
				 key);
	if (!strcmp(key, "frequency"))
		return error_set(
			e, -EINVAL,
			"the frequency scales every total alike: it changes seconds, and no "
			"cycles and no order");
	for (int i = 0; i < EVENT_COUNT; i++)
		names[i] = event_name((enum event)i);
	const char *near = nearest_word(key, names, EVENT_COUNT);
	return error_set(
		e, -EINVAL,
		"%s is no number that can be varied%s%s%s (event names, exit.*.transition, "
		"exit.*.handling, caches.l1d to caches.dram)",
		key, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

int profile_find_knob(const struct profile *p, const char *key, struct knob *out, struct error *e)
{
	char name[KEY_MAX];
	const char *rest;

	if (!normalize(key, name))
		return error_set(e, -EINVAL, "%.40s... is no number that can be varied", key);

	int event = split_event(name, &rest);
	size_t length = strlen(name);

	if (event >= 0)
		return find_price(p, name, event, rest, out, e);
	if (!strncmp(name, "exit.*", 6))
		return find_exits(p, name, out, e);
	if (length > 6 && !strcmp(name + length - 6, ".array"))
		return error_set(e, -EINVAL,
				 "%s cannot be varied: it decides which cache answers, and that is "
				 "counted already; run with a profile that has another one",
				 name);
	if (!strncmp(name, "caches.", 7))
		return find_latency(p, name + 7, out, e);
	return refuse(name, e);
}

static void set_latency(struct profile *p, int level, uint64_t millis)
{
	p->latency[level].millis = millis;
	for (int i = level - 1; i > CACHE_L1D && !p->caches.level[i].size_bytes; i--)
		p->latency[i].millis = millis;
	profile_derive_prices(p);
}

void profile_turn(struct profile *p, const struct knob *k, uint64_t millis)
{
	switch (k->kind) {
	case KNOB_PRICE:
		p->price[k->index].part[k->part].millis = millis;
		p->price[k->index].is_derived = false;
		break;
	case KNOB_EXITS:
		for (int i = EVENT_EXIT_CR_READ; i <= EVENT_EXIT_TRIPLE_FAULT; i++)
			if (p->price[i].is_default[k->part])
				p->price[i].part[k->part].millis = millis;
		break;
	case KNOB_LATENCY: set_latency(p, k->index, millis); break;
	}
}

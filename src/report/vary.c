#include "report/vary.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "hw/vary.h"

/* Reading the words */

/* Decimal cycles with up to three decimals; moves *text past them. */
static bool read_millis(const char **text, uint64_t *out)
{
	const char *c = *text;
	uint64_t millis = 0;
	int decimals = -1;

	for (; isdigit((unsigned char)*c) || (*c == '.' && decimals < 0 && c[1] != '.'); c++) {
		if (*c == '.') {
			decimals = 0;
			continue;
		}
		if (millis > PRICE_MAX_CYCLES * MILLIS_PER_CYCLE || decimals == 3)
			return false;
		millis = 10 * millis + (uint64_t)(*c - '0');
		decimals += decimals >= 0;
	}
	if (c == *text)
		return false;
	for (decimals = decimals < 0 ? 0 : decimals; decimals < 3; decimals++)
		millis *= 10;
	*text = c;
	*out = millis;
	return true;
}

static bool read_steps(const char *text, unsigned *out)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	*out = (unsigned)n;
	return isdigit((unsigned char)*text) && !*end && n >= 1 && n <= VARY_STEPS_MAX;
}

int vary_parse(struct vary *v, const char *text, struct error *e)
{
	static const char form[] = "it must be KEY=LO..HI or KEY=LO..HI:STEPS, such as "
				   "exit.pf_hidden.transition=500..4000";
	const char *c = strchr(text, '=');

	*v = (struct vary){.steps = VARY_STEPS_DEFAULT};
	if (!c || c == text || (size_t)(c - text) >= sizeof(v->key))
		return error_set(e, -EINVAL, "\"%.80s\": %s", text, form);
	memcpy(v->key, text, (size_t)(c - text));
	c++;
	if (!read_millis(&c, &v->low_millis) || strncmp(c, "..", 2))
		return error_set(e, -EINVAL, "\"%.80s\": %s", text, form);
	c += 2;
	if (!read_millis(&c, &v->high_millis) || (*c && *c != ':'))
		return error_set(e, -EINVAL, "\"%.80s\": %s", text, form);
	if (*c && !read_steps(c + 1, &v->steps))
		return error_set(e, -EINVAL, "\"%.80s\": STEPS is a number from 1 to %d", text,
				 VARY_STEPS_MAX);
	if (v->low_millis >= v->high_millis)
		return error_set(e, -EINVAL, "\"%.80s\": LO must be below HI", text);
	return 0;
}

/* The lines */

static int compare_totals(const struct vary_result *r, unsigned point, unsigned a, unsigned b)
{
	const struct amount *row = r->total + (size_t)point * r->scheme_count;

	return (row[a].millis > row[b].millis) - (row[a].millis < row[b].millis);
}

/* a's total less b's at a point; the difference of two amounts fits, signed. */
static long double difference(const struct vary_result *r, unsigned point, unsigned a, unsigned b)
{
	const struct amount *row = r->total + (size_t)point * r->scheme_count;

	return (long double)(__int128)(row[a].millis - row[b].millis);
}

/* Two straight lines that change sides between the ends meet once. */
static double meeting_point(const struct vary_result *r, unsigned a, unsigned b)
{
	long double low = difference(r, 0, a, b);
	long double high = difference(r, r->point_count - 1, a, b);
	long double from = r->vary.low_millis;
	long double width = r->vary.high_millis - r->vary.low_millis;

	return (double)((from + width * low / (low - high)) / MILLIS_PER_CYCLE);
}

static int by_value(const void *left, const void *right)
{
	const struct vary_crossing *a = left, *b = right;

	return (a->value > b->value) - (a->value < b->value);
}

static void find_crossings(struct vary_result *r)
{
	for (unsigned a = 0; a < r->scheme_count; a++) {
		for (unsigned b = a + 1; b < r->scheme_count; b++) {
			int low = compare_totals(r, 0, a, b);
			int high = compare_totals(r, r->point_count - 1, a, b);

			if (low * high >= 0)
				continue;
			r->crossing[r->crossing_count++] =
				(struct vary_crossing){.value = meeting_point(r, a, b),
						       .before = low < 0 ? a : b,
						       .after = low < 0 ? b : a};
		}
	}
	qsort(r->crossing, r->crossing_count, sizeof(*r->crossing), by_value);
}

/* Of equals at the low end, the one that stays cheapest. */
static unsigned cheapest_at_low(const struct vary_result *r)
{
	unsigned best = 0;

	for (unsigned s = 1; s < r->scheme_count; s++) {
		int low = compare_totals(r, 0, s, best);

		if (low < 0 || (!low && compare_totals(r, r->point_count - 1, s, best) < 0))
			best = s;
	}
	return best;
}

/* The lower envelope: from the cheapest at the low end to whoever crosses below it next. */
static void find_stretches(struct vary_result *r)
{
	double low = (double)r->vary.low_millis / MILLIS_PER_CYCLE;
	struct vary_stretch *now = r->stretch;

	*now = (struct vary_stretch){.from = low, .scheme = cheapest_at_low(r)};
	for (unsigned i = 0; i < r->crossing_count; i++) {
		const struct vary_crossing *c = &r->crossing[i];

		if (c->before != now->scheme)
			continue;
		now->to = c->value;
		now[1] = (struct vary_stretch){.from = c->value, .scheme = c->after};
		now++;
	}
	now->to = (double)r->vary.high_millis / MILLIS_PER_CYCLE;
	r->stretch_count = (unsigned)(now - r->stretch) + 1;
}

/* Making the result */

static uint64_t point_millis(const struct vary *v, unsigned point)
{
	unsigned __int128 width = v->high_millis - v->low_millis;

	return v->low_millis + (uint64_t)(width * point / v->steps);
}

static struct vary_result *allocate(const struct vary *v, unsigned scheme_count)
{
	struct vary_result *r = calloc(1, sizeof(*r));
	size_t points = v->steps + 1, pairs = (size_t)scheme_count * scheme_count;

	if (!r)
		return NULL;
	r->vary = *v;
	r->scheme_count = scheme_count;
	r->point_count = (unsigned)points;
	r->point = calloc(points, sizeof(*r->point));
	r->total = calloc(points * scheme_count, sizeof(*r->total));
	r->crossing = calloc(pairs, sizeof(*r->crossing));
	r->stretch = calloc(pairs + 1, sizeof(*r->stretch));
	if (r->point && r->total && r->crossing && r->stretch)
		return r;
	vary_free(r);
	return NULL;
}

void vary_free(struct vary_result *r)
{
	if (!r)
		return;
	free(r->point);
	free(r->total);
	free(r->crossing);
	free(r->stretch);
	free(r);
}

static int check_range(const struct vary *v, const struct knob *k, struct error *e)
{
	char low[AMOUNT_TEXT_MAX], high[AMOUNT_TEXT_MAX];

	if (v->low_millis >= k->min_millis && v->high_millis <= k->max_millis)
		return 0;
	return error_set(e, -EINVAL,
			 "%s can vary from %s to %s cycles (a cache level is never faster than the "
			 "one before it)",
			 v->key, amount_text((struct amount){k->min_millis}, 0, low),
			 amount_text((struct amount){k->max_millis}, 0, high));
}

static int price_points(struct vary_result *r, const struct report_input *schemes,
			const struct knob *k)
{
	struct profile *p = malloc(sizeof(*p));
	struct bill *b = malloc(sizeof(*b));
	int rc = p && b ? 0 : -ENOMEM;

	for (unsigned i = 0; !rc && i < r->point_count; i++) {
		r->point[i] = point_millis(&r->vary, i);
		*p = *schemes->profile;
		profile_turn(p, k, r->point[i]);
		for (unsigned s = 0; s < r->scheme_count; s++) {
			struct report_input in = schemes[s];

			in.profile = p;
			bill_make(b, &in);
			r->total[(size_t)i * r->scheme_count + s] = b->total;
		}
	}
	free(b);
	free(p);
	return rc;
}

int vary_run(const struct report_input *schemes, unsigned scheme_count, const struct vary *v,
	     struct vary_result **out, struct error *e)
{
	struct vary_result *r;
	struct knob knob;
	int rc = profile_find_knob(schemes->profile, v->key, &knob, e);

	*out = NULL;
	if (!rc)
		rc = check_range(v, &knob, e);
	if (rc)
		return rc;
	r = allocate(v, scheme_count);
	if (!r || price_points(r, schemes, &knob)) {
		vary_free(r);
		return error_set(e, -ENOMEM, "no memory to vary %s", v->key);
	}
	r->stated_millis = knob.millis;
	r->mark = knob.mark;
	find_crossings(r);
	find_stretches(r);
	*out = r;
	return 0;
}

/* Showing it */

static const char *cycles_text(uint64_t millis, char text[AMOUNT_TEXT_MAX])
{
	return amount_text((struct amount){millis}, ',', text);
}

void vary_write_table(FILE *out, const struct vary_result *r, const char *const *names)
{
	char text[AMOUNT_TEXT_MAX];

	fprintf(out, "\nIf %s were another number (the profile says %s cycles, class %c)\n",
		r->vary.key, cycles_text(r->stated_millis, text), mark_letter(r->mark));
	fprintf(out, "  %16s", "cycles");
	for (unsigned s = 0; s < r->scheme_count; s++)
		fprintf(out, " %20s", names[s]);
	fputc('\n', out);
	for (unsigned i = 0; i < r->point_count; i++) {
		fprintf(out, "  %16s", cycles_text(r->point[i], text));
		for (unsigned s = 0; s < r->scheme_count; s++)
			fprintf(out, " %20s",
				cycles_text(r->total[(size_t)i * r->scheme_count + s].millis,
					    text));
		fputc('\n', out);
	}
	for (unsigned i = 0; i < r->stretch_count; i++)
		fprintf(out, "  cheapest from %.3f to %.3f: %s\n", r->stretch[i].from,
			r->stretch[i].to, names[r->stretch[i].scheme]);
	for (unsigned i = 0; i < r->crossing_count; i++)
		fprintf(out, "  break-even at %.3f: %s is cheaper below it, %s above\n",
			r->crossing[i].value, names[r->crossing[i].before],
			names[r->crossing[i].after]);
	if (!r->crossing_count)
		fputs("  no break-even: the order is the same over the whole range\n", out);
}

static json_t *json_millis(unsigned __int128 millis)
{
	if (millis % MILLIS_PER_CYCLE || millis / MILLIS_PER_CYCLE > INT64_MAX)
		return json_real((double)millis / MILLIS_PER_CYCLE);
	return json_integer((json_int_t)(millis / MILLIS_PER_CYCLE));
}

static json_t *json_points(const struct vary_result *r, const char *const *names)
{
	json_t *points = json_array();

	for (unsigned i = 0; i < r->point_count; i++) {
		json_t *totals = json_object();

		for (unsigned s = 0; s < r->scheme_count; s++)
			json_object_set_new(
				totals, names[s],
				json_millis(r->total[(size_t)i * r->scheme_count + s].millis));
		json_array_append_new(points,
				      json_pack("{s:o, s:o}", "value", json_millis(r->point[i]),
						"totals", totals));
	}
	return points;
}

struct json_t *vary_json(const struct vary_result *r, const char *const *names)
{
	json_t *crossings = json_array(), *cheapest = json_array();
	char letter[2] = {mark_letter(r->mark), 0};

	for (unsigned i = 0; i < r->crossing_count; i++) {
		const struct vary_crossing *c = &r->crossing[i];

		json_array_append_new(crossings,
				      json_pack("{s:f, s:s, s:s}", "value", c->value, "below",
						names[c->before], "above", names[c->after]));
	}
	for (unsigned i = 0; i < r->stretch_count; i++) {
		const struct vary_stretch *t = &r->stretch[i];

		json_array_append_new(cheapest, json_pack("{s:f, s:f, s:s}", "from", t->from, "to",
							  t->to, "scheme", names[t->scheme]));
	}
	return json_pack("{s:s, s:s, s:o, s:s, s:o, s:o, s:o}", "key", r->vary.key, "unit",
			 "cycles", "stated", json_millis(r->stated_millis), "class", letter,
			 "points", json_points(r, names), "crossings", crossings, "cheapest",
			 cheapest);
}

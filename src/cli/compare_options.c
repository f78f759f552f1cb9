#include "cli/compare_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hw/hw.h"
#include "hw/vary.h"
#include "report/points.h"

#define FIELD(f) .offset = offsetof(struct compare_options, f)

static const char *const format_names[] = {"table", "json", "csv", "html", NULL};
_Static_assert(COMPARE_TABLE == 0 && COMPARE_JSON == 1 && COMPARE_CSV == 2 && COMPARE_HTML == 3,
	       "as format_names has them");

static int set_strategy(void *target, const char *value, struct error *e)
{
	struct compare_options *o = target;

	if (o->strategy_list_count == COMPARE_STRATEGIES_MAX)
		return error_set(e, -EINVAL, "at most %d of them", COMPARE_STRATEGIES_MAX);
	o->strategy_lists[o->strategy_list_count++] = value;
	return 0;
}

static int set_profile(void *target, const char *value, struct error *e)
{
	struct compare_options *o = target;

	if (o->profile_list_count == COMPARE_PROFILES_MAX)
		return error_set(e, -EINVAL, "at most %d of them", COMPARE_PROFILES_MAX);
	o->profile_lists[o->profile_list_count++] = value;
	return 0;
}

static int set_vary(void *target, const char *value, struct error *e)
{
	struct compare_options *o = target;

	if (o->vary_count == COMPARE_VARY_MAX)
		return error_set(e, -EINVAL, "at most %d of them", COMPARE_VARY_MAX);
	return vary_parse(&o->vary[o->vary_count++], value, e);
}

static int set_phases(void *target, const char *value, struct error *e)
{
	struct compare_options *o = target;

	if (o->point_count == COMPARE_POINTS_MAX)
		return error_set(e, -EINVAL, "at most %d of them", COMPARE_POINTS_MAX);
	return points_load(value, &o->points[o->point_count++], e);
}

static const struct option_row rows[] = {
	{"strategy", NULL, "LIST",
	 "strategies beside native, with commas between them: all, or NAME[:KEY=VALUE]...; may be "
	 "given several times [all]",
	 "The comparison", OPTION_CUSTOM, .set = set_strategy},
	{"profile", NULL, "LIST",
	 "processors, with commas between them: all, names or files (gnomon profile) [skylake-sp]",
	 NULL, OPTION_CUSTOM, .set = set_profile},
	{"vary", NULL, "KEY=LO..HI[:STEPS]",
	 "what if this number of the profile were another: totals, cheapest strategies and "
	 "break-even points; may be given several times",
	 NULL, OPTION_CUSTOM, .set = set_vary},
	{"format", NULL, "FORMAT", "table, json, csv or html [table, or as --out's name ends]",
	 NULL, OPTION_CHOICE, FIELD(format), .choices = format_names},
	{"out", NULL, "FILE", "write the comparison there instead of on standard output", NULL,
	 OPTION_TEXT, FIELD(file)},
	{"interval", NULL, "N",
	 "sample every scheme after each N instructions, for curves over time [html: as the run's "
	 "length suggests; else no samples]",
	 NULL, OPTION_NUMBER, FIELD(interval), .min = 1000, .max = 1ull << 50},
	{"phases", NULL, "FILE",
	 "html: put the runs of this JSON (gnomon compare, gnomon bench papers) into the phase "
	 "diagram, too; may be given several times",
	 NULL, OPTION_CUSTOM, .set = set_phases},
	{"help", "-h -help", NULL, "this", NULL, OPTION_SWITCH, FIELD(wants_help)},
};

void compare_options_init(struct compare_options *o)
{
	memset(o, 0, sizeof(*o));
	run_options_init(&o->run);
	/* Native has the least to do for a miss, and is wanted anyway. */
	o->run.vm.paging = "native";
	o->format = -1;
}

void compare_options_fini(struct compare_options *o)
{
	for (unsigned i = 0; i < o->point_count; i++)
		free(o->points[i]);
}

/* ---- lists ---- */

static int add_strategy(struct compare_options *o, const char *text, struct error *e)
{
	struct mmu_config config = {0};
	char wanted[MMU_STRATEGY_TEXT_MAX];
	int r = mmu_parse_strategy(text, &config, e);

	if (r)
		return r;
	mmu_format_strategy(&config, wanted);
	for (unsigned i = 0; i < o->strategy_count; i++)
		if (!strcmp(o->strategies[i], wanted))
			return 0;
	if (o->strategy_count == COMPARE_STRATEGIES_MAX)
		return error_set(e, -E2BIG, "at most %d strategies", COMPARE_STRATEGIES_MAX);
	strcpy(o->strategies[o->strategy_count++], wanted);
	return 0;
}

static int add_profile(struct compare_options *o, const char *name, struct error *e)
{
	if (strlen(name) >= sizeof(o->profiles[0]))
		return error_set(e, -ENAMETOOLONG, "'%.40s...' is too long", name);
	for (unsigned i = 0; i < o->profile_count; i++)
		if (!strcmp(o->profiles[i], name))
			return 0;
	if (o->profile_count == COMPARE_PROFILES_MAX)
		return error_set(e, -E2BIG, "at most %d profiles", COMPARE_PROFILES_MAX);
	strcpy(o->profiles[o->profile_count++], name);
	return 0;
}

/* One word of a list; "all" is every name of the catalogue. */
static int add_word(struct compare_options *o, bool is_strategy, const char *word, struct error *e)
{
	int r = 0;

	if (strcmp(word, "all") != 0)
		return is_strategy ? add_strategy(o, word, e) : add_profile(o, word, e);
	for (size_t i = 0; !r; i++) {
		const char *name = is_strategy ? mmu_strategy_name(i, NULL) : profile_name(i);

		if (!name)
			break;
		r = is_strategy ? add_strategy(o, name, e) : add_profile(o, name, e);
	}
	return r;
}

static int add_list(struct compare_options *o, bool is_strategy, const char *list, struct error *e)
{
	char word[256];
	int r = 0;

	for (const char *at = list; !r; at++) {
		size_t length = strcspn(at, ",");

		if (!length || length >= sizeof(word))
			return error_set(e, -EINVAL, "'%.60s': %s between two commas", list,
					 length ? "too much" : "nothing");
		memcpy(word, at, length);
		word[length] = 0;
		r = add_word(o, is_strategy, word, e);
		at += length;
		if (!*at)
			break;
	}
	return r;
}

static int complete_strategies(struct compare_options *o, struct error *e)
{
	int r = add_strategy(o, "native", e);

	for (unsigned i = 0; i < o->strategy_list_count && !r; i++)
		r = add_list(o, true, o->strategy_lists[i], e);
	if (!r && !o->strategy_list_count)
		r = add_word(o, true, "all", e);
	if (r)
		return error_prefix(e, "--strategy");
	r = add_strategy(o, o->run.vm.paging, e);
	return r ? error_prefix(e, "--paging") : 0;
}

static int complete_profiles(struct compare_options *o, struct error *e)
{
	int r = 0;

	for (unsigned i = 0; i < o->profile_list_count && !r; i++)
		r = add_list(o, false, o->profile_lists[i], e);
	if (!r && !o->profile_list_count)
		r = add_profile(o, o->run.vm.profile, e);
	for (unsigned i = 0; i < o->profile_count && !r; i++) {
		struct profile *p = NULL;
		struct knob knob;

		r = profile_load(o->profiles[i], &p, e);
		for (unsigned k = 0; k < o->vary_count && !r; k++)
			if ((r = profile_find_knob(p, o->vary[k].key, &knob, e)))
				error_prefix(e, "--vary");
		profile_destroy(p);
	}
	return r;
}

/* Every strategy on every profile; the primary is its strategy on the first profile. */
static int complete_schemes(struct compare_options *o, struct error *e)
{
	struct vm_config *c = &o->run.vm;
	struct mmu_config config = {0};
	char primary[MMU_STRATEGY_TEXT_MAX];

	mmu_parse_strategy(c->paging, &config, NULL);
	mmu_format_strategy(&config, primary);
	c->profile = o->profiles[0];
	if (o->strategy_count * o->profile_count > VM_SCHEMES_MAX)
		return error_set(e, -E2BIG,
				 "%u strategies on %u profiles are %u schemes; at most %d fit one "
				 "run: leave out some of --strategy or --profile",
				 o->strategy_count, o->profile_count,
				 o->strategy_count * o->profile_count, VM_SCHEMES_MAX);
	while (strcmp(o->strategies[o->primary], primary) != 0)
		o->primary++;
	for (unsigned p = 0; p < o->profile_count; p++)
		for (unsigned s = 0; s < o->strategy_count; s++)
			if (p || s != o->primary)
				c->observers[c->observer_count++] =
					(struct vm_scheme){o->strategies[s], o->profiles[p]};
	return 0;
}

/* ---- the whole ---- */

static void complete_format(struct compare_options *o)
{
	const char *dot = o->file ? strrchr(o->file, '.') : NULL;

	for (int f = 0; o->format < 0 && dot && f < COMPARE_FORMATS; f++)
		if (!strcmp(dot + 1, format_names[f]))
			o->format = f;
	if (o->format < 0)
		o->format = COMPARE_TABLE;
}

int compare_options_parse(struct compare_options *o, int argc, char **argv, struct error *e)
{
	struct option_set sets[] = {{rows, ARRAY_COUNT(rows), o, NULL},
				    {NULL, 0, &o->run, o->run.given}};

	sets[1].rows = run_option_rows(&sets[1].count);
	int r = options_parse_sets(sets, ARRAY_COUNT(sets), argc, argv, e);
	if (r || o->wants_help)
		return r;
	if (o->run.config || o->run.wants_config)
		return error_set(e, -EINVAL, "--%s: it goes with gnomon run",
				 o->run.config ? "config" : "dump-config");
	if (o->run.wants_report)
		return error_set(e, -EINVAL,
				 "--report: it goes with gnomon run; compare has "
				 "--format and --out");
	/* The best engine for a comparison is the only one. */
	if (!strcmp(o->run.vm.engine, "auto"))
		o->run.vm.engine = "interp";
	if (strcmp(o->run.vm.engine, "interp") != 0)
		return error_set(e, -EINVAL,
				 "--engine: '%s' has a TLB of its own, behind which the strategies "
				 "that ride along would miss accesses; only interp shows them all",
				 o->run.vm.engine);
	complete_format(o);
	if (o->point_count && o->format != COMPARE_HTML)
		return error_set(e, -EINVAL, "--phases: only --format html draws a phase diagram");
	if (!o->run.serial_count)
		o->run.vm.serial[o->run.serial_count++] = "null";
	if ((r = complete_strategies(o, e)) || (r = complete_profiles(o, e)) ||
	    (r = complete_schemes(o, e)))
		return r;
	return run_options_complete(&o->run, e);
}

static const char head[] =
	"usage: gnomon compare --kernel FILE [OPTION]...\n"
	"\n"
	"Runs a guest once under every strategy at the same time: one serves the guest,\n"
	"the others ride along, each with its own tables and TLBs. Prints what each\n"
	"would have cost on each processor, by cause, against native.\n"
	"\n"
	"  gnomon compare --kernel vmlinuz --initrd rd.cpio\n"
	"  gnomon compare --kernel vmlinuz --initrd rd.cpio --out page.html \\\n"
	"      --strategy nested,nested:host-page=2M,shadow --profile all\n"
	"  gnomon compare --kernel vmlinuz --initrd rd.cpio --from-text GNOMON-INIT \\\n"
	"      --stop-after-region --vary exit.cr3_write.handling=200..4000\n"
	"  gnomon run --kernel vmlinuz --initrd rd.cpio --snapshot mark.snap\n"
	"  gnomon compare --restore mark.snap --stop-after-region    (boots no more)\n"
	"\n"
	"The guest's console is shown only with --serial stdio. A guest program brackets\n"
	"its region of interest with CPUID marks (gnomon(1)), or --from and --to do.\n";

void compare_options_help(FILE *f)
{
	static const char *const not_here[] = {"profile", "report", "format", "help"};
	size_t count;
	const struct option_row *others = run_option_rows(&count);

	fputs(head, f);
	options_print(f, rows, ARRAY_COUNT(rows));
	for (size_t i = 0; i < count; i++) {
		bool is_here = true;

		for (size_t k = 0; k < ARRAY_COUNT(not_here); k++)
			is_here = is_here && strcmp(others[i].name, not_here[k]) != 0;
		if (is_here)
			options_print(f, &others[i], 1);
	}
	fputs("\nExit code: as of gnomon run. --paging chooses the strategy that serves the "
	      "guest\n[native].\n",
	      f);
}

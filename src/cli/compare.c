/*
 * `gnomon compare`: one run that carries every scheme, in slices, between which all of them are
 * sampled; then the comparison (report/compare.h) where the options say. The main path: cmd_compare
 * -> session_open -> run_slices -> write_comparison.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/host_time.h"
#include "cli/cli.h"
#include "cli/compare_options.h"
#include "cli/session.h"
#include "report/series.h"
#include "vm/poller.h"

/* Where the length of the run is not known: samples are thinned out when there are so many. */
#define AUTO_INTERVAL 250000u
#define AUTO_SAMPLES_MAX 400u
#define PAUSED_POLL_NS 100000000u

struct comparison {
	struct session session;
	struct compare_options options;
	/* In the order of the options; vm_schemes says which of the machine's each is. */
	struct compare_scheme *schemes;
	unsigned vm_schemes[VM_SCHEMES_MAX];
	struct ledger *ledgers; /* of scheme s and vcpu v: s * cpus + v */
	const struct ledger **lists;
	bool is_region; /* the ledgers are of the region of interest */
	struct series series;
	bool wants_series; /* in the output; else it is the oracle's alone */
	bool is_auto;	   /* the interval is chosen as the run gets longer */
	uint64_t interval;
	double progress_next_s;
	bool has_progress;
};

/* ---- ledgers ---- */

/* The machine's schemes: the primary, then all others in the order of the options. */
static void order_schemes(struct comparison *c)
{
	const struct compare_options *o = &c->options;
	unsigned next = 1;

	for (unsigned i = 0; i < o->strategy_count * o->profile_count; i++)
		c->vm_schemes[i] = i == o->primary ? 0 : next++;
}

static int make_schemes(struct comparison *c, struct error *e)
{
	struct vm *vm = c->session.vm;
	unsigned schemes = vm_scheme_count(vm), cpus = vm_cpu_count(vm);

	c->schemes = calloc(schemes, sizeof(*c->schemes));
	c->ledgers = calloc((size_t)schemes * cpus, sizeof(*c->ledgers));
	c->lists = calloc((size_t)schemes * cpus, sizeof(*c->lists));
	if (!c->schemes || !c->ledgers || !c->lists)
		return error_set(e, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < schemes * cpus; i++)
		c->lists[i] = &c->ledgers[i];
	order_schemes(c);
	for (unsigned s = 0; s < schemes; s++)
		c->schemes[s] = (struct compare_scheme){
			.strategy = vm_scheme_paging(vm, c->vm_schemes[s]),
			.profile = vm_scheme_profile(vm, c->vm_schemes[s]),
			.is_virtualized = vm_scheme_is_virtualized(vm, c->vm_schemes[s]),
			.ledgers = &c->lists[(size_t)s * cpus],
		};
	series_init(&c->series, schemes, c->interval);
	return 0;
}

/* Is the region of interest somewhere else than the guest says? */
static bool is_region_configured(const struct vm_config *c)
{
	return c->region_from || c->region_to || c->region_from_text || c->region_to_text;
}

/* What all schemes have counted by now: in the region of interest if it has begun. */
static void take_ledgers(struct comparison *c)
{
	struct vm *vm = c->session.vm;
	unsigned cpus = vm_cpu_count(vm);
	struct ledger probe;

	c->is_region = vm_scheme_ledger(vm, 0, 0, true, &probe);
	for (unsigned s = 0; s < vm_scheme_count(vm); s++)
		for (unsigned v = 0; v < cpus; v++)
			vm_scheme_ledger(vm, c->vm_schemes[s], v, c->is_region,
					 &c->ledgers[(size_t)s * cpus + v]);
}

/* ---- samples ---- */

static uint64_t instructions_of(const struct comparison *c)
{
	uint64_t sum = 0;

	for (unsigned v = 0; v < vm_cpu_count(c->session.vm); v++)
		sum += ledger_total(&c->ledgers[v], EVENT_INSTRUCTION);
	return sum;
}

/* Nothing before the region, nothing after it, and not the run so far once the region begins. */
static int sample(struct comparison *c)
{
	struct vm *vm = c->session.vm;
	struct series *s = &c->series;
	bool was_region = c->is_region;

	take_ledgers(c);
	if (!c->is_region && is_region_configured(vm_config(vm)))
		return 0;
	if (c->is_region && !was_region) {
		s->count = 0;
		if (c->is_auto)
			c->interval = s->interval = AUTO_INTERVAL;
	}
	if (s->count && series_at(s, s->count - 1, 0)->instructions == instructions_of(c))
		return 0;
	int r = series_add(s, c->schemes, vm_cpu_count(vm));
	if (!r && c->is_auto && s->count > AUTO_SAMPLES_MAX) {
		series_thin(s);
		c->interval = s->interval;
	}
	return r;
}

/* ---- the run ---- */

static void show_progress(struct comparison *c)
{
	struct session *s = &c->session;
	double host_s = (double)(host_time_ns() - s->bill.start_ns) / 1e9;
	uint64_t done = vm_instructions(s->vm);

	if (!isatty(fileno(s->say)) || s->options.is_quiet || host_s < c->progress_next_s)
		return;
	fprintf(s->say, "\rgnomon: %llu million instructions, %.0f s, %.1f MIPS, %u schemes%s ",
		(unsigned long long)(done / 1000000), host_s, (double)done / host_s / 1e6,
		vm_scheme_count(s->vm), c->is_region ? ", in the region" : "");
	fflush(s->say);
	c->has_progress = true;
	c->progress_next_s = host_s + 0.5;
}

static int run_slices(struct comparison *c, struct vm_outcome *outcome, struct error *e)
{
	struct session *s = &c->session;

	s->bill.start_ns = host_time_ns();
	c->progress_next_s = 2;
	do {
		/* A slice of a paused machine is over at once: the monitor or gdb has it. */
		if (vm_is_paused(s->vm))
			poller_wait(vm_poller(s->vm), PAUSED_POLL_NS);
		vm_run_for(s->vm, c->interval, outcome);
		if (sample(c))
			return error_set(e, -ENOMEM, "no memory for another sample");
		show_progress(c);
	} while (outcome->end == VM_END_NONE);
	if (c->has_progress)
		fputs("\r\033[K", s->say);
	return 0;
}

/* ---- the end ---- */

static uint64_t peak_rss_bytes(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_SELF, &usage) ? 0 : (uint64_t)usage.ru_maxrss * 1024;
}

static const char *scope_of(const struct comparison *c)
{
	if (c->is_region)
		return "the region of interest";
	if (is_region_configured(vm_config(c->session.vm)))
		return "the whole run, for the region of interest never began";
	return "the whole run";
}

static int write_to(const struct comparison *c, const struct compare *made, FILE *f,
		    struct error *e)
{
	return compare_write(f, (enum compare_format)c->options.format, made, cli_is_fancy(f), e);
}

static int write_file(const struct comparison *c, const struct compare *made, struct error *e)
{
	const char *name = c->options.file;

	if (!name)
		return write_to(c, made, stdout, e);
	FILE *f = fopen(name, "we");
	if (!f)
		return error_set(e, -errno, "--out: cannot write '%s': %s", name, strerror(errno));
	int r = write_to(c, made, f, e);
	if (fclose(f) && !r)
		r = error_set(e, -errno, "--out: cannot write '%s': %s", name, strerror(errno));
	return r;
}

static int write_comparison(struct comparison *c, const struct vm_outcome *outcome, struct error *e)
{
	struct vm *vm = c->session.vm;
	struct compare_input input = {
		.schemes = c->schemes,
		.scheme_count = vm_scheme_count(vm),
		.primary = c->options.primary,
		.vcpu_count = vm_cpu_count(vm),
		.guest_levels = bill_guest_levels(vm),
		.engine = vm_config(vm)->engine,
		.scope = scope_of(c),
		.ending = outcome->text,
		.host_ns = host_time_ns() - c->session.bill.start_ns,
		.peak_rss_bytes = peak_rss_bytes(),
		.series = &c->series,
		.is_series_internal = !c->wants_series,
		.points = (const char *const *)c->options.points,
		.point_count = c->options.point_count,
	};
	struct compare made;
	int r = compare_init(&made, &input, e);

	for (unsigned i = 0; i < c->options.vary_count && !r; i++)
		if ((r = compare_vary(&made, &c->options.vary[i], e)))
			error_prefix(e, "--vary");
	if (!r)
		r = write_file(c, &made, e);
	compare_fini(&made);
	return r;
}

static int finish(struct comparison *c, const struct vm_outcome *outcome)
{
	struct session *s = &c->session;
	struct error e = {0};
	bool is_fault = outcome->end == VM_END_ERROR || outcome->end == VM_END_DIFFERENCE;

	if (!s->options.is_quiet || is_fault)
		session_say_outcome(s, outcome);
	if (session_check_snapshot(s) || session_print_state_hash(s) || session_write_folded(s))
		return EXIT_CODE_VMM;
	if (write_comparison(c, outcome, &e))
		return session_fail(s, &e);
	return session_exit_code(outcome);
}

static int compare(struct comparison *c)
{
	struct session *s = &c->session;
	struct vm_outcome outcome;
	struct error e = {0};

	if (session_open(s, &e) || make_schemes(c, &e) || session_enter_sandbox(s, &e) ||
	    run_slices(c, &outcome, &e))
		return session_fail(s, &e);
	session_leave_terminal(s);
	return finish(c, &outcome);
}

int cmd_compare(int argc, char **argv)
{
	struct comparison *c = calloc(1, sizeof(*c));
	struct error e = {0};
	int code;

	if (!c)
		return EXIT_CODE_VMM;
	compare_options_init(&c->options);
	if (compare_options_parse(&c->options, argc, argv, &e)) {
		code = cli_usage_error("compare", e.text);
	} else if (c->options.wants_help) {
		compare_options_help(stdout);
		code = EXIT_CODE_OK;
	} else {
		c->session = (struct session){
			.command = "compare",
			.options = c->options.run,
			.say = stderr,
			.ends_at_once = true,
			.out_file = c->options.file,
		};
		c->is_auto = !c->options.interval;
		c->wants_series = c->options.interval || c->options.format == COMPARE_HTML;
		c->interval = c->is_auto ? AUTO_INTERVAL : c->options.interval;
		code = EXIT_CODE_VMM;
		if (!session_open_log(&c->session)) {
			code = compare(c);
			series_fini(&c->series);
			session_close(&c->session);
		}
	}
	compare_options_fini(&c->options);
	free(c->schemes);
	free(c->ledgers);
	free(c->lists);
	free(c);
	return code;
}

/* The order of the measurements, and how one sample is taken. */
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/host_time.h"
#include "calibrate/private.h"
#include "calibrate/stats.h"

#define SAMPLES_MAX 31

static const struct measure_row {
	const char *name, *text, *unit;
} rows[MEASURE_COUNT] = {
	[MEASURE_FREQUENCY] = {"frequency", "clock of the core", "hz"},
	[MEASURE_L1] = {"caches.l1d", "first-level data cache", "cycles"},
	[MEASURE_L2] = {"caches.l2", "second-level cache", "cycles"},
	[MEASURE_L3] = {"caches.l3", "third-level cache", "cycles"},
	[MEASURE_DRAM] = {"caches.dram", "memory", "cycles"},
	[MEASURE_L1_4K] = {"caches.l1d.4k", "first-level data cache, random 4K pages", "cycles"},
	[MEASURE_L2_4K] = {"caches.l2.4k", "second-level cache, random 4K pages", "cycles"},
	[MEASURE_L3_4K] = {"caches.l3.4k", "third-level cache, random 4K pages", "cycles"},
	[MEASURE_DRAM_4K] = {"caches.dram.4k", "memory, random 4K pages", "cycles"},
	[MEASURE_TLB1_ENTRIES] = {"tlb.l1d", "first-level data TLB, 4K pages", "entries"},
	[MEASURE_TLB2_ENTRIES] = {"tlb.l2d", "second-level data TLB, 4K pages", "entries"},
	[MEASURE_TLB2_HIT] = {"tlb.l2_hit", "first-level miss, second-level hit", "cycles"},
	[MEASURE_TLB_WALK] = {"tlb.walk", "miss of both levels, tables cached", "cycles"},
	[MEASURE_LOCK] = {"lock", "LOCK XADD on a cached line", "cycles"},
	[MEASURE_CPUID] = {"cpuid", "CPUID leaf 0", "cycles"},
	[MEASURE_SYSCALL] = {"syscall", "cheapest system call", "cycles"},
	[MEASURE_FAULT] = {"fault", "minor page fault", "cycles"},
	[MEASURE_SIGNAL] = {"signal", "signal to a handler and back", "cycles"},
	[MEASURE_SWITCH] = {"switch", "switch to another process by a pipe", "cycles"},
	[MEASURE_EXIT_CPUID] = {"exit.cpuid", "KVM guest: CPUID, answered in the kernel", "cycles"},
	[MEASURE_EXIT_MSR_KERNEL] = {"exit.msr_kernel", "KVM guest: RDMSR, answered in the kernel",
				     "cycles"},
	[MEASURE_EXIT_CR3] = {"exit.cr3_write", "KVM guest: CR3 write", "cycles"},
	[MEASURE_EXIT_INVLPG] = {"exit.invlpg", "KVM guest: INVLPG", "cycles"},
	[MEASURE_EXIT_RDTSC] = {"exit.rdtsc", "KVM guest: RDTSC", "cycles"},
	[MEASURE_EXIT_FAULT] = {"exit.hidden_fault", "KVM guest: hidden fault, page in memory",
				"cycles"},
	[MEASURE_EXIT_PORT_READ] = {"exit.port_read", "KVM guest: IN, to user space", "cycles"},
	[MEASURE_EXIT_PORT] = {"exit.port_write", "KVM guest: OUT, to user space", "cycles"},
	[MEASURE_EXIT_MMIO_READ] = {"exit.mmio_read", "KVM guest: device read, to user space",
				    "cycles"},
	[MEASURE_EXIT_MMIO] = {"exit.mmio_write", "KVM guest: device write, to user space",
			       "cycles"},
	[MEASURE_EXIT_MSR] = {"exit.msr_read", "KVM guest: RDMSR, to user space", "cycles"},
	[MEASURE_VMM_FILL] = {"shadow.fill", "our VMM: a shadow entry built", "cycles"},
	[MEASURE_VMM_TABLE] = {"shadow.table", "our VMM: a shadow table made", "cycles"},
	[MEASURE_VMM_PREFETCH] = {"shadow.prefetch", "our VMM: an entry built ahead", "cycles"},
	[MEASURE_VMM_UPDATE] = {"shadow.update", "our VMM: an entry changed", "cycles"},
	[MEASURE_EXIT_HLT] = {"exit.hlt", "KVM guest: HLT, to user space", "cycles"},
};

const char *measure_name(enum measure_id id)
{
	return rows[id].name;
}

const char *measure_text(enum measure_id id)
{
	return rows[id].text;
}

const char *measure_unit(enum measure_id id)
{
	return rows[id].unit;
}

double now_seconds(void)
{
	return (double)host_time_ns() * 1e-9;
}

#define ADDITIONS 64
#define ADDITION_ROUNDS 2000

static double time_additions(void)
{
	double start = now_seconds();
	uint64_t sum = 0;

	/* The sum goes from round to round: nothing of two rounds can overlap. */
	for (unsigned i = 0; i < ADDITION_ROUNDS; i++)
		__asm__ volatile(".rept 64\n"
				 "add %1, %0\n"
				 ".endr\n"
				 : "+r"(sum)
				 : "r"(3ull)
				 : "cc");
	return (now_seconds() - start) / (ADDITIONS * ADDITION_ROUNDS);
}

double cycle_seconds(void)
{
	double best = time_additions();

	for (unsigned i = 0; i < 2; i++) {
		double again = time_additions();

		best = again < best ? again : best;
	}
	return best;
}

/* A negative time is a try that failed; a machine that is busy elsewhere makes some. */
static double best_of_tries(const struct sampler *s)
{
	double best = -1;

	for (unsigned i = 0; i < s->try_count; i++) {
		double took = s->once(s->opaque);

		if (took >= 0 && (best < 0 || took < best))
			best = took;
	}
	return best;
}

bool sample(const struct sampler *s, struct measure *out)
{
	double cycles[SAMPLES_MAX], seconds[SAMPLES_MAX];
	unsigned wanted = s->sample_count < SAMPLES_MAX ? s->sample_count : SAMPLES_MAX, n = 0;

	for (unsigned i = 0; i < wanted; i++) {
		seconds[n] = best_of_tries(s);
		if (seconds[n] < 0)
			continue;
		cycles[n] = seconds[n] / cycle_seconds();
		n++;
	}
	if (2 * n < wanted)
		return false;
	struct summary c = summarize(cycles, n), t = summarize(seconds, n);

	out->is_available = true;
	out->value = c.median;
	out->lowest = c.lowest;
	out->spread = c.spread;
	out->nanoseconds = t.median * 1e9;
	out->sample_count = n;
	return true;
}

void measure_refuse(struct measure *m, const char *format, ...)
{
	va_list arguments;

	*m = (struct measure){0};
	va_start(arguments, format);
	vsnprintf(m->note, sizeof(m->note), format, arguments);
	va_end(arguments);
}

void run_next(struct run *r, enum measure_id id)
{
	if (r->options->progress)
		r->options->progress(r->options->opaque, id, r->done);
	r->done++;
}

unsigned run_samples(const struct run *r)
{
	return r->options->is_quick ? 5 : 15;
}

static void measure_frequency(struct run *r)
{
	struct measure *m = &r->out->measure[MEASURE_FREQUENCY];
	double hz[SAMPLES_MAX];
	unsigned n = run_samples(r);

	run_next(r, MEASURE_FREQUENCY);
	for (unsigned i = 0; i < n; i++)
		hz[i] = 1 / cycle_seconds();
	struct summary s = summarize(hz, n);

	*m = (struct measure){.is_available = true,
			      .value = s.median,
			      .lowest = s.lowest,
			      .spread = s.spread,
			      .sample_count = n};
}

/* A switch to another core in the middle of a chase would be measured with it. */
static void stay_here(cpu_set_t *before)
{
	cpu_set_t here;
	int cpu = sched_getcpu();

	sched_getaffinity(0, sizeof(*before), before);
	if (cpu < 0)
		return;
	CPU_ZERO(&here);
	CPU_SET((size_t)cpu, &here);
	sched_setaffinity(0, sizeof(here), &here);
}

/* What is not measured after this was not asked for. */
static void refuse_all(struct calibration *out)
{
	for (int i = 0; i < MEASURE_COUNT; i++)
		if (!out->measure[i].is_available)
			measure_refuse(&out->measure[i], "not asked for");
}

int calibrate_run(const struct calibrate_options *options, struct calibration *out, struct error *e)
{
	struct run r = {.options = options, .out = out};
	time_t now = time(NULL);
	cpu_set_t before;
	struct tm tm;

	memset(out, 0, sizeof(*out));
	host_read(&out->host);
	gmtime_r(&now, &tm);
	strftime(out->date, sizeof(out->date), "%Y-%m-%d", &tm);
	stay_here(&before);
	measure_frequency(&r);
	if (options->only_exits)
		refuse_all(out);

	int rc = options->only_exits ? 0 : measure_memory(&r, e);
	if (!rc) {
		measure_costs(&r);
		measure_exits(&r);
		rc = options->only_exits ? 0 : measure_vmm(&r, e);
	}
	sched_setaffinity(0, sizeof(before), &before);
	return rc;
}

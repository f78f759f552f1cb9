/*
 * The guests: one run of a real kernel and the papers' workloads with every scheme riding along.
 *
 * The two machines are the paper's (Bae et al., NWU-EECS-10-07, 3 and 4): KVM with a 64-bit Linux
 * and TLBs tagged by ASID, Palacios with a 32-bit Linux and TLBs flushed at each exit, both on an
 * Opteron 2350. The first also carries processors that the other papers speak of. Kernels of that
 * time knew no huge pages for programs and no page-table isolation, so both are switched off.
 *
 * A workload is a command in the guest's shell between two `suite mark`s; what counts is what its
 * own marks enclose. The first part, the boot, is what came before the first mark.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "papers/private.h"

#define OLD_KERNEL \
	" mitigations=off pti=off transparent_hugepage=never nokaslr noisapnp random.trust_cpu=on"

struct workload {
	const char *name;
	const char *command, *small; /* without "suite "; small NULL: the command with --small */
	const char *command32;	     /* where a 32-bit guest needs another one */
};

static const struct workload workloads[] = {
	/* 002, figures 7 to 16 */
	{"worstcase", "worstcase --pages 2048", "worstcase --steps 200000 --pages 2048",
	 "worstcase --pages 600 --stride 4194304"},
	{"vpr", "vpr --moves 40000", "vpr --small", NULL},
	{"tpch", "tpch --rows 100000 --rounds 3", "tpch --small", NULL},
	{"kbuild", "kbuild --files 10", "kbuild --small", NULL},
	{"randomaccess", "gups --switch-every 200 --updates 300000",
	 "gups --switch-every 200 --updates 60000",
	 "gups --switch-every 200 --updates 300000 --table 33554432"},
	{"stream", "triad", "triad", NULL},
	{"dgemm", "fploop", "fploop", NULL},
	{"latency", "ctxsw", "ctxsw", NULL},
	/* 000, figure 2 */
	{"chase-16K", "chase --size 16384 --steps 2000000", "chase --size 16384 --steps 200000",
	 NULL},
	{"chase-1M", "chase --size 1048576 --steps 2000000", "chase --size 1048576 --steps 200000",
	 NULL},
	{"chase-128M", "chase --size 134217728 --steps 600000",
	 "chase --size 134217728 --steps 200000", "chase --size 67108864 --steps 600000"},
	/* 001, 004 */
	{"forkserver", "forkserver --requests 150", "forkserver --small", NULL},
	{"fork", "fork", "fork", NULL},
	{"forkexec", "forkexec", "forkexec", NULL},
	{"syscall", "syscall", "syscall", NULL},
	{"mmapstorm", "mmapstorm --operations 4000", "mmapstorm --small", NULL},
	{"newpages", "pgfault", "pgfault", NULL},
	{"intloop", "intloop", "intloop", NULL},
	{"sha256", "sha256", "sha256", NULL},
	/* The axes of the phase diagram. */
	{"dial-quiet", "dial --steps 1000000", NULL, NULL},
	{"dial-tlb", "dial --steps 1000000 --touch-every 2", NULL, NULL},
	{"dial-cr3", "dial --steps 1000000 --switch-every 2000", NULL, NULL},
	{"dial-tlb-cr3", "dial --steps 1000000 --touch-every 2 --switch-every 2000", NULL, NULL},
	{"dial-writes", "dial --steps 1000000 --remap-every 4000", NULL, NULL},
	{"dial-tlb-writes", "dial --steps 1000000 --touch-every 2 --remap-every 4000", NULL, NULL},
	{"dial-cr3-writes", "dial --steps 1000000 --switch-every 2000 --remap-every 4000", NULL,
	 NULL},
	{"dial-all", "dial --steps 1000000 --touch-every 2 --switch-every 2000 --remap-every 4000",
	 NULL, NULL},
	{"phases", "phases --steps 6000000 --size 67108864 --requests 200 --files 5",
	 "phases --small", NULL},
};

static const struct vm_scheme kvm_schemes[] = {
	{"nested", "k10-2350"},
	{"nested:walk-cache=none", "k10-2350"},
	{"nested:walk-cache=2d", "k10-2350"},
	{"nested:host-page=2M", "k10-2350"},
	{"nested:tables=confined", "k10-2350"},
	{"nested:tables=scattered", "k10-2350"},
	{"nested:tlb-tag=off", "k10-2350"},
	{"shadow", "k10-2350"},
	{"shadow:tlb-tag=off", "k10-2350"},
	{"shadow-sync", "k10-2350"},
	{"shadow-prefetch", "k10-2350"},
	{"shadow-cache", "k10-2350"},
	{"shadow-cache:sync=oos", "k10-2350"},
	{"agile", "k10-2350"},
	{"adaptive", "k10-2350"},
	{"native", "nehalem-5570"},
	{"nested", "nehalem-5570"},
	{"nested:host-page=2M", "nehalem-5570"},
	{"nested:tables=confined", "nehalem-5570"},
	{"nested:tables=scattered", "nehalem-5570"},
	{"shadow-cache:pf-filter=on", "nehalem-5570"},
	{"native", "p4-672"},
	{"shadow-cache", "p4-672"},
	{"native", "simics-002"},
	{"native", "skylake-sp"},
	{"nested", "skylake-sp"},
	{"shadow-cache:sync=oos", "skylake-sp"},
	{"adaptive", "skylake-sp"},
	{"agile", "skylake-sp"},
};

static const struct vm_scheme palacios_schemes[] = {
	{"nested:tlb-tag=off", "k10-2350"},
	{"shadow:tlb-tag=off", "k10-2350"},
	{"shadow-sync:tlb-tag=off", "k10-2350"},
	{"shadow-prefetch:tlb-tag=off", "k10-2350"},
	{"shadow-cache:tlb-tag=off", "k10-2350"},
	{"adaptive:tlb-tag=off", "k10-2350"},
	{"nested", "k10-2350"},
	{"shadow-cache", "k10-2350"},
	{"native", "simics-002"},
};

static const struct {
	const char *name, *text;
	const struct vm_scheme *schemes;
	unsigned scheme_count;
	bool is_32bit;
} machines[PAPERS_MACHINE_COUNT] = {
	{"kvm-like", "64-bit guest, four-level tables, TLB tagged by ASID, as KVM 61 had it",
	 kvm_schemes, ARRAY_COUNT(kvm_schemes), false},
	{"palacios-like",
	 "32-bit guest, two-level tables, TLB flushed at each exit, as Palacios had it",
	 palacios_schemes, ARRAY_COUNT(palacios_schemes), true},
};

const char *guest_machine_name(enum papers_machine m)
{
	return machines[m].name;
}

const char *guest_machine_text(enum papers_machine m)
{
	return machines[m].text;
}

/* ---- the run ---- */

struct collector {
	struct machine_run *run;
	enum papers_machine machine;
	const struct papers_options *options;
	struct part *part;    /* that runs; NULL between parts */
	struct ledger *begin; /* by scheme: at its region's begin */
	bool is_inside;
	bool is_lost; /* no memory */
};

static int add_part(struct machine_run *run, const char *name, unsigned scheme_count)
{
	struct part *part = &run->parts[run->part_count++];
	part->name = name;
	part->ledgers = calloc(scheme_count, sizeof(*part->ledgers));
	part->pointers = calloc(scheme_count, sizeof(*part->pointers));
	part->schemes = calloc(scheme_count, sizeof(*part->schemes));
	return part->ledgers && part->pointers && part->schemes ? 0 : -ENOMEM;
}

static void add_since(struct collector *c)
{
	unsigned count = vm_scheme_count(c->run->vm);
	for (unsigned s = 0; s < count; s++) {
		struct ledger now;
		vm_scheme_ledger(c->run->vm, s, 0, false, &now);
		for (unsigned e = 0; e < EVENT_COUNT; e++)
			for (unsigned r = 0; r < RING_COUNT; r++)
				c->part->ledgers[s].count[e][r] +=
					now.count[e][r] - c->begin[s].count[e][r];
	}
	c->part->has_run = true;
}

static void take_begin(struct collector *c)
{
	for (unsigned s = 0; s < vm_scheme_count(c->run->vm); s++)
		vm_scheme_ledger(c->run->vm, s, 0, false, &c->begin[s]);
}

static void marked(void *opaque, uint32_t mark)
{
	struct collector *c = opaque;
	if (c->part == &c->run->parts[0]) { /* the boot ends with the first mark of all */
		add_since(c);
		c->part = NULL;
	}
	if (mark >= PAPERS_MARK_FIRST && mark - PAPERS_MARK_FIRST < c->run->part_count) {
		c->part = &c->run->parts[mark - PAPERS_MARK_FIRST];
		c->is_inside = false;
		if (c->options->progress)
			c->options->progress(c->options->opaque, machines[c->machine].name,
					     c->part->name);
	} else if (mark == VM_MARK_BEGIN && c->part && !c->is_inside) {
		take_begin(c);
		c->is_inside = true;
	} else if (mark == VM_MARK_END && c->part && c->is_inside) {
		add_since(c);
		c->is_inside = false;
	}
}

/* `gnomon.run`'s text: every workload behind its mark. */
static char *make_script(const struct papers_options *o, bool is_32bit)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	if (!f)
		return NULL;
	/* Linux takes 2047 characters, and 32 words behind "--". */
	fprintf(f,
		"console=ttyS0 quiet panic=-1" OLD_KERNEL
		" gnomon.run=\"n=%u; m(){ n=$((n+1)); suite mark $n; suite $*; }; ",
		PAPERS_MARK_FIRST);
	for (unsigned i = 0; i < ARRAY_COUNT(workloads); i++) {
		const struct workload *w = &workloads[i];
		const char *command = is_32bit && w->command32 ? w->command32 : w->command;
		if (o->is_small && w->small)
			command = w->small;
		fprintf(f, "m %s%s; ", command, o->is_small && !w->small ? " --small" : "");
	}
	fputs("true\"", f);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

/* The comparison of every part that ran. */
static int compare_parts(struct machine_run *run, struct error *e)
{
	unsigned count = vm_scheme_count(run->vm);
	for (unsigned i = 0; i < run->part_count; i++) {
		struct part *part = &run->parts[i];
		for (unsigned s = 0; s < count; s++) {
			part->pointers[s] = &part->ledgers[s];
			part->schemes[s] = (struct compare_scheme){
				.strategy = vm_scheme_paging(run->vm, s),
				.profile = vm_scheme_profile(run->vm, s),
				.is_virtualized = vm_scheme_is_virtualized(run->vm, s),
				.ledgers = &part->pointers[s],
			};
		}
		part->input = (struct compare_input){
			.schemes = part->schemes,
			.scheme_count = count,
			.vcpu_count = 1,
			.engine = vm_config(run->vm)->engine,
			.scope = part->name,
		};
		part->instructions = ledger_total(&part->ledgers[0], EVENT_INSTRUCTION);
		int r = part->has_run ? compare_init(&part->compare, &part->input, e) : 0;
		if (r)
			return r;
	}
	return 0;
}

static void configure(struct vm_config *c, enum papers_machine m, const struct papers_options *o,
		      const char *append)
{
	vm_config_defaults(c);
	c->kernel = o->guest[m].kernel;
	c->initrd[0] = o->guest[m].initrd;
	c->initrd_count = 1;
	c->append = append;
	c->memory_bytes = 512ull << 20;
	c->kvm_leaves = false;
	c->paging = "native";
	c->profile = "k10-2350";
	c->has_data_caches = true;
	c->verify = o->is_verified;
	c->no_reboot = true;
	for (unsigned i = 0; i < machines[m].scheme_count; i++)
		c->observers[c->observer_count++] = machines[m].schemes[i];
}

int guest_run(struct machine_run *run, enum papers_machine m, const struct papers_options *o,
	      struct error *e)
{
	struct vm_config config;
	struct vm_outcome outcome = {.end = VM_END_NONE};
	struct collector c = {.run = run, .machine = m, .options = o};
	char *script = make_script(o, machines[m].is_32bit);
	if (!script)
		return error_set(e, -ENOMEM, "out of memory");
	configure(&config, m, o, script);
	int r = vm_create(&run->vm, &config, e);
	if (r)
		goto free_script;
	unsigned schemes = vm_scheme_count(run->vm);
	c.begin = calloc(schemes, sizeof(*c.begin));
	r = c.begin ? add_part(run, "boot", schemes) : -ENOMEM;
	for (unsigned i = 0; !r && i < ARRAY_COUNT(workloads); i++)
		r = add_part(run, workloads[i].name, schemes);
	c.part = &run->parts[0];
	if (!r)
		r = vm_observe(run->vm, (struct vm_observer){.marked = marked, .opaque = &c});
	if (r) {
		error_set(e, r, "out of memory");
		goto free_begin;
	}
	if (o->progress)
		o->progress(o->opaque, machines[m].name, "boot");
	vm_run(run->vm, &outcome);
	run->has_run = outcome.end == VM_END_POWER_OFF;
	if (!run->has_run)
		r = error_set(e, -EIO, "the %s guest did not end well: %s", machines[m].name,
			      outcome.text);
	else
		r = compare_parts(run, e);
free_begin:
	free(c.begin);
free_script:
	free(script);
	return r;
}

void guest_fini(struct machine_run *run)
{
	for (unsigned i = 0; i < run->part_count; i++) {
		compare_fini(&run->parts[i].compare);
		free(run->parts[i].ledgers);
		free(run->parts[i].pointers);
		free(run->parts[i].schemes);
	}
	vm_destroy(run->vm);
	*run = (struct machine_run){0};
}

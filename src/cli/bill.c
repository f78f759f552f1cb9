#include "cli/bill.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/host_time.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cpu/vcpu.h"
#include "engine/kvm/kvm.h"
#include "paging/mmu.h"
#include "report/measured.h"
#include "vm/vm.h"

unsigned bill_guest_levels(struct vm *vm)
{
	const struct vcpu_state *s = &vm_vcpu(vm, 0)->state;
	if (!(s->cr0 & CR0_PG))
		return 0;
	if (!(s->cr4 & CR4_PAE))
		return 2;
	if (!(s->efer & EFER_LMA))
		return 3;
	return s->cr4 & CR4_LA57 ? 5 : 4;
}

static uint64_t peak_rss_bytes(void)
{
	struct rusage usage;
	return getrusage(RUSAGE_SELF, &usage) ? 0 : (uint64_t)usage.ru_maxrss * 1024;
}

/* The ledgers: pointers to the machine's own, or to copies of what its regions counted. */
struct ledgers {
	const struct ledger *list[VM_CPUS_MAX];
	struct ledger *inside; /* NULL: the whole run */
};

static int collect(struct ledgers *l, const struct vm *vm, bool wants_regions)
{
	unsigned n = vm_cpu_count(vm);
	struct ledger probe;
	l->inside = NULL;
	for (unsigned i = 0; i < n; i++)
		l->list[i] = vm_ledger(vm, i);
	if (!wants_regions || !vm_region_ledger(vm, 0, &probe))
		return 0;
	l->inside = calloc(n, sizeof(*l->inside));
	if (!l->inside)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		vm_region_ledger(vm, i, &l->inside[i]);
		l->list[i] = &l->inside[i];
	}
	return 0;
}

/* Under kvm nothing is priced: what was measured. */
static int print_measured(struct vm *vm, const struct bill_order *order, FILE *f, struct error *e)
{
	struct kvm_statistic *statistics = calloc(KVM_STATISTICS_MAX, sizeof(*statistics));
	struct ledgers ledgers;
	struct error why = {0};
	struct measured_input input = {
		.engine = vm_config(vm)->engine,
		.translation = kvm_paging_name(kvm_host_paging()),
		.ledgers = ledgers.list,
		.vcpu_count = vm_cpu_count(vm),
		.host_ns = host_time_ns() - order->start_ns,
		.peak_rss_bytes = peak_rss_bytes(),
		.why_none = why.text,
	};
	if (!statistics || collect(&ledgers, vm, false)) {
		free(statistics);
		return error_set(e, -ENOMEM, "out of memory");
	}
	for (int event = 0; event < EVENT_COUNT; event++)
		input.is_counted[event] = vm_counts(vm, (enum event)event);
	if (!vm_kvm_statistics(vm, statistics, &input.statistic_count, &why))
		input.statistics = statistics;
	int r = report_write_measured(f, order->format, &input, e);
	free(statistics);
	return r;
}

static int print(struct vm *vm, const struct bill_order *order, bool wants_regions, FILE *f,
		 struct error *e)
{
	struct ledgers ledgers;
	if (!strcmp(vm_config(vm)->engine, "kvm"))
		return print_measured(vm, order, f, e);
	if (collect(&ledgers, vm, wants_regions))
		return error_set(e, -ENOMEM, "out of memory");
	struct clock *clock = vm_clock(vm);
	bool is_whole = !ledgers.inside;
	/* The engine has a TLB of its own: how often the processor's would have missed, nobody
	 * knows. */
	bool is_unmodelled = vm_mmu(vm, 0)->is_unmodelled;
	struct report_input input = {
		.profile = vm_profile(vm),
		.ledgers = ledgers.list,
		.vcpu_count = vm_cpu_count(vm),
		.strategy = vm_scheme_paging(vm, 0),
		.is_virtualized = mmu_is_virtualized(vm_mmu(vm, 0)),
		.guest_levels = bill_guest_levels(vm),
		.engine = vm_config(vm)->engine,
		.scope = is_whole ? NULL : "the guest's marked regions",
		.virtual_cycles = is_whole && clock->kind == CLOCK_VIRTUAL ? clock_now(clock) : 0,
		.host_ns = is_whole ? host_time_ns() - order->start_ns : 0,
		.peak_rss_bytes = peak_rss_bytes(),
		.is_unavailable = {[GROUP_TLB] = is_unmodelled, [GROUP_WALK] = is_unmodelled},
	};
	int r = report_write(f, order->format, &input, cli_is_fancy(f), e);
	free(ledgers.inside);
	return r;
}

int bill_print(struct vm *vm, const struct bill_order *order, struct error *e)
{
	if (!order->file)
		return print(vm, order, true, stdout, e);
	FILE *f = fopen(order->file, "we");
	if (!f)
		return error_set(e, -errno, "cannot write '%s': %s", order->file, strerror(errno));
	int r = print(vm, order, true, f, e);
	if (fclose(f) && !r)
		r = error_set(e, -errno, "cannot write '%s': %s", order->file, strerror(errno));
	return r;
}

void bill_print_now(struct vm *vm, const struct bill_order *order, FILE *f)
{
	struct error e = {0};
	if (print(vm, order, false, f, &e))
		log_error("--report: %s", e.text);
	fflush(f);
}

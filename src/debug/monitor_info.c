/* The monitor's `info`: registers, vcpus, exits, time, what is mapped where. */
#include <stdio.h>
#include <string.h>

#include "cpu/vcpu.h"
#include "debug/monitor_private.h"
#include "ledger/ledger.h"
#include "memory/memory.h"
#include "vm/vm.h"

typedef unsigned long long ull;

static const char *activity_name(const struct vcpu_state *s)
{
	static const char *const names[] = {"running", "halted", "waiting for SIPI", "shut down"};
	return s->activity < ARRAY_COUNT(names) ? names[s->activity] : "?";
}

static const char *mode_name(const struct vcpu *v)
{
	if (!vcpu_is_protected(v))
		return "real mode";
	if (vcpu_is_v86(v))
		return "virtual-8086 mode";
	if (vcpu_is_64bit(v))
		return "64-bit mode";
	bool is_32bit = v->state.seg[SEG_CS].attributes & ATTR_DB;
	if (vcpu_is_long_mode(v))
		return is_32bit ? "compatibility mode, 32-bit" : "compatibility mode, 16-bit";
	return is_32bit ? "protected mode, 32-bit" : "protected mode, 16-bit";
}

static void print_segment(struct monitor *m, const char *name, const struct segment_register *s)
{
	monitor_print(m, "%-3s %04x base %016llx limit %08x attributes %04x\n", name, s->selector,
		      (ull)s->base, s->limit, s->attributes);
}

static void info_registers(struct monitor *m)
{
	static const char *const gprs[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",	 "r10", "r11", "r12", "r13", "r14", "r15"};
	static const char *const segments[] = {"es", "cs", "ss", "ds", "fs", "gs"};
	const struct vcpu *v = vm_vcpu(m->vm, m->vcpu);
	const struct vcpu_state *s = &v->state;
	monitor_print(m, "vcpu %u: %s, %s, cpl %u\n", m->vcpu, activity_name(s), mode_name(v),
		      s->cpl);
	for (unsigned i = 0; i < GPR_COUNT; i += 4)
		monitor_print(m, "%-3s %016llx %-3s %016llx %-3s %016llx %-3s %016llx\n", gprs[i],
			      (ull)s->gpr[i], gprs[i + 1], (ull)s->gpr[i + 1], gprs[i + 2],
			      (ull)s->gpr[i + 2], gprs[i + 3], (ull)s->gpr[i + 3]);
	uint64_t f = vcpu_rflags(v);
	monitor_print(m, "rip %016llx rflags %08llx [%s%s%s%s%s%s%s%s%s]\n", (ull)s->rip, (ull)f,
		      f & FLAG_CF ? "C" : "-", f & FLAG_PF ? "P" : "-", f & FLAG_AF ? "A" : "-",
		      f & FLAG_ZF ? "Z" : "-", f & FLAG_SF ? "S" : "-", f & FLAG_TF ? "T" : "-",
		      f & FLAG_IF ? "I" : "-", f & FLAG_DF ? "D" : "-", f & FLAG_OF ? "O" : "-");
	for (unsigned i = 0; i < SEG_COUNT; i++)
		print_segment(m, segments[i], &s->seg[i]);
	print_segment(m, "ldt", &s->ldtr);
	print_segment(m, "tr", &s->tr);
	monitor_print(m, "gdt base %016llx limit %04x   idt base %016llx limit %04x\n",
		      (ull)s->gdtr.base, s->gdtr.limit, (ull)s->idtr.base, s->idtr.limit);
	monitor_print(m, "cr0 %08llx cr2 %016llx cr3 %016llx cr4 %08llx cr8 %llx\n", (ull)s->cr0,
		      (ull)s->cr2, (ull)s->cr3, (ull)s->cr4, (ull)s->cr8);
	monitor_print(
		m, "efer %04llx xcr0 %llx kernel_gs_base %016llx star %016llx lstar %016llx\n",
		(ull)s->efer, (ull)s->xcr0, (ull)s->kernel_gs_base, (ull)s->star, (ull)s->lstar);
	monitor_print(m, "dr0 %llx dr1 %llx dr2 %llx dr3 %llx dr6 %llx dr7 %llx\n", (ull)s->dr[0],
		      (ull)s->dr[1], (ull)s->dr[2], (ull)s->dr[3], (ull)s->dr[6], (ull)s->dr[7]);
	monitor_print(m, "fcw %04x fsw %04x ftw %02x mxcsr %08x\n", s->fpu.fcw, s->fpu.fsw,
		      s->fpu.ftw, s->fpu.mxcsr);
}

static void info_cpus(struct monitor *m)
{
	for (unsigned i = 0; i < vm_cpu_count(m->vm); i++) {
		const struct vcpu *v = vm_vcpu(m->vm, i);
		monitor_print(m, "%c vcpu %u: %s, %s, rip %016llx, %llu instructions\n",
			      i == m->vcpu ? '*' : ' ', i, activity_name(&v->state), mode_name(v),
			      (ull)v->state.rip,
			      (ull)ledger_total(vm_ledger(m->vm, i), EVENT_INSTRUCTION));
	}
}

#define EXITS_SHOWN 16u

static void info_exits(struct monitor *m)
{
	const struct ledger *l = vm_ledger(m->vm, m->vcpu);
	monitor_print(m, "exits of vcpu %u that a hardware-assisted VMM would have taken:\n",
		      m->vcpu);
	monitor_print(m, "  %-24s %14s %14s\n", "cause", "kernel", "user");
	for (unsigned i = 0; i < EVENT_COUNT; i++)
		if (event_is_exit((enum event)i) && ledger_total(l, (enum event)i))
			monitor_print(m, "  %-24s %14llu %14llu\n", event_name((enum event)i),
				      (ull)l->count[i][RING_KERNEL], (ull)l->count[i][RING_USER]);
	struct vm_traced_exit t;
	if (!vm_trace(m->vm, m->vcpu, 0, &t)) {
		monitor_print(m, "no single exits are remembered; --trace-exits does that\n");
		return;
	}
	monitor_print(m, "the last ones, newest first:\n");
	for (unsigned i = 0; i < EXITS_SHOWN && vm_trace(m->vm, m->vcpu, i, &t); i++)
		monitor_print(m, "  %14llu  %-24s near rip %016llx  %s\n", (ull)t.instruction,
			      event_name(t.event), (ull)t.rip,
			      t.ring == RING_USER ? "user" : "kernel");
}

static void info_time(struct monitor *m)
{
	struct clock *c = vm_clock(m->vm);
	uint64_t now = clock_now(c), next = clock_next_deadline(c);
	monitor_print(m, "%s time, %llu Hz: cycle %llu, %.6f s\n",
		      c->kind == CLOCK_VIRTUAL ? "virtual" : "real", (ull)c->hz, (ull)now,
		      (double)clock_ns_from_cycles(c, now) / 1e9);
	if (next == CLOCK_NEVER)
		monitor_print(m, "no timer is set\n");
	else
		monitor_print(m, "the next timer fires in %llu cycles\n",
			      (ull)(next > now ? next - now : 0));
	monitor_print(m, "%llu instructions\n", (ull)vm_instructions(m->vm));
}

static void info_devices(struct monitor *m)
{
	const struct bus *b = vm_bus(m->vm);
	const struct memory *memory = vm_memory(m->vm);
	for (unsigned i = 0; i < memory->slot_count; i++)
		monitor_print(m, "memory %012llx-%012llx RAM at host %p\n",
			      (ull)memory->slots[i].base.v,
			      (ull)(memory->slots[i].base.v + memory->slots[i].size_bytes - 1),
			      (void *)memory->slots[i].host);
	for (unsigned i = 0; i < b->mmio_range_count; i++)
		monitor_print(m, "memory %012llx-%012llx %s\n", (ull)b->mmio[i].base,
			      (ull)(b->mmio[i].base + b->mmio[i].size - 1), b->mmio[i].name);
	for (unsigned i = 0; i < b->port_range_count; i++)
		monitor_print(m, "port   %04llx-%04llx %s\n", (ull)b->ports[i].base,
			      (ull)(b->ports[i].base + b->ports[i].size - 1), b->ports[i].name);
	monitor_print(m, "accesses with nobody there: %llu ports, %llu memory\n",
		      (ull)b->unhandled_port_count, (ull)b->unhandled_mmio_count);
}

void monitor_info(struct monitor *m, const char *rest)
{
	static const struct {
		const char *name;
		void (*run)(struct monitor *m);
	} subjects[] = {
		{"registers", info_registers}, {"cpus", info_cpus},	  {"exits", info_exits},
		{"time", info_time},	       {"mem", monitor_mappings}, {"tlb", monitor_mappings},
		{"devices", info_devices},     {"mtree", info_devices},
	};
	size_t length = strcspn(rest, " ");
	for (size_t i = 0; length && i < ARRAY_COUNT(subjects); i++)
		if (!strncmp(subjects[i].name, rest, length)) {
			subjects[i].run(m);
			return;
		}
	monitor_print(m, "info about what? registers, cpus, mem, exits, time, devices\n");
}

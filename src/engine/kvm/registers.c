/*
 * The vcpu's state into KVM and out of it.
 *
 * Two parts of struct vcpu_state never go there, because their owner is on this side: the MSRs that
 * KVM's filter sends to us (MTRRs, machine checks, TSC_ADJUST, ...), and what the local APIC knows.
 * An exception or interrupt that KVM has accepted and not delivered has no place in vcpu_state:
 * run.c lets the guest take it before it leaves.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "clock/clock.h"
#include "cpu/cpuid.h"
#include "engine/kvm/private.h"
#include "paging/mmu.h"

/* ---- segments ---- */

static struct kvm_segment put_segment(const struct segment_register *s)
{
	unsigned a = s->attributes;
	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = a & ATTR_TYPE,
		.s = (a & ATTR_S) != 0,
		.dpl = (a & ATTR_DPL) >> ATTR_DPL_SHIFT,
		.present = (a & ATTR_P) != 0,
		.avl = (a & ATTR_AVL) != 0,
		.l = (a & ATTR_L) != 0,
		.db = (a & ATTR_DB) != 0,
		.g = (a & ATTR_G) != 0,
		.unusable = (a & ATTR_UNUSABLE) != 0,
	};
}

static void get_segment(const struct kvm_segment *k, struct segment_register *s)
{
	s->base = k->base;
	s->limit = k->limit;
	s->selector = k->selector;
	s->attributes =
		(uint16_t)((k->type & ATTR_TYPE) | (k->s ? ATTR_S : 0) |
			   (unsigned)k->dpl << ATTR_DPL_SHIFT | (k->present ? ATTR_P : 0) |
			   (k->avl ? ATTR_AVL : 0) | (k->l ? ATTR_L : 0) | (k->db ? ATTR_DB : 0) |
			   (k->g ? ATTR_G : 0) | (k->unusable ? ATTR_UNUSABLE : 0));
}

static struct kvm_segment *segment_at(struct kvm_sregs2 *r, unsigned i)
{
	switch (i) {
	case SEG_ES: return &r->es;
	case SEG_CS: return &r->cs;
	case SEG_SS: return &r->ss;
	case SEG_DS: return &r->ds;
	case SEG_FS: return &r->fs;
	default: return &r->gs;
	}
}

static bool has_pdptes(const struct vcpu_state *s)
{
	return (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA);
}

static uint64_t apic_base(const struct vcpu *v)
{
	uint64_t value = 0;

	if (v->apic_ops)
		v->apic_ops->read_msr(v->apic, MSR_APIC_BASE, &value);
	return value;
}

static void put_sregs(const struct vcpu *v, struct kvm_sregs2 *r)
{
	const struct vcpu_state *s = &v->state;

	memset(r, 0, sizeof(*r));
	for (unsigned i = 0; i < SEG_COUNT; i++)
		*segment_at(r, i) = put_segment(&s->seg[i]);
	r->ldt = put_segment(&s->ldtr);
	r->tr = put_segment(&s->tr);
	/* KVM takes the CPL from there. */
	r->ss.dpl = s->cpl;
	r->gdt = (struct kvm_dtable){.base = s->gdtr.base, .limit = s->gdtr.limit};
	r->idt = (struct kvm_dtable){.base = s->idtr.base, .limit = s->idtr.limit};
	r->cr0 = s->cr0;
	r->cr2 = s->cr2;
	r->cr3 = s->cr3;
	r->cr4 = s->cr4;
	r->cr8 = s->cr8;
	r->efer = s->efer;
	r->apic_base = apic_base(v);
	if (has_pdptes(s)) {
		r->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
		memcpy(r->pdptrs, s->pdpte, sizeof(r->pdptrs));
	}
}

static void get_sregs(struct kvm_sregs2 *r, struct vcpu_state *s)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		get_segment(segment_at(r, i), &s->seg[i]);
	get_segment(&r->ldt, &s->ldtr);
	get_segment(&r->tr, &s->tr);
	s->gdtr = (struct table_register){.base = r->gdt.base, .limit = r->gdt.limit};
	s->idtr = (struct table_register){.base = r->idt.base, .limit = r->idt.limit};
	s->cr0 = r->cr0;
	s->cr2 = r->cr2;
	s->cr3 = r->cr3;
	s->cr4 = r->cr4;
	s->cr8 = r->cr8;
	s->efer = r->efer;
	if (r->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
		memcpy(s->pdpte, r->pdptrs, sizeof(s->pdpte));
}

/* ---- general registers ---- */

static void put_regs(const struct vcpu *v, struct kvm_regs *r)
{
	const uint64_t *g = v->state.gpr;

	*r = (struct kvm_regs){
		.rax = g[GPR_RAX],
		.rcx = g[GPR_RCX],
		.rdx = g[GPR_RDX],
		.rbx = g[GPR_RBX],
		.rsp = g[GPR_RSP],
		.rbp = g[GPR_RBP],
		.rsi = g[GPR_RSI],
		.rdi = g[GPR_RDI],
		.r8 = g[GPR_R8],
		.r9 = g[GPR_R9],
		.r10 = g[GPR_R10],
		.r11 = g[GPR_R11],
		.r12 = g[GPR_R12],
		.r13 = g[GPR_R13],
		.r14 = g[GPR_R14],
		.r15 = g[GPR_R15],
		.rip = v->state.rip,
		.rflags = vcpu_rflags(v),
	};
}

static void get_regs(const struct kvm_regs *r, struct vcpu *v)
{
	const uint64_t values[GPR_COUNT] = {
		[GPR_RAX] = r->rax, [GPR_RCX] = r->rcx, [GPR_RDX] = r->rdx, [GPR_RBX] = r->rbx,
		[GPR_RSP] = r->rsp, [GPR_RBP] = r->rbp, [GPR_RSI] = r->rsi, [GPR_RDI] = r->rdi,
		[GPR_R8] = r->r8,   [GPR_R9] = r->r9,	[GPR_R10] = r->r10, [GPR_R11] = r->r11,
		[GPR_R12] = r->r12, [GPR_R13] = r->r13, [GPR_R14] = r->r14, [GPR_R15] = r->r15,
	};

	memcpy(v->state.gpr, values, sizeof(values));
	v->state.rip = r->rip;
	vcpu_set_rflags(v, r->rflags);
}

/* ---- MSRs that KVM keeps ---- */

#define MSRS_MAX 16

union msr_list {
	struct kvm_msrs head;
	char bytes[sizeof(struct kvm_msrs) + MSRS_MAX * sizeof(struct kvm_msr_entry)];
};

/* Calls `each` with every register that lives in KVM and its place in the state. */
static unsigned list_msrs(struct vcpu *v, uint32_t index[MSRS_MAX], uint64_t *field[MSRS_MAX])
{
	struct vcpu_state *s = &v->state;
	const struct {
		uint32_t index;
		uint64_t *field;
		bool is_there;
	} rows[] = {
		{MSR_STAR, &s->star, true},
		{MSR_LSTAR, &s->lstar, true},
		{MSR_CSTAR, &s->cstar, true},
		{MSR_FMASK, &s->fmask, true},
		{MSR_KERNEL_GS_BASE, &s->kernel_gs_base, true},
		{MSR_SYSENTER_CS, &s->sysenter_cs, true},
		{MSR_SYSENTER_ESP, &s->sysenter_esp, true},
		{MSR_SYSENTER_EIP, &s->sysenter_eip, true},
		{MSR_PAT, &s->pat, true},
		{MSR_TSC_AUX, &s->tsc_aux, cpu_has(v->model, FEATURE_RDTSCP)},
		{MSR_SPEC_CTRL, &s->spec_ctrl, cpu_has(v->model, FEATURE_SPEC_CTRL)},
	};
	unsigned n = 0;

	_Static_assert(ARRAY_COUNT(rows) <= MSRS_MAX, "they fit");
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		if (rows[i].is_there) {
			index[n] = rows[i].index;
			field[n++] = rows[i].field;
		}
	return n;
}

static int transfer_msrs(struct kvm_vcpu *c, bool is_put)
{
	union msr_list list = {.bytes = {0}};
	uint32_t index[MSRS_MAX];
	uint64_t *field[MSRS_MAX];
	unsigned n = list_msrs(c->v, index, field);

	list.head.nmsrs = n;
	for (unsigned i = 0; i < n; i++)
		list.head.entries[i] = (struct kvm_msr_entry){.index = index[i], .data = *field[i]};
	int done = ioctl(c->cpu.fd, is_put ? KVM_SET_MSRS : KVM_GET_MSRS, &list);
	if (done < 0)
		return -errno;
	if (done != (int)n)
		return -EINVAL;
	for (unsigned i = 0; i < n && !is_put; i++)
		*field[i] = list.head.entries[i].data;
	return 0;
}

/* ---- debug registers, events ---- */

static void put_debug(const struct vcpu_state *s, struct kvm_debugregs *d)
{
	*d = (struct kvm_debugregs){.dr6 = s->dr[6] | s->pending_db, .dr7 = s->dr[7]};
	memcpy(d->db, s->dr, sizeof(d->db));
}

static void get_debug(const struct kvm_debugregs *d, struct vcpu_state *s)
{
	memcpy(s->dr, d->db, sizeof(d->db));
	s->dr[6] = d->dr6;
	s->dr[7] = d->dr7;
}

static void put_events(const struct vcpu_state *s, struct kvm_vcpu_events *e)
{
	*e = (struct kvm_vcpu_events){.flags = KVM_VCPUEVENT_VALID_SHADOW |
					       KVM_VCPUEVENT_VALID_NMI_PENDING};
	if (s->interrupt_shadow == SHADOW_STI)
		e->interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	else if (s->interrupt_shadow == SHADOW_MOV_SS)
		e->interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	e->nmi.masked = s->nmi_blocked;
	/* The debug trap that waits for the end of the instruction: it is over. */
	e->exception.injected = s->pending_db != 0;
	e->exception.nr = s->pending_db ? VECTOR_DB : 0;
}

static void get_events(const struct kvm_vcpu_events *e, struct vcpu_state *s)
{
	s->interrupt_shadow = e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? SHADOW_MOV_SS
			      : e->interrupt.shadow			      ? SHADOW_STI
									      : SHADOW_NONE;
	s->nmi_blocked = e->nmi.masked;
	s->pending_db = 0;
}

bool kvm_is_delivering(struct kvm_vcpu *c)
{
	struct kvm_vcpu_events e;

	if (ioctl(c->cpu.fd, KVM_GET_VCPU_EVENTS, &e) < 0)
		return false;
	return e.exception.injected || e.exception.pending || e.interrupt.injected ||
	       e.nmi.injected || e.nmi.pending;
}

/* ---- all of it ---- */

/* An ioctl of a part; remembers which it was. */
static int part(const struct kvm_vcpu *c, unsigned long request, void *argument, const char *name,
		const char **what)
{
	*what = name;
	return ioctl(c->cpu.fd, request, argument) < 0 ? -errno : 0;
}

/* In KVM's order: what follows is checked against what came before. */
int kvm_registers_put(struct kvm_vcpu *c, const char **what)
{
	const struct vcpu_state *s = &c->v->state;
	struct kvm_sregs2 sregs;
	struct kvm_regs regs;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = s->xcr0}}};
	bool has_xsave = cpu_has(c->v->model, FEATURE_XSAVE);
	int r;

	put_sregs(c->v, &sregs);
	put_regs(c->v, &regs);
	put_debug(s, &debug);
	put_events(s, &events);
	kvm_xstate_put(&s->fpu, cpu_has(c->v->model, FEATURE_AVX), &xsave);
	if ((r = part(c, KVM_SET_SREGS2, &sregs, "segments and control registers", what)) ||
	    (r = part(c, KVM_SET_REGS, &regs, "general registers", what)) ||
	    (has_xsave && (r = part(c, KVM_SET_XCRS, &xcrs, "XCR0", what))) ||
	    (r = part(c, KVM_SET_XSAVE, &xsave, "x87 and vector registers", what)) ||
	    (r = part(c, KVM_SET_DEBUGREGS, &debug, "debug registers", what)) ||
	    (r = part(c, KVM_SET_VCPU_EVENTS, &events, "pending events", what)))
		return r;
	*what = "MSRs";
	return transfer_msrs(c, true);
}

int kvm_registers_get(struct kvm_vcpu *c, const char **what)
{
	struct vcpu_state *s = &c->v->state;
	struct kvm_sregs2 sregs;
	struct kvm_regs regs;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs = {0};
	bool has_xsave = cpu_has(c->v->model, FEATURE_XSAVE);
	int r;

	if ((r = part(c, KVM_GET_SREGS2, &sregs, "segments and control registers", what)) ||
	    (r = part(c, KVM_GET_REGS, &regs, "general registers", what)) ||
	    (r = part(c, KVM_GET_XSAVE, &xsave, "x87 and vector registers", what)) ||
	    (has_xsave && (r = part(c, KVM_GET_XCRS, &xcrs, "XCR0", what))) ||
	    (r = part(c, KVM_GET_DEBUGREGS, &debug, "debug registers", what)) ||
	    (r = part(c, KVM_GET_VCPU_EVENTS, &events, "pending events", what)))
		return r;
	get_sregs(&sregs, s);
	get_regs(&regs, c->v);
	kvm_xstate_get(&xsave, &s->fpu);
	if (has_xsave && xcrs.nr_xcrs)
		s->xcr0 = xcrs.xcrs[0].value;
	get_debug(&debug, s);
	get_events(&events, s);
	bool is_protected = (s->cr0 & CR0_PE) != 0;
	s->cpl = !is_protected ? 0 : s->rflags & FLAG_VM ? 3 : sregs.ss.dpl;
	*what = "MSRs";
	return transfer_msrs(c, false);
}

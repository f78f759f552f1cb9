/*
 * Control and debug registers: MOV to and from CR0, CR2, CR3, CR4, CR8 and the debug registers,
 * CLTS, LMSW, SMSW, and the invalidation of translations.
 *
 * A write checks every combination that volume 2's MOV lists, then stores, then tells the MMU what
 * changed and the engine that its assumptions are void. Everything that writes ends its block.
 */
#include "cpu/msr.h"
#include "engine/interp/system.h"
#include "memory/memory.h"

#define CR0_MASK \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR0_LMSW 0xfull
#define DR6_WRITABLE 0xe00full
#define DR6_FIXED 0xffff0ff0ull
#define DR7_WRITABLE 0xffff23ffull
#define DR7_FIXED 0x400ull
#define DR_GENERAL_DETECT BIT(13)
#define PDPTE_RESERVED_LOW 0x1e6ull /* bits 8:5 and 2:1 */

/* ---- writes ---- */

struct controls {
	uint64_t cr0, cr4, efer;
};

static struct controls controls_now(const struct vcpu_state *s)
{
	return (struct controls){s->cr0, s->cr4, s->efer};
}

static void controls_changed(struct interp_vcpu *c, struct controls old)
{
	mmu_controls_changed(c->mmu, old.cr0, old.cr4, old.efer);
	interp_mode_changed(c);
}

void load_pdptes(struct interp_vcpu *c, const struct insn *i, uint64_t cr3)
{
	uint64_t entries[4];
	uint64_t reserved = PDPTE_RESERVED_LOW | ~bits(~0ull, c->v->model->physical_bits - 1, 0);
	uint8_t *host = memory_host(c->memory, gpa(cr3 & 0xffffffe0u), sizeof(entries));

	for (unsigned n = 0; n < 4; n++) {
		entries[n] = 0;
		if (host)
			__builtin_memcpy(&entries[n], host + 8 * n, 8);
		if ((entries[n] & PTE_P) && (entries[n] & reserved))
			raise_gp0(c, i);
	}
	__builtin_memcpy(c->s->pdpte, entries, sizeof(entries));
}

/* Entering and leaving paging, and with it long mode (SDM 3A 9.8.5). Returns the new EFER. */
static uint64_t check_paging_change(struct interp_vcpu *c, const struct insn *i, uint64_t cr0)
{
	const struct vcpu_state *s = c->s;
	bool is_code64 = is_long(s) && (s->seg[SEG_CS].attributes & ATTR_L);

	if (cr0 & CR0_PG) {
		if (!(s->efer & EFER_LME))
			return s->efer;
		if (!(s->cr4 & CR4_PAE) || (s->seg[SEG_CS].attributes & ATTR_L) ||
		    !(s->tr.attributes & 8))
			raise_gp0(c, i);
		return s->efer | EFER_LMA;
	}
	if (is_code64 || (s->cr4 & CR4_PCIDE))
		raise_gp0(c, i);
	return s->efer & ~EFER_LMA;
}

static void write_cr0(struct interp_vcpu *c, const struct insn *i, uint64_t value)
{
	struct vcpu_state *s = c->s;
	struct controls old = controls_now(s);
	uint64_t efer = s->efer;

	if (value >> 32)
		raise_gp0(c, i);
	value = (value & CR0_MASK) | CR0_ET;
	if (((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
		raise_gp0(c, i);
	if ((value ^ s->cr0) & CR0_PG)
		efer = check_paging_change(c, i, value);
	if (uses_pdptes(value, s->cr4, efer) && ((value ^ s->cr0) & (CR0_PG | CR0_CD | CR0_NW)))
		load_pdptes(c, i, s->cr3);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_CR0_WRITE);
	s->cr0 = value;
	s->efer = efer;
	if (!(value & CR0_PE))
		s->cpl = 0;
	controls_changed(c, old);
	ledger_exit_end(c->ledger, EVENT_EXIT_CR0_WRITE, start);
}

static void write_cr3(struct interp_vcpu *c, const struct insn *i, uint64_t value)
{
	struct vcpu_state *s = c->s;
	bool no_flush = false;

	if (is_long(s)) {
		no_flush = (s->cr4 & CR4_PCIDE) && (value & CR3_NO_FLUSH);
		if (no_flush)
			value &= ~CR3_NO_FLUSH;
		if (value & ~bits(~0ull, c->v->model->physical_bits - 1, 0))
			raise_gp0(c, i);
	} else if (uses_pdptes(s->cr0, s->cr4, s->efer)) {
		load_pdptes(c, i, value);
	}
	s->cr3 = value;
	mmu_cr3_written(c->mmu, no_flush);
	interp_mode_changed(c);
}

static void write_cr4(struct interp_vcpu *c, const struct insn *i, uint64_t value)
{
	struct vcpu_state *s = c->s;
	struct controls old = controls_now(s);
	uint64_t changed = value ^ s->cr4;

	if (value & ~cpu_cr4_mask(c->v->model))
		raise_gp0(c, i);
	if (is_long(s) && (!(value & CR4_PAE) || (changed & CR4_LA57)))
		raise_gp0(c, i);
	if ((changed & value & CR4_PCIDE) && (!is_long(s) || (s->cr3 & 0xfff)))
		raise_gp0(c, i);
	if (uses_pdptes(s->cr0, value, s->efer) &&
	    (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP)))
		load_pdptes(c, i, s->cr3);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_CR4_WRITE);
	s->cr4 = value;
	controls_changed(c, old);
	ledger_exit_end(c->ledger, EVENT_EXIT_CR4_WRITE, start);
}

static void write_cr8(struct interp_vcpu *c, const struct insn *i, uint64_t value)
{
	if (value & ~0xfull)
		raise_gp0(c, i);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_CR8_WRITE);
	interp_sync_clock(c, i);
	c->s->cr8 = value;
	if (c->v->apic_ops && c->v->apic_ops->set_tpr)
		c->v->apic_ops->set_tpr(c->v->apic, (uint8_t)(value << 4));
	interp_attend(c);
	ledger_exit_end(c->ledger, EVENT_EXIT_CR8_WRITE, start);
}

HANDLER(op_mov_to_control)
{
	uint64_t value = s->gpr[i->rm];

	require_cpl0(c, i);
	if (i->mode != 64)
		value = (uint32_t)value;
	switch (i->sub) {
	case 0: write_cr0(c, i, value); break;
	case 2: s->cr2 = value; break;
	case 3: write_cr3(c, i, value); break;
	case 4: write_cr4(c, i, value); break;
	default: write_cr8(c, i, value); break;
	}
	FINISH;
}

static uint64_t read_cr8(struct interp_vcpu *c)
{
	if (c->v->apic_ops && c->v->apic_ops->get_tpr)
		c->s->cr8 = c->v->apic_ops->get_tpr(c->v->apic) >> 4;
	return c->s->cr8;
}

HANDLER(op_mov_from_control)
{
	uint64_t value;

	require_cpl0(c, i);
	switch (i->sub) {
	case 0: value = s->cr0; break;
	case 2: value = s->cr2; break;
	case 3: value = s->cr3; break;
	case 4: value = s->cr4; break;
	default: value = read_cr8(c); break;
	}
	s->gpr[i->rm] = i->mode == 64 ? value : (uint32_t)value;
	NEXT;
}

HANDLER(op_clts)
{
	struct controls old = controls_now(s);

	require_cpl0(c, i);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_CR0_WRITE);
	s->cr0 &= ~CR0_TS;
	controls_changed(c, old);
	ledger_exit_end(c->ledger, EVENT_EXIT_CR0_WRITE, start);
	FINISH;
}

static uint64_t read_rm16(struct interp_vcpu *c, const struct insn *i)
{
	if (i->flags & INSN_MEMORY)
		return interp_read_2(c, i, interp_ea(c, i, 2, ACCESS_READ));
	return (uint16_t)c->s->gpr[i->rm];
}

HANDLER(op_lmsw)
{
	struct controls old = controls_now(s);

	require_cpl0(c, i);
	uint64_t value = read_rm16(c, i) & CR0_LMSW;
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_CR0_WRITE);
	/* PE can be set but not cleared. */
	s->cr0 = (s->cr0 & ~(CR0_LMSW & ~CR0_PE)) | value;
	controls_changed(c, old);
	ledger_exit_end(c->ledger, EVENT_EXIT_CR0_WRITE, start);
	FINISH;
}

HANDLER(op_smsw)
{
	if ((s->cr4 & CR4_UMIP) && s->cpl)
		raise_gp0(c, i);
	if (i->flags & INSN_MEMORY)
		interp_write_2(c, i, interp_ea(c, i, 2, ACCESS_WRITE), (uint16_t)s->cr0);
	else
		register_write(s, i->rm, s->cr0, i->op_bytes);
	NEXT;
}

/* ---- debug registers ---- */

/* Checks that come before the access; returns the register's number with 4 and 5 resolved, and when
 * the exit began. */
static unsigned check_debug_access(struct interp_vcpu *c, const struct insn *i, uint64_t *start)
{
	struct vcpu_state *s = c->s;
	unsigned n = i->sub;

	if ((n == 4 || n == 5) && (s->cr4 & CR4_DE))
		interp_raise(c, i, VECTOR_UD);
	require_cpl0(c, i);
	if (s->dr[7] & DR_GENERAL_DETECT) {
		s->dr[6] |= DR_GENERAL_DETECT;
		interp_raise(c, i, VECTOR_DB);
	}
	*start = interp_charge_exit(c, EVENT_EXIT_DR);
	return n == 4 || n == 5 ? n + 2 : n;
}

HANDLER(op_mov_to_debug)
{
	uint64_t start;
	unsigned n = check_debug_access(c, i, &start);
	uint64_t value = i->mode == 64 ? s->gpr[i->rm] : (uint32_t)s->gpr[i->rm];

	if (n >= 6 && value >> 32)
		raise_gp0(c, i);
	if (n == 6)
		value = (value & DR6_WRITABLE) | DR6_FIXED;
	else if (n == 7)
		value = (value & DR7_WRITABLE) | DR7_FIXED;
	s->dr[n] = value;
	interp_mode_changed(c);
	ledger_exit_end(c->ledger, EVENT_EXIT_DR, start);
	FINISH;
}

HANDLER(op_mov_from_debug)
{
	uint64_t start;
	uint64_t value = s->dr[check_debug_access(c, i, &start)];

	s->gpr[i->rm] = i->mode == 64 ? value : (uint32_t)value;
	ledger_exit_end(c->ledger, EVENT_EXIT_DR, start);
	NEXT;
}

/* ---- translations ---- */

HANDLER(op_invlpg)
{
	uint64_t linear = interp_ea_offset(c, i);

	require_cpl0(c, i);
	if (!(c->key & KEY_CODE64))
		linear = (uint32_t)(s->seg[i->seg].base + linear);
	else if (i->seg == SEG_FS || i->seg == SEG_GS)
		linear += s->seg[i->seg].base;
	if (vcpu_is_canonical(s, linear) || !is_long(s))
		mmu_invlpg(c->mmu, gva(linear));
	FINISH;
}

HANDLER(op_invpcid)
{
	uint64_t type = i->mode == 64 ? s->gpr[i->reg] : (uint32_t)s->gpr[i->reg];
	uint64_t descriptor[2];

	require_cpl0(c, i);
	uint64_t linear = interp_ea(c, i, 16, ACCESS_READ);
	interp_read_bytes(c, i, linear, descriptor, 16);
	if (type > 3 || descriptor[0] >> 12)
		raise_gp0(c, i);
	if (type == 0 && !vcpu_is_canonical(s, descriptor[1]))
		raise_gp0(c, i);
	if (type < 2 && !(s->cr4 & CR4_PCIDE) && descriptor[0])
		raise_gp0(c, i);
	mmu_invpcid(c->mmu, (unsigned)type, (unsigned)descriptor[0], gva(descriptor[1]));
	FINISH;
}

/* ---- lowering ---- */

static int control_operand(const ZydisDecodedOperand *o)
{
	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || o->reg.value < ZYDIS_REGISTER_CR0 ||
	    o->reg.value > ZYDIS_REGISTER_CR15)
		return -1;
	return (int)(o->reg.value - ZYDIS_REGISTER_CR0);
}

static int debug_operand(const ZydisDecodedOperand *o)
{
	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || o->reg.value < ZYDIS_REGISTER_DR0 ||
	    o->reg.value > ZYDIS_REGISTER_DR7)
		return -1;
	return (int)(o->reg.value - ZYDIS_REGISTER_DR0);
}

static bool is_control_register(int n)
{
	return n == 0 || n == 2 || n == 3 || n == 4 || n == 8;
}

static bool lower_mov(struct lowering *l)
{
	struct insn *out = l->out;
	const ZydisDecodedOperand *to = &l->operands[0], *from = &l->operands[1];

	if (is_control_register(control_operand(to))) {
		out->sub = (uint8_t)control_operand(to);
		out->exec = op_mov_to_control;
	} else if (is_control_register(control_operand(from))) {
		out->sub = (uint8_t)control_operand(from);
		out->exec = op_mov_from_control;
	} else if (debug_operand(to) >= 0) {
		out->sub = (uint8_t)debug_operand(to);
		out->exec = op_mov_to_debug;
	} else if (debug_operand(from) >= 0) {
		out->sub = (uint8_t)debug_operand(from);
		out->exec = op_mov_from_debug;
	} else {
		return false;
	}
	l->ends_block = out->exec == op_mov_to_control || out->exec == op_mov_to_debug;
	const ZydisDecodedOperand *general = l->ends_block ? from : to;
	out->rm = (uint8_t)lower_register(general->reg.value);
	return true;
}

static bool lower_rm(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS), bool ends_block)
{
	const ZydisDecodedOperand *o = &l->operands[0];

	if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
		lower_memory(l, o);
	else
		l->out->rm = (uint8_t)lower_register(o->reg.value);
	l->out->exec = exec;
	l->ends_block = ends_block;
	return true;
}

static bool lower_invpcid(struct lowering *l)
{
	l->out->reg = (uint8_t)lower_register(l->operands[0].reg.value);
	lower_memory(l, &l->operands[1]);
	l->out->exec = op_invpcid;
	return l->ends_block = true;
}

bool lower_control(struct lowering *l)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_MOV: return lower_mov(l);
	case ZYDIS_MNEMONIC_LMSW: return lower_rm(l, op_lmsw, true);
	case ZYDIS_MNEMONIC_SMSW: return lower_rm(l, op_smsw, false);
	case ZYDIS_MNEMONIC_INVLPG: return lower_rm(l, op_invlpg, true);
	case ZYDIS_MNEMONIC_INVPCID: return lower_invpcid(l);
	case ZYDIS_MNEMONIC_CLTS: l->out->exec = op_clts; return l->ends_block = true;
	default: return false;
	}
}

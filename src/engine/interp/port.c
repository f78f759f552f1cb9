/*
 * IN, OUT, INS, OUTS: permission by IOPL and the TSS's I/O map, then the bus.
 *
 * The bus is touched only by an instruction that runs alone in its block, so that the time a device
 * sees and the interrupts it raises are exact. A REP form does a bounded number of transfers and
 * then continues as a new instruction, which is where interrupts get in.
 */
#include "bus/bus.h"
#include "engine/interp/system.h"

#define PIECE_TRANSFERS 1024
#define TSS_MAP_BASE 0x66

/* SDM 1, 19.5.2: the map's bits of all ports that are touched must be 0. */
static bool map_allows(struct interp_vcpu *c, const struct insn *i, unsigned port,
		       unsigned size_bytes)
{
	const struct segment_register *tr = &c->s->tr;

	if ((tr->attributes & ATTR_UNUSABLE) || !(tr->attributes & 8) ||
	    tr->limit < TSS_MAP_BASE + 1)
		return false;
	unsigned at = (unsigned)system_read(c, i, tr->base + TSS_MAP_BASE, 2) + port / 8;
	if (at + 1 > tr->limit)
		return false;
	unsigned map = (unsigned)system_read(c, i, tr->base + at, 2);
	return !(map >> (port % 8) & ((1u << size_bytes) - 1));
}

static void check_permission(struct interp_vcpu *c, const struct insn *i, unsigned port,
			     unsigned size_bytes)
{
	const struct vcpu_state *s = c->s;

	if (!(s->cr0 & CR0_PE) || (!is_v86(s) && s->cpl <= iopl(s)))
		return;
	if (!map_allows(c, i, port, size_bytes))
		raise_gp0(c, i);
}

static uint64_t port_read(struct interp_vcpu *c, const struct insn *i, unsigned port,
			  unsigned size_bytes)
{
	bool handled;

	uint64_t start = interp_charge_exit(c, EVENT_EXIT_PORT_READ);
	interp_sync_clock(c, i);
	uint64_t value = bus_port_read(c->bus, c->v->index, (uint16_t)port, size_bytes, &handled);
	if (!handled)
		ledger_charge(c->ledger, EVENT_UNHANDLED_PORT);
	interp_spend(c, c->device_cycles);
	debug_port_access(c, port, size_bytes);
	attend_bus(c);
	ledger_exit_end(c->ledger, EVENT_EXIT_PORT_READ, start);
	return value;
}

static void port_write(struct interp_vcpu *c, const struct insn *i, unsigned port,
		       unsigned size_bytes, uint64_t value)
{
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_PORT_WRITE);

	interp_sync_clock(c, i);
	if (!bus_port_write(c->bus, c->v->index, (uint16_t)port, size_bytes, value))
		ledger_charge(c->ledger, EVENT_UNHANDLED_PORT);
	interp_spend(c, c->device_cycles);
	debug_port_access(c, port, size_bytes);
	attend_bus(c);
	ledger_exit_end(c->ledger, EVENT_EXIT_PORT_WRITE, start);
}

/* ---- IN, OUT ---- */

static unsigned port_operand(const struct vcpu_state *s, const struct insn *i)
{
	return i->sub ? (uint16_t)s->gpr[GPR_RDX] : (uint8_t)i->imm;
}

HANDLER(op_in)
{
	unsigned port = port_operand(s, i);

	interp_alone(c, i);
	check_permission(c, i, port, i->op_bytes);
	register_write(s, GPR_RAX, port_read(c, i, port, i->op_bytes), i->op_bytes);
	FINISH;
}

HANDLER(op_out)
{
	unsigned port = port_operand(s, i);

	interp_alone(c, i);
	check_permission(c, i, port, i->op_bytes);
	port_write(c, i, port, i->op_bytes, s->gpr[GPR_RAX] & mask_bytes(i->op_bytes));
	FINISH;
}

/* ---- INS, OUTS ---- */

static void advance(struct vcpu_state *s, const struct insn *i, unsigned reg, int64_t by)
{
	uint64_t mask = mask_bytes(i->address_bytes);
	uint64_t value = s->gpr[reg] + (uint64_t)by;

	if (i->address_bytes == 2)
		s->gpr[reg] = (s->gpr[reg] & ~mask) | (value & mask);
	else
		s->gpr[reg] = value & mask;
}

static void transfer_in(struct interp_vcpu *c, const struct insn *i, unsigned port, unsigned n)
{
	uint64_t offset = c->s->gpr[GPR_RDI] & mask_bytes(i->address_bytes);
	uint64_t linear = interp_linear(c, i, SEG_ES, offset, n, ACCESS_WRITE);

	interp_probe_write(c, i, linear, n);
	data_write(c, i, linear, port_read(c, i, port, n), n);
	advance(c->s, i, GPR_RDI, c->s->rflags & FLAG_DF ? -(int64_t)n : (int64_t)n);
}

static void transfer_out(struct interp_vcpu *c, const struct insn *i, unsigned port, unsigned n)
{
	uint64_t offset = c->s->gpr[GPR_RSI] & mask_bytes(i->address_bytes);
	uint64_t linear = interp_linear(c, i, i->seg, offset, n, ACCESS_READ);

	port_write(c, i, port, n, data_read(c, i, linear, n));
	advance(c->s, i, GPR_RSI, c->s->rflags & FLAG_DF ? -(int64_t)n : (int64_t)n);
}

/* Sub 0 is INS, 1 is OUTS. */
HANDLER(op_string)
{
	unsigned port = (uint16_t)s->gpr[GPR_RDX], n = i->op_bytes;
	bool repeats = (i->flags & (INSN_REP | INSN_REPNE)) != 0;
	uint64_t mask = mask_bytes(i->address_bytes);
	unsigned left = c->attention & ATTENTION_STEP ? 1 : PIECE_TRANSFERS;

	if (repeats && !(s->gpr[GPR_RCX] & mask))
		FINISH;
	interp_alone(c, i);
	check_permission(c, i, port, n);
	do {
		if (i->sub)
			transfer_out(c, i, port, n);
		else
			transfer_in(c, i, port, n);
		if (!repeats)
			FINISH;
		advance(s, i, GPR_RCX, -1);
		if (!(s->gpr[GPR_RCX] & mask))
			FINISH;
	} while (--left && !(atomic_load_explicit(&c->v->requests, memory_order_relaxed)) &&
		 !(c->attention & ATTENTION_EXIT));
	s->rip = s->gpr[REG_BLOCK] + i->offset;
	c->taken = 2;
}

/* ---- lowering ---- */

static bool lower_port_operand(struct lowering *l, unsigned operand,
			       void (*exec)(HANDLER_ARGUMENTS))
{
	const ZydisDecodedOperand *o = &l->operands[operand];
	const ZydisDecodedOperand *data = &l->operands[1 - operand];

	l->out->sub = o->type == ZYDIS_OPERAND_TYPE_REGISTER;
	if (!l->out->sub)
		l->out->imm = o->imm.value.u & 0xff;
	l->out->op_bytes = (uint8_t)(data->size / 8);
	l->out->exec = exec;
	return l->ends_block = true;
}

static unsigned source_segment(const struct lowering *l)
{
	for (unsigned n = 0; n < l->d->operand_count; n++)
		if (l->operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			struct insn scratch = *l->out;
			struct lowering copy = *l;
			copy.out = &scratch;
			lower_memory(&copy, &l->operands[n]);
			return scratch.seg;
		}
	return SEG_DS;
}

static bool lower_string_port(struct lowering *l, unsigned size_bytes, bool is_out)
{
	l->out->sub = is_out;
	l->out->op_bytes = (uint8_t)size_bytes;
	l->out->seg = (uint8_t)(is_out ? source_segment(l) : SEG_ES);
	l->out->exec = op_string;
	return l->ends_block = true;
}

bool lower_port(struct lowering *l)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_IN: return lower_port_operand(l, 1, op_in);
	case ZYDIS_MNEMONIC_OUT: return lower_port_operand(l, 0, op_out);
	case ZYDIS_MNEMONIC_INSB: return lower_string_port(l, 1, false);
	case ZYDIS_MNEMONIC_INSW: return lower_string_port(l, 2, false);
	case ZYDIS_MNEMONIC_INSD: return lower_string_port(l, 4, false);
	case ZYDIS_MNEMONIC_OUTSB: return lower_string_port(l, 1, true);
	case ZYDIS_MNEMONIC_OUTSW: return lower_string_port(l, 2, true);
	case ZYDIS_MNEMONIC_OUTSD: return lower_string_port(l, 4, true);
	default: return false;
	}
}

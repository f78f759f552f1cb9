/*
 * Guest memory operands: the effective address, and the look-up in the space's TLB.
 *
 * A look-up is seven instructions in front of the access (see space.h for the comparison), three or
 * four where the address is a constant, for then its entry is known. It destroys the host's flags,
 * so the guest's are in the frame when it begins. Its slow path lies behind the block: it takes the
 * comparison back, which leaves the address, and calls helper_fill(), which fills the entry and
 * lets the look-up run again, or has the interpreter execute the instruction. In a region of shared
 * look-ups (group.c) what fails leads to the region's second copy instead.
 */
#include "engine/trans/translate_private.h"

int host_register(int guest)
{
	switch (guest) {
	case GPR_R11:
	case GPR_R14:
	case GPR_R15: return -1;
	case GPR_RSP: return HOST_GUEST_RSP;
	default: return guest;
	}
}

struct host_memory home_of(int guest)
{
	unsigned n = guest == GPR_R11 ? 0 : guest == GPR_R14 ? 1 : 2;
	return frame_slot(offsetof(struct frame, home) + 8 * n);
}

unsigned register_or_load(struct work *w, int guest, unsigned temporary)
{
	int host = host_register(guest);
	if (host >= 0)
		return (unsigned)host;
	emit_load(&w->e, temporary, home_of(guest));
	return temporary;
}

static int gpr_of(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
		return (int)(r - ZYDIS_REGISTER_RAX);
	if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
		return (int)(r - ZYDIS_REGISTER_EAX);
	return GPR_NONE;
}

bool address_of(const struct guest_insn *g, const ZydisDecodedOperand *o, struct guest_address *out)
{
	ZydisRegister base = o->mem.base;
	if ((o->mem.type != ZYDIS_MEMOP_TYPE_MEM && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN) ||
	    g->d.address_width == 16)
		return false;
	if (is_code32(g) && o->mem.segment == ZYDIS_REGISTER_CS)
		return false; /* it may not be written, nor perhaps read */
	int64_t disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	/* Zydis 4.0 names a base instead of the displacement for this form under prefix 67 with
	 * REX.B. */
	if ((g->d.attributes & ZYDIS_ATTRIB_HAS_SIB) && !g->d.raw.modrm.mod &&
	    g->d.raw.sib.base == 5) {
		base = ZYDIS_REGISTER_NONE;
		disp = g->d.raw.disp.value;
	}
	*out = (struct guest_address){
		.base = (int8_t)gpr_of(base),
		.index = (int8_t)gpr_of(o->mem.index),
		.is_32bit = g->d.address_width == 32,
		.is_code32 = is_code32(g),
		.disp = disp,
	};
	if (o->mem.scale > 1)
		out->shift = (uint8_t)__builtin_ctz(o->mem.scale);
	out->seg = o->mem.segment == ZYDIS_REGISTER_FS	 ? SEG_FS
		   : o->mem.segment == ZYDIS_REGISTER_GS ? SEG_GS
							 : SEG_DS;
	out->is_relative = base == ZYDIS_REGISTER_RIP || base == ZYDIS_REGISTER_EIP;
	if (out->is_relative)
		out->disp += (int64_t)(g->rip + g->d.length);
	out->is_constant = out->base == GPR_NONE && out->index == GPR_NONE;
	if (out->is_constant && out->is_32bit)
		out->disp = (uint32_t)out->disp;
	return out->is_constant || out->disp == (int32_t)out->disp;
}

struct guest_address access_without(const struct guest_address *a, int guest)
{
	struct guest_address b = *a;
	if (b.base == guest)
		b.base = GPR_NONE;
	else
		b.index = GPR_NONE;
	if (b.index != GPR_NONE && !b.shift) { /* as others have it */
		b.base = b.index;
		b.index = GPR_NONE;
	}
	if (b.index == GPR_NONE)
		b.shift = 0;
	b.is_constant = b.base == GPR_NONE && b.index == GPR_NONE;
	if (b.is_constant && b.is_32bit)
		b.disp = (uint32_t)b.disp;
	return b;
}

void access_address(struct work *w, const struct guest_address *a)
{
	struct emitter *e = &w->e;
	if (a->is_relative) {
		emit_address(w, HOST_T1, (uint64_t)a->disp);
	} else if (a->is_constant) {
		emit_constant(e, HOST_T1, (uint64_t)a->disp);
	} else {
		struct host_memory m = {.index = NO_INDEX, .shift = a->shift};
		m.disp = (int32_t)a->disp;
		if (a->index != GPR_NONE)
			m.index = (int8_t)register_or_load(w, a->index, HOST_T0);
		if (a->base != GPR_NONE)
			m.base = (uint8_t)register_or_load(w, a->base, HOST_T1);
		else
			m.no_base = true;
		if (m.index == NO_INDEX && !m.disp && !a->is_32bit)
			emit_mov(e, HOST_T1, m.base);
		else
			emit_rm(e, a->is_32bit ? 0 : EMIT_W, 0x8d, HOST_T1, m); /* lea */
	}
	if (a->is_bit_string) {
		emit_mov(e, HOST_T0, a->bit_register);
		emit_rr(e, EMIT_W, 0xc1, 7, HOST_T0); /* sar */
		emit_byte(e, 6);
		emit_lea(e, HOST_T1,
			 (struct host_memory){.base = HOST_T1, .index = HOST_T0, .shift = 3});
	}
	if (a->seg != SEG_FS && a->seg != SEG_GS)
		return;
	emit_load(e, HOST_T0, a->seg == SEG_FS ? FRAME(fs_base) : FRAME(gs_base));
	if (a->is_code32)
		code32_add_base(w, a->seg);
	else
		emit_lea(e, HOST_T1, (struct host_memory){.base = HOST_T1, .index = HOST_T0});
}

uint32_t add_site(struct work *w, struct site site)
{
	site.from = w->x;
	site.part = w->g ? w->g->part : 0;
	site.mnemonic = w->g ? (uint16_t)w->g->d.mnemonic : 0;
	site.index = (uint8_t)(w->g ? w->g->index - w->x->parts[site.part].first : 0);
	return cache_add_site(w->trans, site);
}

struct slow *add_slow(struct work *w, enum slow_kind kind, uint8_t *patch)
{
	struct slow *s = &w->slow[w->slow_count++];
	*s = (struct slow){.kind = kind, .patch = patch};
	return s;
}

void emit_call_helper(struct work *w, uint32_t site, const uint8_t *thunk)
{
	emit_constant(&w->e, HOST_T0, site);
	place_add(w, PLACE_HELPER, w->e.at - 4);
	emit_jmp(&w->e, thunk);
}

/* T0 = T1's slot. BEXTR takes a cycle less than a shift and a mask where it is one operation. */
static void emit_slot(struct work *w)
{
	struct emitter *e = &w->e;
	if (w->trans->has_bmi1) {
		static const uint8_t bextr[] = {0xc4, 0x42, 0x20, 0xf7,
						0xde}; /* r11d, r14d, r11d */
		emit_constant(e, HOST_T0, SPACE_TLB_BITS << 8 | PAGE_SHIFT);
		for (unsigned k = 0; k < sizeof(bextr); k++)
			emit_byte(e, bextr[k]);
		return;
	}
	emit_tlb_slot(e);
}

uint8_t *access_emit_check(struct emitter *e, unsigned size_bytes, bool is_aligned)
{
	if (is_aligned) {
		emit_rr(e, EMIT_W, 0xf7, 0, HOST_T1); /* test */
		emit_word(e, ~(uint32_t)(PAGE_SIZE_BYTES - size_bytes));
	} else {
		emit_rr(e, EMIT_W, 0x81, 7, HOST_T1); /* cmp */
		emit_word(e, PAGE_SIZE_BYTES - size_bytes);
	}
	return emit_jcc_forward(e, is_aligned ? CONDITION_NE : CONDITION_A);
}

/* Is the entry known, and can the access only fail if it is another page's? */
static bool is_fixed(const struct guest_address *a, unsigned size_bytes, bool is_aligned)
{
	if (!a->is_constant || a->seg == SEG_FS || a->seg == SEG_GS || a->is_bit_string ||
	    (is_aligned && a->disp & (size_bytes - 1)))
		return false;
	return ((uint64_t)a->disp & PAGE_OFFSET_MASK) + size_bytes <= PAGE_SIZE_BYTES;
}

/* A slot's members. */
static struct host_memory tag_of(struct host_memory slot, bool is_write)
{
	slot.disp +=
		(int32_t)(is_write ? offsetof(struct space, write) : offsetof(struct space, read));
	return slot;
}

static struct host_memory page_of(struct host_memory slot)
{
	slot.disp += (int32_t)offsetof(struct space, page);
	return slot;
}

struct host_memory access_tag(bool is_write)
{
	return tag_of(space_at_t0(0), is_write);
}

static void emit_fixed(struct work *w, uint64_t address, bool is_relative)
{
	if (is_relative)
		emit_address(w, HOST_T1, address);
	else
		emit_constant(&w->e, HOST_T1, address);
}

/* What was just written ends with the entry's displacement. */
static void note_entry(struct work *w, bool is_relative)
{
	if (is_relative)
		place_add(w, PLACE_TLB, w->e.at - 4);
}

/* The look-up of a constant address. */
static struct look_up look_up_fixed(struct work *w, uint64_t address, bool is_relative,
				    bool is_write)
{
	struct emitter *e = &w->e;
	uint64_t number = align_down(address, PAGE_SIZE_BYTES);
	struct host_memory slot = space_at(8 * (size_t)space_slot(address));
	if (number == (uint64_t)(int64_t)(int32_t)number) {
		emit_rm(e, EMIT_W, 0x81, 7, tag_of(slot, is_write)); /* cmp */
		emit_word(e, (uint32_t)number);
		w->x->is_bound |= is_relative;
	} else {
		emit_fixed(w, number, is_relative);
		emit_rm(e, EMIT_W, 0x3b, HOST_T1, tag_of(slot, is_write)); /* cmp */
		note_entry(w, is_relative);
	}
	struct look_up l = {
		.patch = emit_jcc_forward(e, CONDITION_NE),
		.operand = at_t0(address & PAGE_OFFSET_MASK),
		.is_fixed = true,
		.is_relative = is_relative,
		.address = address,
	};
	emit_load(e, HOST_T0, page_of(slot));
	note_entry(w, is_relative);
	return l;
}

struct look_up access_emit_ordinary(struct work *w, unsigned size_bytes, bool is_write,
				    bool is_aligned)
{
	struct look_up l = {.operand = AT_OPERAND, .tag = access_tag(is_write)};
	emit_slot(w);
	emit_rm(&w->e, EMIT_W, 0x33, HOST_T1, l.tag); /* xor */
	l.patch = access_emit_check(&w->e, size_bytes, is_aligned);
	emit_load(&w->e, HOST_T0, space_at_t0(offsetof(struct space, page)));
	return l;
}

struct look_up access_look_up(struct work *w, const struct guest_address *a, unsigned size_bytes,
			      bool is_write, bool is_aligned)
{
	flags_lost(w);
	if (is_fixed(a, size_bytes, is_aligned))
		return look_up_fixed(w, (uint64_t)a->disp, a->is_relative, is_write);
	if (micro_is_for(w, a))
		return micro_look_up(w, a, size_bytes, is_write, is_aligned);
	access_address(w, a);
	return access_emit_ordinary(w, size_bytes, is_write, is_aligned);
}

void access_emit_again(struct work *w, const struct look_up *l)
{
	if (l->is_fixed)
		emit_fixed(w, l->address, l->is_relative);
	else
		emit_rm(&w->e, EMIT_W, 0x33, HOST_T1, l->tag);
}

static struct host_memory emit_access(struct work *w, const struct guest_address *a,
				      unsigned size_bytes, bool is_write, bool is_aligned)
{
	if (w->loop && w->loop->is_inner)
		return loop_operand(w, a);
	if (w->region)
		return group_access(w, a, size_bytes, is_write, is_aligned);
	flags_to_frame(w);
	uint32_t site = add_site(w, (struct site){.resume = emitter_here(&w->e),
						  .is_write = is_write,
						  .is_aligned = is_aligned,
						  .size_bytes = (uint8_t)size_bytes});
	struct look_up l = access_look_up(w, a, size_bytes, is_write, is_aligned);
	struct slow *s = add_slow(w, SLOW_FILL, l.patch);
	if (!l.is_fixed)
		w->trans->sites[site].look_up_bytes =
			(uint8_t)(emitter_here(&w->e) - w->trans->sites[site].resume);
	s->site = site;
	s->look_up = l;
	return l.operand;
}

struct host_memory access_emit(struct work *w, const struct guest_address *a, unsigned size_bytes,
			       bool is_write)
{
	return emit_access(w, a, size_bytes, is_write, false);
}

struct host_memory access_emit_aligned(struct work *w, const struct guest_address *a,
				       unsigned size_bytes, bool is_write)
{
	return emit_access(w, a, size_bytes, is_write, true);
}

struct host_memory access_in_t0(struct work *w, struct host_memory operand)
{
	if (operand.index != HOST_T1)
		return operand;
	emit_lea(&w->e, HOST_T0, operand);
	if (w->loop)
		w->loop->in_t0 = STREAM_NONE;
	return at_t0(0);
}

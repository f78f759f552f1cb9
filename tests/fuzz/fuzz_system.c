/*
 * Random bytes as code, tables and registers, in every mode: the interpreter must come back with a
 * legal state, whatever the guest does.
 *
 * The first byte picks the mode, the next ones are registers and scribbles over GDT, IDT and TSS,
 * the rest is code.
 */
#define MACHINE_WITHOUT_CMOCKA
#include "../unit/machine.h"

#define CYCLES 3000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *bytes;
	size_t left;
};

static uint64_t take(struct input *in, unsigned n)
{
	uint64_t v = 0;

	n = n < in->left ? n : (unsigned)in->left;
	memcpy(&v, in->bytes, n);
	in->bytes += n;
	in->left -= n;
	return v;
}

static void enter_v86(struct machine *m)
{
	enter_protected(m, 3);
	for (unsigned n = 0; n < SEG_COUNT; n++)
		m->v.state.seg[n] = (struct segment_register){.limit = 0xffff, .attributes = 0xf3};
	m->v.state.seg[SEG_CS].base = CODE;
	m->v.state.seg[SEG_CS].selector = CODE / 16;
	m->v.state.rip = 0;
	m->v.state.rflags |= FLAG_VM;
}

static void enter(struct machine *m, unsigned mode)
{
	switch (mode % 7) {
	case 0: enter_real(m); break;
	case 1: enter_protected(m, 0); break;
	case 2: enter_protected(m, 3); break;
	case 3: enter_v86(m); break;
	case 4: enter_long(m, 3); break;
	default: enter_long(m, 0); break;
	}
}

static void scribble(struct machine *m, struct input *in)
{
	static const uint32_t places[] = {GDT, IDT, TSS, TSS_B};
	unsigned count = take(in, 1) % 8;

	for (unsigned n = 0; n < count; n++) {
		unsigned where = (unsigned)take(in, 1);
		unsigned offset = (unsigned)take(in, 1);
		poke_value(m, places[where % 4] + offset, take(in, 1), 1);
	}
}

static void check(const struct machine *m)
{
	const struct vcpu_state *s = &m->v.state;

	assert(s->gpr[REG_ZERO] == 0);
	assert(s->cpl <= 3);
	assert(s->flags_of <= 1);
	assert((s->cr0 & CR0_PE) || !(s->cr0 & CR0_PG));
	assert((s->cr0 & CR0_PE) || s->cpl == 0);
	assert(!(s->rflags & FLAG_VM) || s->cpl == 3);
	assert(!(s->efer & EFER_LMA) == !((s->efer & EFER_LME) && (s->cr0 & CR0_PG)));
	assert(m->exit.reason != EXIT_INTERNAL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct machine *m;
	void *state;

	machine_create(&state);
	m = state;
	enter(m, (unsigned)take(&in, 1));
	m->v.state.cr4 |= take(&in, 4) & cpu_cr4_mask(&m->model) &
			  ~(m->v.state.efer & EFER_LMA ? 0ull : (uint64_t)CR4_PCIDE);
	m->v.state.rflags |= take(&in, 2) & (FLAG_IF | FLAG_TF | FLAG_IOPL | FLAG_NT | FLAG_DF);
	for (unsigned r = 0; r < 16; r++)
		if (r != GPR_RSP)
			m->v.state.gpr[r] = take(&in, 3);
	m->v.state.dr[7] = 0x400 | (take(&in, 4) & 0xffff23ff);
	scribble(m, &in);
	if (in.left > 0x1000)
		in.left = 0x1000;
	poke(m, CODE, in.bytes, in.left);
	mmu_reset(m->mmu);
	interp_ops.state_changed(m->engine, 0);
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + CYCLES, &m->exit);
	check(m);
	machine_destroy(&state);
	return 0;
}

/*
 * Random code that writes to itself, in 16, 32 and 64-bit mode, run three times: in one stretch;
 * cut at random instants; and cut with moves to a fresh machine. All three must end in
 * the same state: the decoder, the block cache and the budget are invisible.
 *
 * Code begins near the end of a page, so that instructions cross into the next one; registers point
 * into the code, in 64-bit mode also through a second mapping of the same memory; faults step over
 * one byte and go on; an interrupt arrives at a random instant.
 */
#define MACHINE_WITHOUT_CMOCKA
#include <stdio.h>

#include "../unit/twin.h"

#define CYCLES 600
#define VECTOR_TIMER 0x50

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *bytes;
	size_t left;
	uint64_t random; /* goes on when the bytes are used up */
};

static uint64_t take(struct input *in, unsigned n)
{
	uint64_t v = 0;

	while (n--) {
		uint8_t byte = in->left ? *in->bytes : 0;

		if (in->left)
			in->bytes++, in->left--;
		in->random = (in->random + byte + 1) * 0x9e3779b97f4a7c15ull;
		v = v << 8 | (byte ^ (in->random >> 56));
	}
	return v;
}

/* ?? is a random byte. Meant for 32 and 64-bit code; as 16-bit code they are something else, and
 * some of them have a 67 or 66 that makes them writes again. */
static const char *const templates[] = {
	"c6 03 ??",		      /* mov byte [rbx], ? */
	"67 c6 06 ??",		      /* mov byte [esi], ? */
	"88 07",		      /* mov [rdi], al */
	"89 4b ??",		      /* mov [rbx + ?], ecx */
	"00 53 ??",		      /* add [rbx + ?], dl */
	"87 06",		      /* xchg [rsi], eax */
	"f0 0f c1 03",		      /* lock xadd [rbx], eax */
	"fe 07",		      /* inc byte [rdi] */
	"aa",			      /* stosb */
	"ab",			      /* stosd */
	"a4",			      /* movsb */
	"f3 aa",		      /* rep stosb */
	"f3 a4",		      /* rep movsb */
	"f3 a6",		      /* repe cmpsb */
	"f2 ae",		      /* repne scasb */
	"b1 ??",		      /* mov cl, ? */
	"b0 ??",		      /* mov al, ? */
	"31 c9",		      /* xor ecx, ecx */
	"8d 5b ??",		      /* lea ebx, [rbx + ?] */
	"8d 7f ??",		      /* lea edi, [rdi + ?] */
	"75 ??",		      /* jnz */
	"eb ??",		      /* jmp */
	"e2 ??",		      /* loop */
	"e8 ?? 00 00 00",	      /* call */
	"50 58",		      /* push, pop */
	"8f 03",		      /* pop [rbx] */
	"ff 33",		      /* push [rbx] */
	"c3",			      /* ret */
	"01 d8",		      /* add eax, ebx */
	"81 c1 ?? ?? ?? 00",	      /* add ecx, ? */
	"c7 03 ?? ?? ?? ??",	      /* mov dword [rbx], ? */
	"66 c7 05 ?? ff ff ff 90 90", /* mov word [rip - ?], nop nop */
	"fb",			      /* sti */
	"9c 83 0c 24 ?? 9d",	      /* pushf; or [rsp], ?; popf */
	"0f 31",		      /* rdtsc */
	"e4 80",		      /* in al, 0x80 */
	"e6 80",		      /* out 0x80, al */
	"0f ae f8",		      /* sfence */
	"f3 0f 6f 03",		      /* movdqu xmm0, [rbx] */
	"f3 0f 7f 07",		      /* movdqu [rdi], xmm0 */
	"dd 03 dd 1f",		      /* fld [rbx]; fstp [rdi] */
	"cd 20",		      /* int */
	"0f 0b",		      /* ud2 */
	"??",
	"?? ??",
	"?? ?? ?? ??",
};

static unsigned expand(struct input *in, uint8_t *code, unsigned room)
{
	unsigned n = 0;

	while (n + 16 < room) {
		const char *t = templates[take(in, 1) % ARRAY_COUNT(templates)];

		for (; *t; t += t[2] ? 3 : 2)
			code[n++] = t[0] == '?'
					    ? (uint8_t)take(in, 1)
					    : (uint8_t)strtoul((char[]){t[0], t[1], 0}, NULL, 16);
	}
	return n;
}

static void enter(struct machine *m, unsigned mode)
{
	switch (mode) {
	case 0: enter_real(m); break;
	case 1: enter_protected(m, 0); break;
	case 2: enter_protected(m, 3); break;
	case 3: enter_long(m, 0); break;
	default: enter_long(m, 3); break;
	}
	if (mode >= 3) /* the same memory again at 2 MiB */
		poke_value(m, TABLES + 0x2008, 0x87, 8);
	fill_skipping_handlers(m, mode == 0 ? 16 : mode < 3 ? 32 : 64);
	fill_counting_handler(m, VECTOR_TIMER, mode == 0 ? 16 : mode < 3 ? 32 : 64);
	m->v.state.cr0 |= CR0_AM;
	m->v.state.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
}

static void prepare(struct machine *m, struct input *in)
{
	struct vcpu_state *s = &m->v.state;
	unsigned mode = (unsigned)take(in, 1) % 5;
	uint8_t code[512];

	enter(m, mode);
	uint64_t base = mode ? CODE : 0;
	s->rip = base + 0xf00 + take(in, 1);
	poke(m, CODE + (s->rip - base), code, expand(in, code, sizeof(code)));
	for (unsigned r = 0; r < 16; r++) {
		uint64_t near = base + 0xf00 + (take(in, 2) & 0x1ff);

		if (mode >= 3 && take(in, 1) & 1)
			near += 2 << 20;
		if (r != GPR_RSP)
			s->gpr[r] = r == GPR_RCX ? take(in, 1) % 32 : near;
	}
	if (!mode) /* data and code are one segment */
		s->seg[SEG_DS] = s->seg[SEG_ES] = s->seg[SEG_SS] =
			(struct segment_register){CODE, 0xffff, CODE / 16, 0x93};
	s->rflags |= take(in, 2) & (FLAG_IF | FLAG_DF | FLAG_AC);
	s->rflags |= take(in, 1) < 24 ? FLAG_TF : 0;
	if (take(in, 1) < 24) {
		s->dr[0] = base + 0xf00 + (take(in, 2) & 0x1ff);
		s->dr[7] = 0x403 | (take(in, 1) & 0xf) << 16;
	}
	m->ledger = (struct ledger){0};
	mmu_reset(m->mmu);
	interp_ops.state_changed(m->engine, 0);
}

/* Until `until` or until the machine has stopped; false: it has. */
static bool advance(struct machine *m, uint64_t until)
{
	while (clock_now(&m->clock) < until) {
		interp_ops.run(m->engine, 0, until, &m->exit);
		assert(m->exit.reason != EXIT_INTERNAL);
		if (m->exit.reason != EXIT_BUDGET)
			return false;
	}
	return true;
}

static void interrupt(struct machine *m)
{
	m->pending = VECTOR_TIMER;
	vcpu_request(&m->v, REQUEST_INTERRUPT);
	m->v.state.activity = ACTIVITY_RUNNING;
}

/* The second and third machines run in pieces; `spare`, if given, takes over after some of
 * them. */
static void run_in_pieces(struct machine **m, struct machine **spare, uint64_t until,
			  struct input *in)
{
	for (;;) {
		uint64_t cut = clock_now(&(*m)->clock) + 1 + take(in, 1) % 40;

		if (!advance(*m, cut < until ? cut : until) || cut >= until)
			return;
		if (!spare || take(in, 1) % 4)
			continue;
		struct machine *old = *m;

		*m = *spare;
		*spare = old;
		machine_copy(*m, old);
	}
}

static void must_be_equal(struct machine *a, struct machine *b, const char *how)
{
	const char *where = machine_difference(a, b);

	if (!where)
		return;
	fprintf(stderr, "%s: %s differs; rip %#llx and %#llx, time %llu and %llu\n", how, where,
		(unsigned long long)a->v.state.rip, (unsigned long long)b->v.state.rip,
		(unsigned long long)a->clock.now_cycles, (unsigned long long)b->clock.now_cycles);
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size, 1};
	struct machine *m[4];

	for (unsigned n = 0; n < 4; n++) {
		void *state;

		machine_create(&state);
		m[n] = state;
	}
	prepare(m[0], &in);
	machine_copy(m[1], m[0]);
	machine_copy(m[2], m[0]);
	uint64_t moment = 1 + take(&in, 2) % (CYCLES / 2);
	for (unsigned part = 0; part < 2; part++) {
		uint64_t until = part ? CYCLES : moment;

		advance(m[0], until);
		run_in_pieces(&m[1], NULL, until, &in);
		must_be_equal(m[0], m[1], "cut");
		/* Under paging a stale TLB entry may be what the guest runs on: it stays. */
		bool is_paged = m[0]->v.state.cr0 & CR0_PG;

		run_in_pieces(&m[2], is_paged ? NULL : &m[3], until, &in);
		must_be_equal(m[0], m[2], "moved");
		for (unsigned n = 0; n < 3; n++)
			interrupt(m[n]);
	}
	for (unsigned n = 0; n < 4; n++) {
		void *state = m[n];

		machine_destroy(&state);
	}
	return 0;
}

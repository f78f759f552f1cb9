/*
 * --lockstep: every translated block is run by the interpreter too, from the same state, and the
 * first difference ends the run with both sides. The tool to find wrong translations with.
 *
 * Blocks are neither linked nor found by the jump tables then, so that each returns here. Before a
 * block runs its state is kept; pages that it writes are copied when its first write to them fills
 * the TLB, so no page may be written when a block begins, however the last one ended. Afterwards
 * all is put back, the interpreter runs the block, and what both made of registers and pages is
 * compared. A block that left the common way (an instruction that the interpreter executed, a
 * fault, the end of the budget) is not compared: what it did may not be done twice. Nor is one that
 * the interpreter leaves to execute an instruction alone; the loop goes on there.
 */
#include <stdarg.h>
#include <stdlib.h>

#include "engine/interp/ring.h"
#include "engine/trans/trans_private.h"
#include "ledger/ledger.h"

#define PAGES_MAX 64
#define WRITABLE_MAX 256

struct saved_page {
	uint8_t *host;
	uint8_t before[PAGE_SIZE_BYTES], after[PAGE_SIZE_BYTES];
};

struct lockstep {
	struct vcpu_state before, after;
	struct ledger ledger;
	uint64_t cycles;
	struct saved_page pages[PAGES_MAX];
	unsigned page_count;
	/* What the TLBs let be written. */
	struct {
		struct space *space;
		unsigned slot;
	} writable[WRITABLE_MAX];
	unsigned writable_count;
	bool is_void; /* this block is not compared */
	char text[6000];
	size_t text_used;
};

int lockstep_create(struct trans_vcpu *t, struct error *e)
{
	t->lockstep = calloc(1, sizeof(*t->lockstep));
	return t->lockstep ? 0 : error_set(e, -12, "no memory for --lockstep");
}

void lockstep_destroy(struct trans_vcpu *t)
{
	free(t->lockstep);
}

static void forget_writable(struct lockstep *l)
{
	while (l->writable_count) {
		struct space *p = l->writable[--l->writable_count].space;
		unsigned slot = l->writable[l->writable_count].slot;
		space_protect_slot(p, slot);
	}
}

void lockstep_begin(struct trans_vcpu *t)
{
	struct lockstep *l = t->lockstep;
	if (!l)
		return;
	forget_writable(l);
	l->before = *t->c->s;
	l->ledger = *t->c->ledger;
	l->cycles = t->c->cycles;
	l->page_count = 0;
	l->is_void = false;
}

void lockstep_void(struct trans_vcpu *t)
{
	if (t->lockstep)
		t->lockstep->is_void = true;
}

bool lockstep_write(struct trans_vcpu *t, uint64_t linear, uint8_t *host)
{
	struct lockstep *l = t->lockstep;
	if (!l)
		return true;
	if (l->writable_count == WRITABLE_MAX || l->page_count == PAGES_MAX)
		return false;
	l->writable[l->writable_count].space = t->space;
	l->writable[l->writable_count++].slot = space_slot(linear);
	uint8_t *page = host - ((uintptr_t)host & PAGE_OFFSET_MASK);
	for (unsigned k = 0; k < l->page_count; k++)
		if (l->pages[k].host == page)
			return true;
	l->pages[l->page_count].host = page;
	memcpy(l->pages[l->page_count++].before, page, PAGE_SIZE_BYTES);
	return true;
}

/* ---- the report ---- */

__attribute__((format(printf, 2, 3))) static void say(struct lockstep *l, const char *format, ...)
{
	va_list arguments;
	size_t room = sizeof(l->text) - l->text_used;
	va_start(arguments, format);
	int n = vsnprintf(l->text + l->text_used, room, format, arguments);
	va_end(arguments);
	l->text_used += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

static void say_value(struct lockstep *l, const char *name, uint64_t before, uint64_t interp,
		      uint64_t trans)
{
	say(l, "  %-6s before %016llx interp %016llx trans %016llx%s\n", name,
	    (unsigned long long)before, (unsigned long long)interp, (unsigned long long)trans,
	    interp == trans ? "" : "  <--");
}

static void say_state(struct lockstep *l, const struct vcpu_state *interp)
{
	static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
	const struct vcpu_state *b = &l->before, *a = &l->after;
	for (unsigned k = 0; k < GPR_COUNT; k++)
		say_value(l, names[k], b->gpr[k], interp->gpr[k], a->gpr[k]);
	say_value(l, "rip", b->rip, interp->rip, a->rip);
	say_value(l, "rflags", b->rflags, interp->rflags, a->rflags);
	say_value(l, "arith", b->flags_low | b->flags_of << 8,
		  interp->flags_low | interp->flags_of << 8, a->flags_low | a->flags_of << 8);
	for (unsigned k = 0; k < 16; k++)
		if (memcmp(interp->fpu.ymm[k], a->fpu.ymm[k], 32))
			say(l, "  ymm%u differs\n", k);
	if (memcmp(interp->fpu.st, a->fpu.st, sizeof(a->fpu.st)))
		say(l, "  the x87 stack differs\n");
}

static void say_fault(struct lockstep *l, const struct fault *fault)
{
	say(l, "  interp vector %u, error code %x, CR2 %016llx\n", fault->vector, fault->error,
	    (unsigned long long)fault->cr2);
}

static void say_code(struct lockstep *l, const char *whose, ZydisMachineMode mode,
		     const uint8_t *bytes, size_t count, uint64_t address)
{
	ZydisDisassembledInstruction i;
	say(l, "%s code:\n", whose);
	for (size_t at = 0; at < count; at += i.info.length) {
		if (!ZYAN_SUCCESS(
			    ZydisDisassembleIntel(mode, address + at, bytes + at, count - at, &i)))
			break;
		say(l, "  %llx  %s\n", (unsigned long long)(address + at), i.text);
	}
}

static const char fault_differs[] = "a fault that only the interpreter meets";

static void report(struct trans_vcpu *t, const struct translation *x, const char *what)
{
	struct lockstep *l = t->lockstep;
	ZydisMachineMode mode = x->block->key & KEY_CODE64 ? ZYDIS_MACHINE_MODE_LONG_64
							   : ZYDIS_MACHINE_MODE_LEGACY_32;
	l->text_used = 0;
	say(l, "--lockstep: %s after the block at %llx\n", what, (unsigned long long)x->rip);
	if (what == fault_differs)
		say_fault(l, &t->c->fault);
	say_state(l, t->c->s);
	for (unsigned k = 0; k < x->part_count; k++) {
		const struct block *b = x->parts[k].block;
		const uint8_t *guest = memory_host(t->c->memory, gpa(b->gpa), b->bytes);
		if (guest)
			say_code(l, "guest", mode, guest, b->bytes, x->parts[k].rip);
	}
	say_code(l, "host", ZYDIS_MACHINE_MODE_LONG_64, x->code, x->code_bytes,
		 (uint64_t)(uintptr_t)x->code);
	t->c->exit = (struct vm_exit){.reason = EXIT_INTERNAL, .text = l->text};
	t->c->attention |= ATTENTION_EXIT;
}

/* ---- the comparison ---- */

static const char *difference(struct lockstep *l, const struct vcpu_state *s)
{
	struct vcpu_state interp = *s, trans = l->after;
	interp.gpr[16] = interp.gpr[17] = trans.gpr[16] = trans.gpr[17] = 0;
	/* STI's shadow is not kept where nobody can see it (system.c). */
	if (interp.interrupt_shadow == SHADOW_STI && !trans.interrupt_shadow)
		interp.interrupt_shadow = SHADOW_NONE;
	/* The bit that is always 1 is kept by some and dropped by others. */
	interp.flags_low &= 0xd5;
	trans.flags_low &= 0xd5;
	if (memcmp(&interp, &trans, sizeof(interp)))
		return "registers differ";
	for (unsigned k = 0; k < l->page_count; k++)
		if (memcmp(l->pages[k].host, l->pages[k].after, PAGE_SIZE_BYTES))
			return "memory differs";
	return NULL;
}

/* How many of `x`'s parts ran if that was `count` instructions; 0: no whole number of them. */
static unsigned parts_run(const struct translation *x, uint64_t count)
{
	for (unsigned k = 0; k < x->part_count; k++)
		if (count == (uint64_t)(x->count - x->parts[k].rest))
			return k + 1;
	return 0;
}

/* Undoes what generated code did. */
static void put_back(struct trans_vcpu *t)
{
	struct lockstep *l = t->lockstep;
	l->after = *t->c->s;
	for (unsigned k = 0; k < l->page_count; k++) {
		memcpy(l->pages[k].after, l->pages[k].host, PAGE_SIZE_BYTES);
		memcpy(l->pages[k].host, l->pages[k].before, PAGE_SIZE_BYTES);
	}
	*t->c->s = l->before;
	*t->c->ledger = l->ledger;
	t->c->cycles = l->cycles;
	ring_changed(t->c);
}

/* The interpreter runs what `x` ran. False: it met a fault. */
static bool run_again(struct interp_vcpu *c, const struct translation *x, uint64_t parts)
{
	jmp_buf loop;
	memcpy(&loop, &c->unwind, sizeof(loop));
	volatile enum unwind unwind = 0;
	switch (setjmp(c->unwind)) {
	case UNWIND_FAULT: unwind = UNWIND_FAULT; break;
	case UNWIND_ALONE: unwind = UNWIND_ALONE; break;
	default:
		for (uint64_t k = 0; k < parts && c->s->rip == x->parts[k % x->part_count].rip; k++)
			interp_run_block(c, x->parts[k % x->part_count].block);
	}
	memcpy(&c->unwind, &loop, sizeof(loop));
	if (unwind == UNWIND_ALONE)
		longjmp(c->unwind, unwind);
	return unwind != UNWIND_FAULT;
}

/* `x` has run. The interpreter's outcome is what stays. */
void lockstep_end(struct trans_vcpu *t, const struct translation *x)
{
	struct lockstep *l = t->lockstep;
	struct interp_vcpu *c = t->c;
	if (!l)
		return;
	uint64_t count = c->cycles - l->cycles,
		 rest = count % x->count; /* a loop runs repeatedly */
	uint64_t parts = count / x->count * x->part_count + parts_run(x, rest);
	if (l->is_void || !parts || (rest && !parts_run(x, rest)))
		return;
	put_back(t);
	const char *what = fault_differs;
	if (run_again(c, x, parts))
		what = c->cycles - l->cycles == count ? difference(l, c->s) : "time differs";
	if (what)
		report(t, x, what);
}

/* A bytecode interpreter: one indirect jump an instruction, the pattern of every scripting
 * language. */
#include "suite.h"

enum opcode { OP_PUSH, OP_ADD, OP_MUL, OP_XOR, OP_SHR, OP_LOAD, OP_STORE, OP_LOOP, OP_END };

struct machine {
	uint64_t stack[16];
	uint64_t locals[4];
};

/* locals[0] counts down; locals[1] is mixed with it. */
static const uint8_t program[] = {
	OP_LOAD, 1, OP_PUSH, 31, OP_MUL, OP_LOAD,  0, OP_ADD,  OP_STORE, 1,
	OP_LOAD, 1, OP_PUSH, 7,	 OP_SHR, OP_LOAD,  1, OP_XOR,  OP_STORE, 1,
	OP_LOAD, 2, OP_LOAD, 1,	 OP_ADD, OP_STORE, 2, OP_LOOP, 0,	 OP_END,
};

static uint64_t execute(struct machine *m)
{
	const uint8_t *pc = program;
	uint64_t *top = m->stack;

	for (;;) {
		switch (*pc++) {
		case OP_PUSH: *++top = *pc++; break;
		case OP_LOAD: *++top = m->locals[*pc++]; break;
		case OP_STORE: m->locals[*pc++] = *top--; break;
		case OP_ADD: top--, *top += top[1]; break;
		case OP_MUL: top--, *top *= top[1]; break;
		case OP_XOR: top--, *top ^= top[1]; break;
		case OP_SHR: top--, *top >>= top[1] & 63; break;
		case OP_LOOP: pc = --m->locals[0] ? program + *pc : pc + 1; break;
		default: return fold(m->locals[1], m->locals[2]);
		}
	}
}

uint64_t interp(unsigned scale)
{
	struct machine m = {.locals = {40000ull * scale, 1, 0, 0}};
	uint64_t sum;

	measure_begin();
	sum = execute(&m);
	measure_end();
	return sum;
}

/* Generates small functions, calls each some times and overwrites them by the next ones, as a JIT
 * compiler does. */
#include "code.h"

#define FUNCTIONS 32
#define FUNCTION_BYTES 128

/* The argument; then a few random adds, xors and rotates; ret */
static void make_function(uint8_t *at, uint64_t *random)
{
	unsigned count = 3 + next_random(random) % 8;

	at = emit(at, LOAD_ARGUMENT, sizeof(LOAD_ARGUMENT) - 1);
	while (count--) {
		uint64_t r = next_random(random);
		uint32_t operand = (uint32_t)(r >> 32) & 0x7fffffff;
		uint8_t rotate[] = {0xc1, 0xc0, (uint8_t)(1 + r % 63)};

		at = emit(at, WIDE, WIDE_BYTES);
		switch (r >> 8 & 3) {
		case 0: at = emit(at, rotate, sizeof(rotate)); continue;
		case 1: *at++ = 0x05; break;  /* add */
		case 2: *at++ = 0x35; break;  /* xor */
		default: *at++ = 0x2d; break; /* sub */
		}
		at = emit(at, &operand, 4);
	}
	*at = 0xc3;
}

uint64_t jit(unsigned scale)
{
	uint8_t *code = code_pages(FUNCTIONS * FUNCTION_BYTES);
	uint64_t random = 17, v = 1;

	measure_begin();
	for (size_t round = 0; round < 60ul * scale; round++) {
		for (size_t i = 0; i < FUNCTIONS; i++)
			make_function(code + i * FUNCTION_BYTES, &random);
		for (size_t call = 0; call < 10 * FUNCTIONS; call++)
			v = as_function(code + call % FUNCTIONS * FUNCTION_BYTES)(v + call);
	}
	measure_end();
	munmap(code, FUNCTIONS * FUNCTION_BYTES);
	return v;
}

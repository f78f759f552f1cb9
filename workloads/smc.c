/* Self-modifying code: an immediate operand is rewritten before every call of the function that
 * holds it. */
#include "code.h"

#define ADD_AT (sizeof(LOAD_ARGUMENT) - 1 + WIDE_BYTES + 1)
#define XOR_AT (ADD_AT + 4 + WIDE_BYTES + 1)

uint64_t smc(unsigned scale)
{
	/* The argument, plus an immediate, xor an immediate; both are rewritten. */
	static const char body[] = LOAD_ARGUMENT WIDE "\x05"
						      "\0\0\0\0" WIDE "\x35"
						      "\0\0\0\0"
						      "\xc3";
	uint8_t *code = code_pages(4096);
	uint64_t v = 1;

	emit(code, body, sizeof(body));
	measure_begin();
	for (uint32_t i = 0; i < 2000u * scale; i++) {
		uint32_t addend = i * 2654435761u >> 2;

		memcpy(code + ADD_AT, &addend, 4);
		memcpy(code + XOR_AT, &i, 4);
		v = fold(v, as_function(code)(v));
	}
	measure_end();
	munmap(code, 4096);
	return v;
}

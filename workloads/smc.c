/* Self-modifying code: an immediate operand is rewritten before every call of the function that
 * holds it. */
#include "code.h"

uint64_t smc(unsigned scale)
{
	/* lea rax, [rdi + imm32]; xor rax, imm32; ret */
	static const uint8_t body[] = {0x48, 0x8d, 0x87, 0, 0, 0, 0, 0x48, 0x35, 0, 0, 0, 0, 0xc3};
	uint8_t *code = code_pages(4096);
	uint64_t v = 1;

	emit(code, body, sizeof(body));
	for (uint32_t i = 0; i < 2000u * scale; i++) {
		uint32_t addend = i * 2654435761u >> 2;

		memcpy(code + 3, &addend, 4);
		memcpy(code + 9, &i, 4);
		v = fold(v, as_function(code)(v));
	}
	munmap(code, 4096);
	return v;
}

/* The decoder with a memory says what Zydis says, of whatever bytes and however often. */
#include "x86/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"

static int create(void **state)
{
	struct error e;
	return decoder_create((struct decoder **)state, &e);
}

static int destroy(void **state)
{
	decoder_destroy(*state);
	return 0;
}

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	return *x ^= *x << 17;
}

/* decoder_decode() says what ZydisDecoderDecodeFull() does. */
static bool is_lawful(struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
		      unsigned available)
{
	static const ZydisMachineMode machine_modes[] = {ZYDIS_MACHINE_MODE_LEGACY_16,
							 ZYDIS_MACHINE_MODE_LEGACY_32,
							 ZYDIS_MACHINE_MODE_LONG_64};
	static const ZydisStackWidth widths[] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
						 ZYDIS_STACK_WIDTH_64};
	ZydisDecoder zydis;
	ZydisDecodedInstruction d;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	memset(&d, 0, sizeof(d));
	memset(operands, 0, sizeof(operands));
	ZydisDecoderInit(&zydis, machine_modes[mode], widths[mode]);
	ZyanStatus expected = ZydisDecoderDecodeFull(&zydis, bytes, available, &d, operands);
	ZyanStatus status = ZYAN_STATUS_SUCCESS;
	const struct decoded *x = decoder_decode(decoder, mode, bytes, available, &status);
	if (!ZYAN_SUCCESS(expected))
		return !x && status == expected;
	unsigned count = d.operand_count < DECODE_OPERANDS ? DECODE_OPERANDS : d.operand_count;
	return x && !memcmp(&x->d, &d, sizeof(d)) &&
	       !memcmp(x->operands, operands, count * sizeof(operands[0]));
}

static void assert_lawful(struct decoder *decoder, const uint8_t *bytes, unsigned available)
{
	for (unsigned mode = 0; mode < DECODE_MODE_COUNT; mode++)
		if (!is_lawful(decoder, mode, bytes, available))
			fail_msg("mode %u, %u bytes, %02x %02x %02x %02x ...", mode, available,
				 bytes[0], bytes[1], bytes[2], bytes[3]);
}

/* Random bytes behind prefixes and opcodes that make them instructions more often. */
static void test_any_bytes(void **state)
{
	static const uint8_t begins[] = {0x48, 0x66, 0x0f, 0xc4, 0xc5, 0x62, 0xf3, 0xf2,
					 0x67, 0x8f, 0x4c, 0xf0, 0x64, 0x2e, 0x0f, 0x48};
	uint64_t random = 1;
	for (unsigned k = 0; k < 60000; k++) {
		uint64_t words[2] = {next_random(&random), next_random(&random)};
		uint8_t bytes[16];
		memcpy(bytes, words, sizeof(bytes));
		for (unsigned n = 0; n < (bytes[15] & 3u); n++)
			bytes[n] = begins[bytes[n] & 15];
		assert_lawful(*state, bytes, 1 + (bytes[15] >> 2) % 15);
		assert_lawful(*state, bytes, 15);
	}
}

#ifdef GNOMON_HARD
#define KNOWN_SHARE 1000 /* all is forgotten again and again */
#else
#define KNOWN_SHARE 2
#endif

/* The same forms with other numbers: the memory answers. */
static void test_numbers(void **state)
{
	static const uint8_t forms[][15] = {
		{0x48, 0x05},			      /* add rax, imm32 */
		{0x48, 0xb8},			      /* mov rax, imm64 */
		{0x66, 0x05},			      /* add ax, imm16 */
		{0x48, 0x8b, 0x84, 0x24},	      /* mov rax, [rsp + disp32] */
		{0x48, 0x8b, 0x45},		      /* mov rax, [rbp + disp8] */
		{0xc7, 0x83},			      /* mov dword [rbx + disp32], imm32 */
		{0x8b, 0x05},			      /* mov eax, [rip + disp32] */
		{0xa0},				      /* mov al, [moffs] */
		{0xe8},				      /* call */
		{0x74},				      /* je */
		{0x0f, 0x84},			      /* je near */
		{0xc8},				      /* enter imm16, imm8 */
		{0x9a},				      /* call far, not in 64-bit code */
		{0xc1, 0xe0},			      /* shl eax, imm8 */
		{0x0f, 0x0f, 0x83},		      /* 3DNow!: the opcode is behind disp32 */
		{0xc4, 0xe3, 0x71, 0x4b, 0x43},	      /* vblendvpd, a register in an immediate */
		{0x62, 0xf1, 0x7c, 0x48, 0x10, 0x40}, /* vmovups zmm, [rax + 64 * disp8] */
		{0xf2, 0x0f, 0xc2, 0xc1},	      /* cmpsd xmm, imm8 */
	};
	uint64_t random = 2;
	uint64_t before = decoder_hit_count(*state), asked = 0;
	for (unsigned turn = 0; turn < 500; turn++)
		for (unsigned k = 0; k < ARRAY_COUNT(forms); k++) {
			uint64_t words[2] = {next_random(&random), next_random(&random)};
			uint8_t bytes[16];
			unsigned fixed = 15;
			while (!forms[k][fixed - 1])
				fixed--;
			memcpy(bytes, words, sizeof(bytes));
			memcpy(bytes, forms[k], fixed);
			assert_lawful(*state, bytes, 15);
			asked += DECODE_MODE_COUNT;
		}
	assert_true(decoder_hit_count(*state) - before > asked / KNOWN_SHARE);
}

/* More prefixes than there is room for nodes: everything is forgotten, and then known again. */
static void test_more_than_fits(void **state)
{
	static const uint8_t prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67};
	uint64_t random = 3;
	for (unsigned k = 0; k < 12000; k++) {
		uint64_t r = next_random(&random);
		uint8_t bytes[16] = {0};
		for (unsigned n = 0; n < 10; n++, r >>= 3)
			bytes[n] = prefixes[r & 7];
		bytes[10] = 0x8b;
		bytes[11] = (uint8_t)r;
		assert_lawful(*state, bytes, 15);
	}
	assert_true(decoder_full_count(*state) > 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, create, destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_any_bytes), T(test_numbers),
					   T(test_more_than_fits)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

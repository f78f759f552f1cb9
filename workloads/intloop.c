/* Integer work of three kinds: a sieve (stores), an open hash table (branches, random loads) and a
 * table CRC (dependent loads). */
#include "suite.h"

#include <string.h>

#define SIEVE_LIMIT 100000
#define SLOT_COUNT (1u << 15)

static unsigned char composite[SIEVE_LIMIT];
static uint32_t slots[SLOT_COUNT];
static uint32_t crc_table[256];

static uint64_t sieve(void)
{
	uint64_t count = 0;

	memset(composite, 0, sizeof(composite));
	for (size_t i = 2; i < SIEVE_LIMIT; i++) {
		if (composite[i])
			continue;
		count += i;
		for (size_t j = i * 2; j < SIEVE_LIMIT; j += i)
			composite[j] = 1;
	}
	return count;
}

static uint64_t hash_table(uint64_t random)
{
	uint64_t probes = 0;

	memset(slots, 0, sizeof(slots));
	for (size_t i = 0; i < SLOT_COUNT / 2; i++) {
		uint32_t key = (uint32_t)next_random(&random) | 1;
		uint32_t at = (key * 2654435761u) % SLOT_COUNT;

		while (slots[at] && slots[at] != key) {
			at = (at + 1) % SLOT_COUNT;
			probes++;
		}
		slots[at] = key;
	}
	return probes;
}

static uint64_t crc(void)
{
	uint32_t value = ~0u;

	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
		crc_table[i] = c;
	}
	for (size_t i = 0; i < sizeof(slots); i++)
		value = value >> 8 ^ crc_table[(value ^ ((unsigned char *)slots)[i]) & 0xff];
	return value;
}

uint64_t intloop(unsigned scale)
{
	uint64_t sum = 0;

	measure_begin();
	for (size_t round = 0; round < 4ul * scale; round++) {
		sum = fold(sum, sieve());
		sum = fold(sum, hash_table(round));
		sum = fold(sum, crc());
	}
	measure_end();
	return sum;
}

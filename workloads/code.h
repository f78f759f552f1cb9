/* Memory that is writable and executable, and the few instructions that smc and jit write into it.
 */
#pragma once

#include "suite.h"

#include <string.h>
#include <sys/mman.h>

typedef uint64_t (*made_fn)(uint64_t);

/* How a made function gets its argument into the accumulator, and the prefix of 64-bit arithmetic.
 * In the 32-bit build it computes with the argument's low half, so the checksums there are others.
 */
#ifdef __x86_64__
#define LOAD_ARGUMENT "\x48\x89\xf8" /* mov rax, rdi */
#define WIDE "\x48"
#else
#define LOAD_ARGUMENT "\x8b\x44\x24\x04\x31\xd2" /* mov eax, [esp + 4]; xor edx, edx */
#define WIDE ""
#endif
#define WIDE_BYTES (sizeof(WIDE) - 1)

static inline uint8_t *code_pages(size_t size_bytes)
{
	uint8_t *p = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		give_up("mmap of executable memory");
	return p;
}

static inline uint8_t *emit(uint8_t *at, const void *bytes, size_t size_bytes)
{
	memcpy(at, bytes, size_bytes);
	return at + size_bytes;
}

static inline made_fn as_function(uint8_t *code)
{
	made_fn f;

	memcpy(&f, &code, sizeof(f));
	return f;
}

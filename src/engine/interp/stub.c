/*
 * The stubs' memory and their code.
 *
 * It is mapped twice: `writable` for us, `code` for the processor. A stub lies at the same offset
 * in both. Records are in a plain array next to it, found by a hash of code and attributes; the
 * code is position-independent, so equal instructions give equal bytes.
 *
 * A stub is a function of the System V convention: RDI the vcpu state, RSI the memory operand, RDX
 * the FXSAVE image. It keeps the guest's registers in the host registers of the same number but for
 * RSP, for which encode.c chose a stand-in. `state` and `image` are kept in R8..R11, whichever the
 * instruction leaves free.
 */
#include "engine/interp/host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/pages.h"

#ifdef GNOMON_HARD
#define STUB_COUNT_MAX 512u
#else
#define STUB_COUNT_MAX 65536u
#endif
#define STUB_BYTES_MAX                                                            \
	224u /* the longest: three registers each way, flags, image, callee-saved \
	      */
#define STUB_AREA_BYTES (STUB_COUNT_MAX * 128u)
#define STUB_BUCKETS 4096u

struct host_stubs {
	uint8_t *writable, *code;
	uint32_t used_bytes, count;
	bool has_avx;
	struct host_stub *stubs; /* STUB_COUNT_MAX */
	struct host_stub *buckets[STUB_BUCKETS];
};

struct emitter {
	uint8_t bytes[STUB_BYTES_MAX];
	unsigned count;
};

int host_stubs_create(struct host_stubs **out, struct error *e)
{
	struct host_stubs *stubs = calloc(1, sizeof(*stubs));
	if (stubs)
		stubs->stubs = calloc(STUB_COUNT_MAX, sizeof(*stubs->stubs));
	if (!stubs || !stubs->stubs) {
		host_stubs_destroy(stubs);
		return error_set(e, -ENOMEM, "no memory for stubs");
	}
	void *writable, *code;
	if (!pages_map_twice(STUB_AREA_BYTES, &writable, &code)) {
		int error = errno;
		host_stubs_destroy(stubs);
		return error_set(e, -error, "cannot map memory for stubs: %s", strerror(error));
	}
	stubs->writable = writable;
	stubs->code = code;
	stubs->has_avx = __builtin_cpu_supports("avx");
	*out = stubs;
	return 0;
}

void host_stubs_destroy(struct host_stubs *stubs)
{
	if (!stubs)
		return;
	pages_unmap(stubs->writable, STUB_AREA_BYTES);
	pages_unmap(stubs->code, STUB_AREA_BYTES);
	free(stubs->stubs);
	free(stubs);
}

bool host_stubs_is_full(const struct host_stubs *stubs)
{
	return stubs->count + BLOCK_INSNS_MAX > STUB_COUNT_MAX ||
	       stubs->used_bytes + BLOCK_INSNS_MAX * STUB_BYTES_MAX > STUB_AREA_BYTES;
}

void host_stubs_reset(struct host_stubs *stubs)
{
	stubs->used_bytes = 0;
	stubs->count = 0;
	memset(stubs->buckets, 0, sizeof(stubs->buckets));
}

static void emit(struct emitter *m, const void *bytes, unsigned count)
{
	memcpy(m->bytes + m->count, bytes, count);
	m->count += count;
}

#define EMIT(m, ...) emit(m, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* ModRM and displacement of [base + offset]; base is never RSP, R12 (SIB) and the offset is always
 * there. */
static void emit_address(struct emitter *m, unsigned reg, unsigned base, uint32_t offset)
{
	if (offset < 128) {
		EMIT(m, (uint8_t)(0x40 | (reg & 7) << 3 | (base & 7)), (uint8_t)offset);
		return;
	}
	EMIT(m, (uint8_t)(0x80 | (reg & 7) << 3 | (base & 7)));
	emit(m, &offset, 4);
}

/* mov between a 64-bit register and [base + offset]; opcode 8B loads, 89 stores. */
static void emit_gpr(struct emitter *m, uint8_t opcode, unsigned reg, unsigned base,
		     uint32_t offset)
{
	EMIT(m, (uint8_t)(0x48 | (reg >> 3) << 2 | base >> 3), opcode);
	emit_address(m, reg, base, offset);
}

static void emit_move(struct emitter *m, unsigned to, unsigned from)
{
	EMIT(m, (uint8_t)(0x48 | (from >> 3) << 2 | to >> 3), 0x89,
	     (uint8_t)(0xc0 | (from & 7) << 3 | (to & 7)));
}

/* (v)movdqu; opcode 6F loads, 7F stores. */
static void emit_vector(struct emitter *m, uint8_t opcode, unsigned reg, unsigned base, bool is_vex,
			unsigned size_bytes)
{
	uint32_t offset = (uint32_t)offsetof(struct vcpu_state, fpu.ymm) + 32 * reg;
	if (is_vex)
		EMIT(m, 0xc4, (uint8_t)((reg < 8) << 7 | 1 << 6 | (base < 8) << 5 | 1),
		     (uint8_t)(0x78 | (size_bytes == 32) << 2 | 2), opcode);
	else
		EMIT(m, 0xf3, (uint8_t)(0x40 | (reg >> 3) << 2 | base >> 3), 0x0f, opcode);
	emit_address(m, reg, base, offset);
}

/* flags_low and flags_of lie side by side: AL = low, AH = OF, and LAHF has them the other way. */
_Static_assert(offsetof(struct vcpu_state, flags_of) == offsetof(struct vcpu_state, flags_low) + 1,
	       "one word holds the arithmetic flags");

static void emit_flags_load(struct emitter *m, unsigned state)
{
	EMIT(m, (uint8_t)(0x40 | state >> 3), 0x0f, 0xb7); /* movzx eax, word */
	emit_address(m, 0, state, (uint32_t)offsetof(struct vcpu_state, flags_low));
	EMIT(m, 0x86, 0xc4); /* xchg al, ah */
	EMIT(m, 0x04, 0x7f); /* add al, 127: OF if AL was 1 */
	EMIT(m, 0x9e);	     /* sahf */
}

static void emit_flags_store(struct emitter *m, unsigned state)
{
	EMIT(m, 0x0f, 0x90, 0xc0);			   /* seto al */
	EMIT(m, 0x9f);					   /* lahf */
	EMIT(m, 0x86, 0xc4);				   /* xchg al, ah */
	EMIT(m, 0x66, (uint8_t)(0x40 | state >> 3), 0x89); /* mov word, ax */
	emit_address(m, 0, state, (uint32_t)offsetof(struct vcpu_state, flags_low));
}

/* RBX, RBP, R12..R15 */
#define CALLEE_SAVED 0xf028u

static unsigned free_register(uint16_t *used)
{
	for (unsigned r = 11; r >= 8; r--) {
		if (*used & 1u << r)
			continue;
		*used |= (uint16_t)(1u << r);
		return r;
	}
	return 0; /* cannot be: no instruction names four of them */
}

static void emit_prologue(struct emitter *m, const struct host_shape *shape, uint16_t used,
			  unsigned state, unsigned image)
{
	bool is_image = shape->class == HOST_MMX || shape->class == HOST_X87;
	for (unsigned r = 0; r < 16; r++)
		if (used & CALLEE_SAVED & 1u << r)
			EMIT(m, (uint8_t)(0x40 | r >> 3), (uint8_t)(0x50 | (r & 7)));
	emit_move(m, state, GPR_RDI);
	if (is_image) {
		emit_move(m, image, GPR_RDX);
		EMIT(m, (uint8_t)(0x48 | image >> 3), 0x0f, 0xae,
		     (uint8_t)(0x08 | (image & 7))); /* fxrstor64 */
	}
	if (shape->memory_register != GPR_RSP && shape->memory_register != GPR_RSI)
		emit_move(m, shape->memory_register, GPR_RSI);
	if (!is_image)
		for (unsigned r = 0; r < 16; r++)
			if (shape->vector_load & 1u << r)
				emit_vector(m, 0x6f, r, state, shape->is_vex, shape->vector_bytes);
	if (shape->flags_load)
		emit_flags_load(m, state);
	for (unsigned r = 0; r < 16; r++)
		if (shape->gpr_load & 1u << r)
			emit_gpr(m, 0x8b, r == GPR_RSP ? shape->stand_in : r, state, 8 * r);
}

static void emit_epilogue(struct emitter *m, const struct host_shape *shape, uint16_t used,
			  unsigned state, unsigned image)
{
	bool is_image = shape->class == HOST_MMX || shape->class == HOST_X87;
	for (unsigned r = 0; r < 16; r++)
		if (shape->gpr_store & 1u << r)
			emit_gpr(m, 0x89, r == GPR_RSP ? shape->stand_in : r, state, 8 * r);
	if (shape->flags_store)
		emit_flags_store(m, state);
	if (is_image)
		EMIT(m, (uint8_t)(0x48 | image >> 3), 0x0f, 0xae,
		     (uint8_t)(image & 7), /* fxsave64 */
		     0xdb, 0xe3);	   /* fninit */
	else
		for (unsigned r = 0; r < 16; r++)
			if (shape->vector_store & 1u << r)
				emit_vector(m, 0x7f, r, state, shape->is_vex, 32);
	if (shape->is_vex && shape->vector_bytes == 32)
		EMIT(m, 0xc5, 0xf8, 0x77); /* vzeroupper */
	for (unsigned r = 16; r-- > 0;)
		if (used & CALLEE_SAVED & 1u << r)
			EMIT(m, (uint8_t)(0x40 | r >> 3), (uint8_t)(0x58 | (r & 7)));
	EMIT(m, 0xc3);
}

static uint32_t hash_bytes(const uint8_t *bytes, unsigned count)
{
	uint32_t h = 2166136261u;
	for (unsigned k = 0; k < count; k++)
		h = (h ^ bytes[k]) * 16777619u;
	return h ^ h >> 15;
}

static bool is_same(const struct host_stub *a, const struct host_stub *b, const struct emitter *m,
		    const uint8_t *code)
{
	return a->code_bytes == m->count && a->class == b->class && a->flags == b->flags &&
	       a->memory_bytes == b->memory_bytes && a->fop == b->fop &&
	       a->vector_load == b->vector_load && a->vector_store == b->vector_store &&
	       !memcmp(code, m->bytes, m->count);
}

const struct host_stub *host_stub_get(struct host_stubs *stubs, const struct host_shape *shape)
{
	struct emitter m = {.count = 0};
	uint16_t used = shape->gpr_load | shape->gpr_store;
	if (shape->stand_in != GPR_RSP)
		used |= (uint16_t)(1u << shape->stand_in);
	if (shape->memory_register != GPR_RSP)
		used |= (uint16_t)(1u << shape->memory_register);
	used &= (uint16_t) ~(1u << GPR_RSP);
	unsigned state = free_register(&used), image = free_register(&used);
	emit_prologue(&m, shape, used, state, image);
	struct host_stub stub = {
		.code_bytes = 0,
		.vector_load = shape->vector_load,
		.vector_store = shape->vector_store,
		.fop = shape->fop,
		.insn_offset = (uint8_t)m.count,
		.memory_bytes = shape->memory_bytes,
		.class = shape->class,
		.flags = shape->flags,
		.vector_bytes = shape->vector_bytes,
		.is_vex = shape->is_vex,
	};
	emit(&m, shape->insn, shape->insn_bytes);
	emit_epilogue(&m, shape, used, state, image);

	struct host_stub **bucket = &stubs->buckets[hash_bytes(m.bytes, m.count) % STUB_BUCKETS];
	for (struct host_stub *known = *bucket; known; known = known->link)
		if (is_same(known, &stub, &m, (const uint8_t *)(uintptr_t)known->code))
			return known;
	if (stubs->count == STUB_COUNT_MAX || stubs->used_bytes + m.count > STUB_AREA_BYTES)
		return NULL;
	memcpy(stubs->writable + stubs->used_bytes, m.bytes, m.count);
	stub.code = (host_code *)(uintptr_t)(stubs->code + stubs->used_bytes);
	stub.code_bytes = (uint16_t)m.count;
	stub.link = *bucket;
	stubs->used_bytes += (uint32_t)align_up(m.count, 16);
	struct host_stub *made = &stubs->stubs[stubs->count++];
	*made = stub;
	*bucket = made;
	return made;
}

/*
 * Random-instruction differential test: each instruction is executed once by the host's processor
 * and once by the engine, from the same state at the same addresses, and everything that a program
 * could see afterwards is compared.
 *
 * generate.c makes an instruction and a state in which it is interesting; native.c runs it on the
 * host (a signal frame carries the state in, another carries it out); guest.c runs it in user mode
 * of a 64-bit guest; main.c compares and counts. sequence.c strings instructions together, for an
 * engine that translates more than one at a time.
 *
 * Both sides have the same addresses: code at CODE, then the sandbox at DATA with an unmapped page
 * on either side and one read-only page at its end. Everything else a test could touch by mistake
 * is kept away by the generator, which knows each address before the instruction runs.
 */
#pragma once

#include <Zydis/Zydis.h>

#include "base/bits.h"
#include "x86/arch.h"

#define CODE 0x10000000ull
#define CODE_PAGES 2
#define CODE_END (CODE + CODE_PAGES * PAGE_SIZE_BYTES) /* the page from here is not mapped */
#define DATA 0x20000000ull /* first byte that is mapped; the page before is not */
#define DATA_PAGES 4	   /* writable */
#define DATA_READONLY (DATA + DATA_PAGES * PAGE_SIZE_BYTES)
#define DATA_END (DATA_READONLY + PAGE_SIZE_BYTES) /* the page from here is not mapped */
#define DATA_BYTES ((DATA_PAGES + 1) * PAGE_SIZE_BYTES)
#define SCRATCH 0x18000000ull /* a page for what a sequence keeps for itself */

#define NO_FAULT 3 /* the instruction ended at the INT3 behind it */

struct x87_image {
	uint16_t fcw, fsw;
	uint8_t ftw, zero;
	uint16_t fop;
	uint64_t fip, fdp;
	uint8_t st[8][16];
};

struct test_state {
	uint64_t gpr[16];
	uint64_t rip;
	uint64_t rflags;
	uint8_t ymm[16][32];
	struct x87_image x87;
	uint32_t mxcsr;
	/* Outcome only. */
	unsigned vector;
	uint32_t error;
	uint64_t address; /* #PF */
};

struct test_case {
	uint8_t bytes[16]; /* the instruction; INT3 follows */
	unsigned length;
	unsigned mode; /* of the code: 64 or 32 (compatibility mode) */
	ZydisDecodedInstruction d;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	struct test_state start;
};

struct generator;

/* What may be generated. */
struct generator_options {
	uint64_t seed;
	const char *group; /* NULL: all */
	const char *only;  /* a mnemonic; NULL: all */
	unsigned mode;	   /* 64, 32; 0: both */
};

struct generator *generator_create(const struct generator_options *options);
void generator_destroy(struct generator *g);
/* The next case. `data` (DATA_BYTES) is the sandbox's present contents; the generator may change it
 * to fit. False: nothing in the group. */
bool generate(struct generator *g, struct test_case *t, uint8_t *data);
/* The same for a given place: in code of `mode`, at `rip`, and if it branches, to `destination`. */
struct placement {
	unsigned mode;
	uint64_t rip, destination;
};
bool generate_at(struct generator *g, const struct placement *at, struct test_case *t,
		 uint8_t *data);
/* A state without an instruction. */
void generate_state(struct generator *g, unsigned mode, struct test_state *s);
/* The address of a memory operand. */
uint64_t test_address(const struct test_case *t, const ZydisDecodedOperandMem *m);
const char *const *generator_groups(void);
uint64_t generator_random(struct generator *g);
/* The code's mode that was asked for, or 0. */
unsigned generator_mode(const struct generator *g);
/* A hash of mnemonic, kinds and sizes of operands, and prefixes with a meaning. */
uint64_t test_shape(const struct test_case *t);

/* The host. `data` and `code` point to the real mappings at DATA and CODE. */
int native_open(uint8_t **code, uint8_t **data);
int native_seal(void); /* from now on the read-only page is */
void native_run(const struct test_state *start, unsigned mode, struct test_state *out);
/* The engine behaves as Intel's processors do where these differ. AMD's cut IP to 16 bits in a near
 * branch with a 66 prefix, take F2 and F3 before LOOPcc for its condition, keep no x87 pointers in
 * FXSAVE's image but after an exception, have another MXCSR mask, let SHA's operands be unaligned,
 * refuse 0F 0D with two registers and, in 32-bit code, some instructions with VEX.W. */
bool native_is_amd(void);

/* The engine. Contents of memory are copied in and out by address in guest-physical memory. */
struct guest;
int guest_create(struct guest **out, const char *engine, const char *cpu, uint8_t warm_count);
/* trans: flags that are overwritten before anybody reads them need not be right at a fault, as
 * under
 * --clock real. */
void guest_let_flags_go(struct guest *guest);
/* No page of code becomes a checked one. */
void guest_watch_always(struct guest *guest);
void guest_destroy(struct guest *guest);
void guest_set_data(struct guest *guest, const uint8_t *data); /* DATA_BYTES */
void guest_get_data(struct guest *guest, uint8_t *data);
struct engine *guest_engine(struct guest *guest);
struct vcpu *guest_vcpu(struct guest *guest); /* for control registers, which stay as set */
void guest_set_code(struct guest *guest, uint64_t address, const uint8_t *bytes, unsigned count);
void guest_get_code(struct guest *guest, uint64_t address, uint8_t *bytes, unsigned count);
void guest_run(struct guest *guest, const struct test_state *start, unsigned mode,
	       struct test_state *out);

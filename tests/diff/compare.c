/*
 * What must be equal afterwards, and what the manual leaves open.
 *
 * Open: flags that the decoder's tables call undefined, where the engine computes the instruction
 * itself (where the host's own instruction does, even these are equal); destinations of SHLD and
 * SHRD with a count beyond a 16-bit operand; how far a gather came before a fault; PE beside an
 * unmasked overflow or underflow. Processors differ in what an instruction of several steps has
 * done when it faults: whether an MMX instruction has entered MMX state, whether MOVBE and FBSTP
 * have stored up to the page boundary, which byte of a masked or long operand CR2 names.
 *
 * AMD's processors differ from the manual's on purpose: see native_is_amd(). There, the x87
 * pointers are not looked at, nor the flags of a REP CMPS or SCAS that faulted half-way (Intel's
 * restores them), and an x87 store may raise the address's fault before the operand's.
 */
#include "compare.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct report {
	char *text;
	size_t size, used;
	unsigned differences;
};

static void differ(struct report *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void differ(struct report *r, const char *format, ...)
{
	va_list arguments;
	r->differences++;
	if (r->used >= r->size)
		return;
	va_start(arguments, format);
	int n = vsnprintf(r->text + r->used, r->size - r->used, format, arguments);
	va_end(arguments);
	r->used += n > 0 ? (size_t)n : 0;
}

static bool is_shift(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD: return true;
	default: return false;
	}
}

static unsigned shift_count(const struct test_case *t)
{
	const ZydisDecodedOperand *o = &t->operands[t->d.operand_count_visible - 1];
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return (unsigned)o->imm.value.u & (t->d.operand_width == 64 ? 63 : 31);
	return (unsigned)t->start.gpr[GPR_RCX] & (t->d.operand_width == 64 ? 63 : 31);
}

static uint64_t undefined_flags(const struct test_case *t)
{
	if (!t->d.cpu_flags || t->d.meta.isa_ext != ZYDIS_ISA_EXT_BASE)
		return 0;
	uint64_t undefined = t->d.cpu_flags->undefined & FLAGS_ARITHMETIC;
	if (is_shift(t->d.mnemonic)) {
		unsigned count = shift_count(t);
		unsigned width = t->operands[0].size;
		undefined = count > 1 ? FLAG_OF | FLAG_AF : count ? FLAG_AF : 0;
		if (t->d.mnemonic == ZYDIS_MNEMONIC_SHL || t->d.mnemonic == ZYDIS_MNEMONIC_SHR ||
		    t->d.mnemonic == ZYDIS_MNEMONIC_SAR)
			undefined |= count >= width ? FLAG_CF : 0;
		else if (t->d.mnemonic == ZYDIS_MNEMONIC_SHLD ||
			 t->d.mnemonic == ZYDIS_MNEMONIC_SHRD)
			undefined |= count > width ? FLAGS_ARITHMETIC : 0;
		else
			undefined &= ~FLAG_AF;
	}
	return undefined;
}

static bool is_gather(const struct test_case *t)
{
	return t->d.meta.isa_ext == ZYDIS_ISA_EXT_AVX2GATHER;
}

static bool is_destination_undefined(const struct test_case *t)
{
	return (t->d.mnemonic == ZYDIS_MNEMONIC_SHLD || t->d.mnemonic == ZYDIS_MNEMONIC_SHRD) &&
	       shift_count(t) > t->operands[0].size;
}

/* Each access of these is several, in an order of the processor's own. */
static bool is_long_access(const struct test_case *t)
{
	switch (t->d.mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_CALL:
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
	case ZYDIS_MNEMONIC_CMPSB:
	case ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_CMPSD:
	case ZYDIS_MNEMONIC_CMPSQ:
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
	case ZYDIS_MNEMONIC_FBSTP:
	case ZYDIS_MNEMONIC_FBLD:
	case ZYDIS_MNEMONIC_MOVBE:
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ: return true;
	case ZYDIS_MNEMONIC_FSTP: return t->operands[0].size == 80;
	default: return is_gather(t);
	}
}

static bool names_mmx(const struct test_case *t)
{
	for (unsigned k = 0; k < t->d.operand_count; k++)
		if (t->operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(t->operands[k].reg.value) == ZYDIS_REGCLASS_MMX)
			return true;
	return false;
}

/* MASKMOV with nothing selected may fault or not. */
static bool is_optional_fault(const struct test_case *t)
{
	switch (t->d.mnemonic) {
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU: return true;
	default: return false;
	}
}

static bool is_x87(const struct test_case *t)
{
	return t->d.meta.isa_ext == ZYDIS_ISA_EXT_X87 || t->d.mnemonic == ZYDIS_MNEMONIC_FISTTP;
}

/* Two faults at once, either is right: a bad header and an unmapped page; a CALL's target and its
 * stack; BOUND's first bound and an unmapped second one. */
static bool is_either_fault(const struct test_case *t, const struct test_state *host,
			    const struct test_state *guest)
{
	unsigned both = 1u << (host->vector & 31) | 1u << (guest->vector & 31);
	if (host->vector == guest->vector)
		return false;
	if (!is_x87(t) && host->rip != guest->rip)
		return false;
	switch (t->d.mnemonic) {
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
	case ZYDIS_MNEMONIC_CALL: return both == (1u << VECTOR_GP | 1u << VECTOR_PF);
	case ZYDIS_MNEMONIC_BOUND: return both == (1u << VECTOR_BR | 1u << VECTOR_PF);
	default: break;
	}
	return native_is_amd() && is_x87(t) &&
	       (host->vector == VECTOR_PF || host->vector == VECTOR_GP);
}

/* POPA loads registers one by one, and does not take back what it loaded before a fault. */
static bool is_partly_done(const struct test_case *t, const struct test_state *host)
{
	return host->vector != NO_FAULT &&
	       (t->d.mnemonic == ZYDIS_MNEMONIC_POPA || t->d.mnemonic == ZYDIS_MNEMONIC_POPAD);
}

static const char *const gpr_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					  "r8",	 "r9",	"r10", "r11", "r12", "r13", "r14", "r15"};

static void compare_end(struct report *r, const struct test_case *t, const struct test_state *host,
			const struct test_state *guest)
{
	if (host->vector != guest->vector)
		differ(r, "  vector: host %u (error %x, CR2 %llx), guest %u (error %x, CR2 %llx)\n",
		       host->vector, host->error, (unsigned long long)host->address, guest->vector,
		       guest->error, (unsigned long long)guest->address);
	if (host->rip != guest->rip)
		differ(r, "  rip: host %llx, guest %llx\n", (unsigned long long)host->rip,
		       (unsigned long long)guest->rip);
	if (host->vector != guest->vector || host->vector == NO_FAULT)
		return;
	if (host->error != guest->error && !is_long_access(t))
		differ(r, "  vector %u at %llx: error code: host %x (%llx), guest %x (%llx)\n",
		       host->vector, (unsigned long long)host->rip, host->error,
		       (unsigned long long)host->address, guest->error,
		       (unsigned long long)guest->address);
	if (host->vector == 14 && host->address != guest->address && !is_long_access(t))
		differ(r, "  CR2: host %llx, guest %llx\n", (unsigned long long)host->address,
		       (unsigned long long)guest->address);
}

static void compare_general(struct report *r, const struct test_case *t,
			    const struct test_state *host, const struct test_state *guest)
{
	/* Outside 64-bit mode the upper halves are undefined. */
	uint64_t width = t->mode == 64 ? ~0ull : 0xffffffff;
	/* A string instruction with 32-bit addresses may clear the upper halves before it faults.
	 */
	if (t->d.meta.category == ZYDIS_CATEGORY_STRINGOP && t->d.address_width == 32)
		width = 0xffffffff;
	for (unsigned k = 0; k < 16; k++)
		if (((host->gpr[k] ^ guest->gpr[k]) & width) && !is_destination_undefined(t) &&
		    !is_partly_done(t, host))
			differ(r, "  %s: host %016llx, guest %016llx, before %016llx\n",
			       gpr_names[k], (unsigned long long)host->gpr[k],
			       (unsigned long long)guest->gpr[k],
			       (unsigned long long)t->start.gpr[k]);
	uint64_t mask = ~(undefined_flags(t) | FLAG_RF);
	if (native_is_amd() && t->d.meta.category == ZYDIS_CATEGORY_STRINGOP &&
	    host->vector == VECTOR_PF)
		mask &= ~FLAGS_ARITHMETIC;
	if ((host->rflags ^ guest->rflags) & mask)
		differ(r, "  rflags: host %llx, guest %llx, before %llx\n",
		       (unsigned long long)(host->rflags & mask),
		       (unsigned long long)(guest->rflags & mask),
		       (unsigned long long)t->start.rflags);
}

static void print_bytes(struct report *r, const char *name, unsigned number, const uint8_t *host,
			const uint8_t *guest, const uint8_t *before, unsigned count)
{
	const uint8_t *rows[] = {host, guest, before};
	static const char *const who[] = {"host  ", "guest ", "before"};
	differ(r, "  %s%u:\n", name, number);
	for (unsigned k = 0; k < 3; k++) {
		char text[2 * 32 + 1];
		for (unsigned b = 0; b < count; b++)
			snprintf(text + 2 * b, 3, "%02x", rows[k][count - 1 - b]);
		differ(r, "    %s %s\n", who[k], text);
	}
}

static void compare_vectors(struct report *r, const struct test_case *t,
			    const struct test_state *host, const struct test_state *guest)
{
	if (!(is_gather(t) && host->vector != NO_FAULT))
		for (unsigned k = 0; k < 16; k++)
			if (memcmp(host->ymm[k], guest->ymm[k], 32))
				print_bytes(r, "ymm", k, host->ymm[k], guest->ymm[k],
					    t->start.ymm[k], 32);
	uint32_t mxcsr = ~0u, unmasked = ~t->start.mxcsr >> 7 & 0x18;
	if (host->mxcsr & unmasked)
		mxcsr = ~0x20u;
	if ((host->mxcsr ^ guest->mxcsr) & mxcsr)
		differ(r, "  mxcsr: host %x, guest %x, before %x\n", host->mxcsr, guest->mxcsr,
		       t->start.mxcsr);
}

static void compare_x87(struct report *r, const struct test_case *t, const struct test_state *host,
			const struct test_state *guest)
{
	const struct x87_image *h = &host->x87, *g = &guest->x87;
	if (host->vector != NO_FAULT && names_mmx(t))
		return;
	for (unsigned k = 0; k < 8; k++)
		if (memcmp(h->st[k], g->st[k], 10))
			print_bytes(r, "st", k, h->st[k], g->st[k], t->start.x87.st[k], 10);
	if (h->fcw != g->fcw || h->fsw != g->fsw || h->ftw != g->ftw)
		differ(r,
		       "  fcw fsw ftw: host %04x %04x %02x, guest %04x %04x %02x, "
		       "before %04x %04x %02x\n",
		       h->fcw, h->fsw, h->ftw, g->fcw, g->fsw, g->ftw, t->start.x87.fcw,
		       t->start.x87.fsw, t->start.x87.ftw);
	if (native_is_amd())
		return;
	if (h->fop != g->fop || h->fip != g->fip || h->fdp != g->fdp)
		differ(r, "  fop fip fdp: host %x %llx %llx, guest %x %llx %llx\n", h->fop,
		       (unsigned long long)h->fip, (unsigned long long)h->fdp, g->fop,
		       (unsigned long long)g->fip, (unsigned long long)g->fdp);
}

static void compare_memory(struct report *r, const uint8_t *host, const uint8_t *guest)
{
	if (!memcmp(host, guest, DATA_BYTES))
		return;
	unsigned printed = 0;
	for (unsigned k = 0; k < DATA_BYTES && printed < 16; k++)
		if (host[k] != guest[k]) {
			differ(r, "  memory %llx: host %02x, guest %02x\n",
			       (unsigned long long)(DATA + k), host[k], guest[k]);
			printed++;
		}
}

unsigned compare(const struct test_case *t, const struct test_state *host,
		 const struct test_state *guest, const uint8_t *host_data,
		 const uint8_t *guest_data, char *text, size_t text_bytes)
{
	struct report r = {.text = text, .size = text_bytes};
	if (is_either_fault(t, host, guest))
		return 0;
	if (is_optional_fault(t) && (host->vector == VECTOR_PF || host->vector == VECTOR_GP) &&
	    guest->vector == NO_FAULT)
		return 0;
	compare_end(&r, t, host, guest);
	compare_general(&r, t, host, guest);
	compare_vectors(&r, t, host, guest);
	compare_x87(&r, t, host, guest);
	if (!is_destination_undefined(t) && !(host->vector != NO_FAULT && is_long_access(t)))
		compare_memory(&r, host_data, guest_data);
	return r.differences;
}

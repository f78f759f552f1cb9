/*
 * What the CPU model offers: an instruction of a set that CPUID does not show raises #UD.
 *
 * Sets that no model can offer (AVX-512, XOP, 3DNow!, TSX, VMX, ...) are simply not in the table.
 * Some encodings were hints or no-operations before they got a meaning and are so again where the
 * meaning is not offered: ENDBR, BND*, RDSSP, PREFETCHW, CLDEMOTE; LZCNT and TZCNT are BSR and BSF.
 */
#include "engine/interp/host.h"

enum offer { OFFER_ALWAYS, OFFER_NEVER, OFFER_FEATURE };

struct set_rule {
	uint8_t offer;
	uint8_t feature;
};

static const struct rule_row {
	uint16_t set;
	struct set_rule rule;
} rows[] = {
#define ROW_ALWAYS(s)                   \
	{                               \
		ZYDIS_ISA_SET_##s,      \
		{                       \
			OFFER_ALWAYS, 0 \
		}                       \
	}
#define ROW(s, f)                                  \
	{                                          \
		ZYDIS_ISA_SET_##s,                 \
		{                                  \
			OFFER_FEATURE, FEATURE_##f \
		}                                  \
	}
	ROW_ALWAYS(I86),
	ROW_ALWAYS(I186),
	ROW_ALWAYS(I286PROTECTED),
	ROW_ALWAYS(I286REAL),
	ROW_ALWAYS(I386),
	ROW_ALWAYS(I486),
	ROW_ALWAYS(I486REAL),
	ROW_ALWAYS(PENTIUMREAL),
	ROW_ALWAYS(PPRO),
	ROW_ALWAYS(FAT_NOP),
	ROW_ALWAYS(PREFETCH_NOP),
	ROW_ALWAYS(PAUSE),
	ROW_ALWAYS(LONGMODE),
	ROW_ALWAYS(LAHF),
	ROW_ALWAYS(RDPMC),
	ROW_ALWAYS(LZCNT),
	ROW_ALWAYS(MPX),
	ROW_ALWAYS(CLDEMOTE),
	ROW_ALWAYS(PREFETCHWT1),
	ROW_ALWAYS(AMD),
	ROW(CMOV, CMOV),
	ROW(FCMOV, CMOV),
	ROW(X87, FPU),
	ROW(PENTIUMMMX, MMX),
	ROW(SSE, SSE),
	ROW(SSEMXCSR, SSE),
	ROW(SSE_PREFETCH, SSE),
	ROW(SSE2, SSE2),
	ROW(SSE2MMX, SSE2),
	ROW(SSE3, SSE3),
	ROW(SSE3X87, SSE3),
	ROW(SSSE3, SSSE3),
	ROW(SSSE3MMX, SSSE3),
	ROW(SSE4, SSE4_1),
	ROW(SSE42, SSE4_2),
	ROW(POPCNT, POPCNT),
	ROW(AES, AES),
	ROW(PCLMULQDQ, PCLMULQDQ),
	ROW(SHA, SHA),
	ROW(AVX, AVX),
	ROW(AVXAES, AES),
	ROW(AVX2, AVX2),
	ROW(AVX2GATHER, AVX2),
	ROW(F16C, F16C),
	ROW(FMA, FMA),
	ROW(BMI1, BMI1),
	ROW(BMI2, BMI2),
	ROW(ADOX_ADCX, ADX),
	ROW(MOVBE, MOVBE),
	ROW(CMPXCHG16B, CX16),
	ROW(FXSAVE, FXSR),
	ROW(FXSAVE64, FXSR),
	ROW(XSAVE, XSAVE),
	ROW(XSAVEOPT, XSAVEOPT),
	ROW(XSAVEC, XSAVEC),
	ROW(XSAVES, XSAVES),
	ROW(CLFSH, CLFLUSH),
	ROW(CLFLUSHOPT, CLFLUSHOPT),
	ROW(CLWB, CLWB),
	ROW(INVPCID, INVPCID),
	ROW(RDRAND, RDRAND),
	ROW(RDSEED, RDSEED),
	ROW(RDTSCP, RDTSCP),
	ROW(RDWRFSGS, FSGSBASE),
	ROW(SMAP, SMAP),
	ROW(RDPID, RDPID),
#undef ROW
#undef ROW_ALWAYS
};

static struct set_rule rule_of(ZydisISASet set)
{
	for (unsigned k = 0; k < ARRAY_COUNT(rows); k++)
		if (rows[k].set == set)
			return rows[k].rule;
	return (struct set_rule){OFFER_NEVER, 0};
}

/* Encodings that are no-operations without their meaning. */
static bool is_always_nop(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_ENDBR32:
	case ZYDIS_MNEMONIC_ENDBR64:
	case ZYDIS_MNEMONIC_RDSSPD:
	case ZYDIS_MNEMONIC_RDSSPQ:
	case ZYDIS_MNEMONIC_PREFETCH:
	case ZYDIS_MNEMONIC_PREFETCHW: return true;
	default: return false;
	}
}

/* Finer than Zydis's sets. */
static bool is_mnemonic_offered(const struct lowering *l)
{
	const struct cpu_model *m = l->model;
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_TZCNT: return true;
	case ZYDIS_MNEMONIC_VAESENC:
	case ZYDIS_MNEMONIC_VAESENCLAST:
	case ZYDIS_MNEMONIC_VAESDEC:
	case ZYDIS_MNEMONIC_VAESDECLAST:
	case ZYDIS_MNEMONIC_VAESIMC:
	case ZYDIS_MNEMONIC_VAESKEYGENASSIST:
		return cpu_has(m, FEATURE_AVX) && cpu_has(m, FEATURE_AES);
	case ZYDIS_MNEMONIC_VPCLMULQDQ:
		return cpu_has(m, FEATURE_AVX) && cpu_has(m, FEATURE_PCLMULQDQ);
	case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_SYSEXIT: return cpu_has(m, FEATURE_SEP);
	case ZYDIS_MNEMONIC_CMPXCHG8B: return cpu_has(m, FEATURE_CX8);
	default: return true;
	}
}

bool lower_is_offered(const struct lowering *l)
{
	const ZydisDecodedInstruction *d = l->d;
	if (is_always_nop(d->mnemonic))
		return true;
	if (d->mnemonic == ZYDIS_MNEMONIC_VMCALL || d->mnemonic == ZYDIS_MNEMONIC_VMMCALL)
		return l->model->kvm_leaves;
	if (d->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	    d->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false;
	if (d->mnemonic == ZYDIS_MNEMONIC_TZCNT)
		return true;
	struct set_rule rule = rule_of(d->meta.isa_set);
	if (rule.offer == OFFER_NEVER)
		return false;
	if (rule.offer == OFFER_FEATURE && !cpu_has(l->model, rule.feature))
		return false;
	return is_mnemonic_offered(l);
}

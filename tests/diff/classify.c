/*
 * What an instruction is to the generator: its group, whether it can be compared at all, and some
 * peculiarities that more than one place asks for. By the decoder's tables.
 */
#include "classify.h"

static const char *const group_names[] = {"integer", "string", "stack", "branch", "privileged",
					  "bmi",     "x87",    "mmx",	"sse",	  "avx",
					  "masked",  "state",  NULL};

const char *const *generator_groups(void)
{
	return group_names;
}

static bool has_class(const struct test_case *t, ZydisRegisterClass class)
{
	for (unsigned k = 0; k < t->d.operand_count; k++)
		if (t->operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(t->operands[k].reg.value) == class)
			return true;
	return false;
}

bool is_excluded(const struct test_case *t)
{
	if (has_class(t, ZYDIS_REGCLASS_SEGMENT))
		return true; /* selectors differ */
	switch (t->d.mnemonic) {
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_RDPMC:
	case ZYDIS_MNEMONIC_RDPID:
	case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_SGDT: /* the host may or may not have UMIP */
	case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_SLDT:
	case ZYDIS_MNEMONIC_STR:
	case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_LAR: /* look into descriptor tables */
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
	case ZYDIS_MNEMONIC_LSS:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_INT:
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
	case ZYDIS_MNEMONIC_RDFSBASE:
	case ZYDIS_MNEMONIC_RDGSBASE:
	case ZYDIS_MNEMONIC_XBEGIN:
	case ZYDIS_MNEMONIC_XEND:
	case ZYDIS_MNEMONIC_XABORT:
	case ZYDIS_MNEMONIC_PREFETCHWT1:
	case ZYDIS_MNEMONIC_FEMMS: return true;
	default: return t->d.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
	}
}

bool is_xsave(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64: return true;
	default: return false;
	}
}

bool is_xrstor(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_XRSTOR || m == ZYDIS_MNEMONIC_XRSTOR64;
}

static bool has_repeat_prefix(const struct test_case *t)
{
	for (unsigned k = 0; k < t->d.raw.prefix_count; k++)
		if (t->d.raw.prefixes[k].value == 0xf2 || t->d.raw.prefixes[k].value == 0xf3)
			return true;
	return false;
}

bool is_excluded_on_amd(const struct test_case *t)
{
	switch (t->d.mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE: return true;
	default: break;
	}
	if (t->d.meta.isa_ext == ZYDIS_ISA_EXT_SHA &&
	    t->operands[1].type == ZYDIS_OPERAND_TYPE_MEMORY)
		return true;
	if (t->d.meta.branch_type && t->d.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)
		return true;
	if (t->d.mnemonic == ZYDIS_MNEMONIC_LOOPE || t->d.mnemonic == ZYDIS_MNEMONIC_LOOPNE)
		return has_repeat_prefix(t);
	if (t->d.opcode_map == ZYDIS_OPCODE_MAP_0F && t->d.opcode == 0x0d &&
	    t->d.raw.modrm.mod == 3)
		return true;
	if (t->mode == 32 && t->d.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && t->d.raw.vex.W)
		return true;
	return is_xsave(t->d.mnemonic);
}

static enum group base_group(const struct test_case *t)
{
	switch (t->d.meta.category) {
	case ZYDIS_CATEGORY_STRINGOP: return GROUP_STRING;
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_POP: return GROUP_STACK;
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR: return GROUP_BRANCH;
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP: return GROUP_PRIVILEGED;
	default: break;
	}
	return t->d.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED ? GROUP_PRIVILEGED : GROUP_INTEGER;
}

static bool is_state(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_STMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_VSTMXCSR: return true;
	default: return is_xsave(m) || is_xrstor(m);
	}
}

static bool is_masked(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ: return true;
	default: return false;
	}
}

enum group group_of(const struct test_case *t)
{
	if (is_state(t->d.mnemonic))
		return GROUP_STATE;
	if (is_masked(t->d.mnemonic))
		return GROUP_MASKED;
	if (t->d.mnemonic == ZYDIS_MNEMONIC_CRC32 || t->d.meta.isa_set == ZYDIS_ISA_SET_POPCNT)
		return GROUP_BMI;
	switch (t->d.meta.isa_ext) {
	case ZYDIS_ISA_EXT_BASE:
	case ZYDIS_ISA_EXT_LONGMODE: return base_group(t);
	case ZYDIS_ISA_EXT_BMI1:
	case ZYDIS_ISA_EXT_BMI2:
	case ZYDIS_ISA_EXT_ADOX_ADCX:
	case ZYDIS_ISA_EXT_LZCNT:
	case ZYDIS_ISA_EXT_MOVBE: return GROUP_BMI;
	case ZYDIS_ISA_EXT_X87: return GROUP_X87;
	case ZYDIS_ISA_EXT_MMX: return GROUP_MMX;
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_SSE4:
	case ZYDIS_ISA_EXT_AES:
	case ZYDIS_ISA_EXT_PCLMULQDQ:
	case ZYDIS_ISA_EXT_SHA:
		return t->d.mnemonic == ZYDIS_MNEMONIC_FISTTP ? GROUP_X87
		       : has_class(t, ZYDIS_REGCLASS_MMX)     ? GROUP_MMX
							      : GROUP_SSE;
	case ZYDIS_ISA_EXT_AVX:
	case ZYDIS_ISA_EXT_AVX2:
	case ZYDIS_ISA_EXT_AVXAES:
	case ZYDIS_ISA_EXT_F16C:
	case ZYDIS_ISA_EXT_FMA: return GROUP_AVX;
	case ZYDIS_ISA_EXT_AVX2GATHER: return GROUP_MASKED;
	case ZYDIS_ISA_EXT_CLFSH:
	case ZYDIS_ISA_EXT_CLFLUSHOPT:
	case ZYDIS_ISA_EXT_CLWB: return GROUP_INTEGER;
	default: return GROUP_NONE;
	}
}

bool has_steps(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_DPPS:
	case ZYDIS_MNEMONIC_DPPD:
	case ZYDIS_MNEMONIC_HADDPS:
	case ZYDIS_MNEMONIC_HADDPD:
	case ZYDIS_MNEMONIC_HSUBPS:
	case ZYDIS_MNEMONIC_HSUBPD:
	case ZYDIS_MNEMONIC_VDPPS:
	case ZYDIS_MNEMONIC_VDPPD:
	case ZYDIS_MNEMONIC_VHADDPS:
	case ZYDIS_MNEMONIC_VHADDPD:
	case ZYDIS_MNEMONIC_VHSUBPS:
	case ZYDIS_MNEMONIC_VHSUBPD: return true;
	default: return false;
	}
}

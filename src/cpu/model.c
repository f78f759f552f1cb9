/*
 * The catalogue of CPU models and the parser of `--cpu`.
 *
 * A model is a level: it has every feature whose level is not above its own. A feature that the
 * engines execute with the host's own instruction is legal only where the host has it; the rest is
 * our own code and always legal. Features that build on others never stand alone: taking one away
 * takes what builds on it, asking for one without its base is an error.
 */
#include <cpuid.h>
#include <stdio.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "x86/arch.h"

enum level { LEVEL_V1, LEVEL_V2, LEVEL_V3, LEVEL_MAX, LEVEL_ASKED };

struct feature_row {
	const char *name;
	uint32_t leaf;
	uint8_t subleaf, reg, bit;
};

enum { EAX, EBX, ECX, EDX };

static const struct feature_row rows[FEATURE_COUNT] = {
#define FEATURE(symbol, name, leaf, subleaf, reg, bit) \
	[FEATURE_##symbol] = {name, leaf, subleaf, reg, bit},
#include "cpu/features.def"
#undef FEATURE
};

/* What is not listed is LEVEL_V1: the base, and all that an operating system's kernel likes to
 * find. */
static const uint8_t levels[FEATURE_COUNT] = {
	[FEATURE_SSE3] = LEVEL_V2,	 [FEATURE_SSSE3] = LEVEL_V2,
	[FEATURE_SSE4_1] = LEVEL_V2,	 [FEATURE_SSE4_2] = LEVEL_V2,
	[FEATURE_POPCNT] = LEVEL_V2,	 [FEATURE_CX16] = LEVEL_V2,
	[FEATURE_LAHF_LM] = LEVEL_V2,	 [FEATURE_XSAVE] = LEVEL_V3,
	[FEATURE_XSAVEOPT] = LEVEL_V3,	 [FEATURE_XSAVEC] = LEVEL_V3,
	[FEATURE_XGETBV1] = LEVEL_V3,	 [FEATURE_AVX] = LEVEL_V3,
	[FEATURE_AVX2] = LEVEL_V3,	 [FEATURE_BMI1] = LEVEL_V3,
	[FEATURE_BMI2] = LEVEL_V3,	 [FEATURE_F16C] = LEVEL_V3,
	[FEATURE_FMA] = LEVEL_V3,	 [FEATURE_LZCNT] = LEVEL_V3,
	[FEATURE_MOVBE] = LEVEL_V3,	 [FEATURE_AES] = LEVEL_MAX,
	[FEATURE_PCLMULQDQ] = LEVEL_MAX, [FEATURE_SHA] = LEVEL_MAX,
	[FEATURE_ADX] = LEVEL_MAX,	 [FEATURE_CLFLUSHOPT] = LEVEL_MAX,
	[FEATURE_CLWB] = LEVEL_MAX,	 [FEATURE_RDPID] = LEVEL_MAX,
	[FEATURE_FSRM] = LEVEL_MAX,	 [FEATURE_XSAVES] = LEVEL_MAX,
	[FEATURE_LA57] = LEVEL_ASKED,
};

/* Executed by the host's own instruction. */
static const bool needs_host[FEATURE_COUNT] = {
	[FEATURE_SSE3] = true,	 [FEATURE_SSSE3] = true, [FEATURE_SSE4_1] = true,
	[FEATURE_SSE4_2] = true, [FEATURE_AES] = true,	 [FEATURE_PCLMULQDQ] = true,
	[FEATURE_SHA] = true,	 [FEATURE_AVX] = true,	 [FEATURE_AVX2] = true,
	[FEATURE_FMA] = true,	 [FEATURE_F16C] = true,	 [FEATURE_BMI1] = true,
	[FEATURE_BMI2] = true,	 [FEATURE_LZCNT] = true, [FEATURE_POPCNT] = true,
	[FEATURE_ADX] = true,
};

/* first builds on second */
static const uint8_t builds_on[][2] = {
	{FEATURE_SSE, FEATURE_FXSR},	      {FEATURE_SSE2, FEATURE_SSE},
	{FEATURE_SSE3, FEATURE_SSE2},	      {FEATURE_SSSE3, FEATURE_SSE3},
	{FEATURE_SSE4_1, FEATURE_SSSE3},      {FEATURE_SSE4_2, FEATURE_SSE4_1},
	{FEATURE_AES, FEATURE_SSE2},	      {FEATURE_PCLMULQDQ, FEATURE_SSE2},
	{FEATURE_SHA, FEATURE_SSE2},	      {FEATURE_XSAVE, FEATURE_FXSR},
	{FEATURE_AVX, FEATURE_XSAVE},	      {FEATURE_AVX, FEATURE_SSE4_2},
	{FEATURE_AVX2, FEATURE_AVX},	      {FEATURE_FMA, FEATURE_AVX},
	{FEATURE_F16C, FEATURE_AVX},	      {FEATURE_XSAVEOPT, FEATURE_XSAVE},
	{FEATURE_XSAVEC, FEATURE_XSAVE},      {FEATURE_XGETBV1, FEATURE_XSAVE},
	{FEATURE_XSAVES, FEATURE_XSAVEC},     {FEATURE_LM, FEATURE_PAE},
	{FEATURE_PDPE1GB, FEATURE_LM},	      {FEATURE_LA57, FEATURE_LM},
	{FEATURE_INVPCID, FEATURE_PCID},      {FEATURE_X2APIC, FEATURE_APIC},
	{FEATURE_PCID, FEATURE_LM},	      {FEATURE_FSGSBASE, FEATURE_LM},
	{FEATURE_TSC_DEADLINE, FEATURE_APIC},
};

/* An x86-64 processor is not one without these. */
static const uint8_t fixed[] = {FEATURE_FPU,  FEATURE_TSC,  FEATURE_MSR,     FEATURE_PAE,
				FEATURE_CX8,  FEATURE_CMOV, FEATURE_FXSR,    FEATURE_SSE,
				FEATURE_SSE2, FEATURE_LM,   FEATURE_SYSCALL, FEATURE_NX,
				FEATURE_APIC, FEATURE_MMX};

static const struct {
	const char *name, *text;
	enum level level;
} models[] = {
	{"x86-64", "the base: SSE2, and what kernels expect of a processor", LEVEL_V1},
	{"x86-64-v2", "x86-64 with SSE4.2, POPCNT, CMPXCHG16B", LEVEL_V2},
	{"x86-64-v3", "x86-64-v2 with AVX2, FMA, BMI1, BMI2, MOVBE", LEVEL_V3},
	{"max", "everything that this program implements and this host has", LEVEL_MAX},
	{"host", "the same as max", LEVEL_MAX},
};

const char *cpu_model_name(size_t i, const char **description)
{
	if (i >= ARRAY_COUNT(models))
		return NULL;
	if (description)
		*description = models[i].text;
	return models[i].name;
}

const char *cpu_feature_name(enum cpu_feature f)
{
	return rows[f].name;
}

static bool host_saves_ymm(void)
{
	uint32_t a, b, c, d, xcr0, high;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return false;
	__asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
	return (xcr0 & 6) == 6;
}

static bool host_has(enum cpu_feature f)
{
	uint32_t r[4];
	const struct feature_row *row = &rows[f];

	if (!__get_cpuid_count(row->leaf, row->subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX]))
		return false;
	if (!(r[row->reg] >> row->bit & 1))
		return false;
	bool is_vex = f == FEATURE_AVX || f == FEATURE_AVX2 || f == FEATURE_FMA ||
		      f == FEATURE_F16C;
	return !is_vex || host_saves_ymm();
}

static bool is_legal(enum cpu_feature f)
{
	return !needs_host[f] || host_has(f);
}

static void append(char *text, size_t size_bytes, const char *word)
{
	size_t used = strlen(text);

	snprintf(text + used, size_bytes - used, "%s%s", used ? " " : "", word);
}

static int unknown_model(struct error *e, const char *name)
{
	char list[200] = "";

	for (size_t i = 0; i < ARRAY_COUNT(models); i++)
		append(list, sizeof(list), models[i].name);
	return error_set(e, -22, "unknown CPU model '%s'; the models are: %s", name, list);
}

static int unknown_feature(struct error *e, const char *name)
{
	char list[540] = "";

	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		if (is_legal((enum cpu_feature)f) && rows[f].leaf != 1)
			append(list, sizeof(list), rows[f].name);
	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		if (is_legal((enum cpu_feature)f) && rows[f].leaf == 1 && rows[f].reg == ECX)
			append(list, sizeof(list), rows[f].name);
	return error_set(e, -22, "unknown CPU feature '%s'; those that can be switched: %s", name,
			 list);
}

static int feature_from_name(const char *name)
{
	static const struct {
		const char *other;
		enum cpu_feature f;
	} synonyms[] = {
		{"lzcnt", FEATURE_LZCNT},
		{"pni", FEATURE_SSE3},
		{"sse4.1", FEATURE_SSE4_1},
		{"sse4-1", FEATURE_SSE4_1},
		{"sse4.2", FEATURE_SSE4_2},
		{"sse4-2", FEATURE_SSE4_2},
		{"xd", FEATURE_NX},
		{"tsc_deadline_timer", FEATURE_TSC_DEADLINE},
		{"tsc-adjust", FEATURE_TSC_ADJUST},
		{"sha_ni", FEATURE_SHA},
		{"arch_capabilities", FEATURE_ARCH_CAPABILITIES},
		{"lahf-lm", FEATURE_LAHF_LM},
		{"cmpxchg16b", FEATURE_CX16},
		{"spec_ctrl", FEATURE_SPEC_CTRL},
	};

	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		if (!strcmp(rows[f].name, name))
			return (int)f;
	for (size_t i = 0; i < ARRAY_COUNT(synonyms); i++)
		if (!strcmp(synonyms[i].other, name))
			return (int)synonyms[i].f;
	return -1;
}

/* One item behind the model's name: +feature, -feature, feature=on, feature=off. `choice` remembers
 * what was asked: 1 on, -1 off. */
static int apply_item(struct cpu_model *m, char *item, int8_t choice[FEATURE_COUNT],
		      struct error *e)
{
	char *name = item, *equals = strchr(item, '=');
	bool on;

	if (*item == '+' || *item == '-') {
		on = *item == '+';
		name++;
	} else if (equals && (!strcmp(equals, "=on") || !strcmp(equals, "=off"))) {
		on = equals[2] == 'n';
		*equals = 0;
	} else {
		return error_set(e, -22,
				 "CPU feature '%s' is neither +NAME, -NAME, NAME=on nor NAME=off",
				 item);
	}
	int f = feature_from_name(name);
	if (f < 0)
		return unknown_feature(e, name);
	if (on && !is_legal((enum cpu_feature)f))
		return error_set(e, -95, "this host's processor lacks the CPU feature '%s'", name);
	for (size_t i = 0; !on && i < ARRAY_COUNT(fixed); i++)
		if (fixed[i] == f)
			return error_set(e, -22, "an x86-64 processor cannot be without '%s'",
					 name);
	m->has[f] = on;
	choice[f] = on ? 1 : -1;
	return 0;
}

static int settle_dependencies(struct cpu_model *m, const int8_t choice[FEATURE_COUNT],
			       struct error *e)
{
	bool changed = true;

	while (changed) {
		changed = false;
		for (size_t i = 0; i < ARRAY_COUNT(builds_on); i++) {
			unsigned f = builds_on[i][0], base = builds_on[i][1];
			if (!m->has[f] || m->has[base])
				continue;
			if (choice[f] > 0)
				return error_set(e, -22, "CPU feature '%s' needs '%s'",
						 rows[f].name, rows[base].name);
			m->has[f] = false;
			changed = true;
		}
	}
	return 0;
}

static int fill_level(struct cpu_model *m, size_t model, struct error *e)
{
	char missing[300] = "";

	for (unsigned f = 0; f < FEATURE_COUNT; f++) {
		m->has[f] = levels[f] <= models[model].level;
		if (!m->has[f] || is_legal((enum cpu_feature)f))
			continue;
		m->has[f] = false;
		if (models[model].level != LEVEL_MAX)
			append(missing, sizeof(missing), rows[f].name);
	}
	if (missing[0])
		return error_set(
			e, -95,
			"this host's processor lacks what CPU model '%s' needs: %s (`max` is "
			"what it has)",
			models[model].name, missing);
	return 0;
}

static void fill_identity(struct cpu_model *m, size_t model)
{
	memset(m->name, 0, sizeof(m->name));
	memset(m->brand, 0, sizeof(m->brand));
	snprintf(m->name, sizeof(m->name), "%s", models[model].name);
	memcpy(m->vendor, "GenuineIntel", 13);
	snprintf(m->brand, sizeof(m->brand), "Gnomon virtual processor (%.20s)", m->name);
	/* Family 6, model FEH, stepping 8: a model that nobody knows. An operating system has no
	 * errata or old microcode to look for, and a program that chooses its code by the model's
	 * name (GCC's target_clones) has to look at the features. */
	m->signature = 0x000f06e8;
	m->physical_bits = 46;
	m->linear_bits = m->has[FEATURE_LA57] ? 57 : 48;
}

int cpu_model_parse(struct cpu_model *m, const char *spec, struct error *e)
{
	char copy[512], *rest = copy;
	int8_t choice[FEATURE_COUNT] = {0};
	size_t model;
	int r;

	if (strlen(spec) >= sizeof(copy))
		return error_set(e, -22, "the CPU specification is longer than %zu characters",
				 sizeof(copy) - 1);
	strcpy(copy, spec);
	char *name = strsep(&rest, ",");
	for (model = 0; model < ARRAY_COUNT(models); model++)
		if (!strcmp(models[model].name, name))
			break;
	if (model == ARRAY_COUNT(models))
		return unknown_model(e, name);
	r = fill_level(m, model, e);
	while (!r && rest)
		r = apply_item(m, strsep(&rest, ","), choice, e);
	if (!r)
		r = settle_dependencies(m, choice, e);
	if (!r)
		fill_identity(m, model);
	return r;
}

enum cpu_feature cpu_feature_find(const char *name)
{
	unsigned f = 0;
	while (f < FEATURE_COUNT && strcmp(rows[f].name, name))
		f++;
	return (enum cpu_feature)f;
}

int cpu_model_check_host(const struct cpu_model *m, struct error *e)
{
	char missing[400] = "";
	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		if (m->has[f] && !is_legal((enum cpu_feature)f))
			append(missing, sizeof(missing), rows[f].name);
	if (missing[0])
		return error_set(e, -95,
				 "this host's processor lacks features that the guest uses: %s",
				 missing);
	return 0;
}

int cpu_model_check_covers(const struct cpu_model *m, const struct cpu_model *wanted,
			   struct error *e)
{
	char missing[400] = "";
	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		if (wanted->has[f] && !m->has[f])
			append(missing, sizeof(missing), rows[f].name);
	if (missing[0])
		return error_set(e, -95, "'%s' lacks features that the guest uses: %s", m->name,
				 missing);
	return 0;
}

uint64_t cpu_xcr0_mask(const struct cpu_model *m)
{
	if (!cpu_has(m, FEATURE_XSAVE))
		return 0;
	return XCR0_X87 | XCR0_SSE | (cpu_has(m, FEATURE_AVX) ? XCR0_AVX : 0);
}

uint64_t cpu_cr4_mask(const struct cpu_model *m)
{
	static const struct {
		enum cpu_feature f;
		uint64_t bits;
	} table[] = {
		{FEATURE_VME, CR4_VME | CR4_PVI},
		{FEATURE_TSC, CR4_TSD},
		{FEATURE_DE, CR4_DE},
		{FEATURE_PSE, CR4_PSE},
		{FEATURE_PAE, CR4_PAE},
		{FEATURE_MCE, CR4_MCE},
		{FEATURE_PGE, CR4_PGE},
		{FEATURE_FXSR, CR4_OSFXSR},
		{FEATURE_SSE, CR4_OSXMMEXCPT},
		{FEATURE_UMIP, CR4_UMIP},
		{FEATURE_LA57, CR4_LA57},
		{FEATURE_FSGSBASE, CR4_FSGSBASE},
		{FEATURE_PCID, CR4_PCIDE},
		{FEATURE_XSAVE, CR4_OSXSAVE},
		{FEATURE_SMEP, CR4_SMEP},
		{FEATURE_SMAP, CR4_SMAP},
	};
	uint64_t mask = CR4_PCE;

	for (size_t i = 0; i < ARRAY_COUNT(table); i++)
		if (cpu_has(m, table[i].f))
			mask |= table[i].bits;
	return mask;
}

uint64_t cpu_efer_mask(const struct cpu_model *m)
{
	return (cpu_has(m, FEATURE_SYSCALL) ? EFER_SCE : 0) |
	       (cpu_has(m, FEATURE_LM) ? EFER_LME | EFER_LMA : 0) |
	       (cpu_has(m, FEATURE_NX) ? EFER_NXE : 0);
}

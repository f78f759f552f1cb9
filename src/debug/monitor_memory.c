/* The monitor's looks at memory: x and xp, the walk of one address, the list of all mappings. */
#include <Zydis/Zydis.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/vcpu.h"
#include "debug/monitor_private.h"
#include "memory/memory.h"
#include "paging/mmu.h"
#include "vm/vm.h"

typedef unsigned long long ull;

#define EXAMINE_MAX 4096u
#define STRING_MAX 200u
#define MAPPINGS_MAX 2000u

/* ---- x, xp ---- */

struct examine {
	struct monitor *m;
	unsigned count;
	char format;   /* x d u o c s i */
	unsigned size; /* 1 2 4 8 */
	bool is_physical;
	uint64_t address;
};

static bool read_at(const struct examine *x, uint64_t address, void *bytes, size_t count)
{
	return x->is_physical ? debug_read_physical(x->m->vm, address, bytes, count)
			      : debug_read_virtual(x->m->vm, x->m->vcpu, address, bytes, count);
}

/* "/20xw" in front of the address. */
static bool parse_format(struct examine *x, const char **text)
{
	const char *p = *text;
	x->count = 1;
	x->format = 'x';
	x->size = 8;
	if (*p != '/')
		return true;
	p++;
	if (isdigit((unsigned char)*p)) {
		char *end;
		unsigned long n = strtoul(p, &end, 10);
		x->count = n < EXAMINE_MAX ? (unsigned)n : EXAMINE_MAX;
		p = end;
	}
	for (; *p && *p != ' '; p++) {
		switch (*p) {
		case 'x':
		case 'd':
		case 'u':
		case 'o':
		case 's':
		case 'i': x->format = *p; break;
		case 'c':
			x->format = 'c';
			x->size = 1;
			break;
		case 'b': x->size = 1; break;
		case 'h': x->size = 2; break;
		case 'w': x->size = 4; break;
		case 'g': x->size = 8; break;
		default: return false;
		}
	}
	*text = p + strspn(p, " ");
	return true;
}

static void print_value(const struct examine *x, uint64_t v)
{
	unsigned digits = x->size * 2;
	int shift = (int)(64 - 8 * x->size);
	switch (x->format) {
	case 'd': monitor_print(x->m, " %lld", (long long)(v << shift) >> shift); break;
	case 'u': monitor_print(x->m, " %llu", (ull)v); break;
	case 'o': monitor_print(x->m, " 0%llo", (ull)v); break;
	case 'c': monitor_print(x->m, " %c", isprint((int)(v & 0xff)) ? (char)v : '.'); break;
	default: monitor_print(x->m, " 0x%0*llx", (int)digits, (ull)v); break;
	}
}

static void examine_values(struct examine *x)
{
	unsigned per_line = x->format == 'c' ? 32 : x->size == 1 ? 8 : 16 / x->size;
	for (unsigned i = 0; i < x->count; i++) {
		uint64_t v = 0;
		if (i % per_line == 0)
			monitor_print(x->m, "%s%016llx:", i ? "\n" : "", (ull)x->address);
		if (!read_at(x, x->address, &v, x->size)) {
			monitor_print(x->m, " not there\n");
			return;
		}
		print_value(x, v);
		x->address += x->size;
	}
	monitor_print(x->m, "\n");
}

static void examine_strings(struct examine *x)
{
	for (unsigned i = 0; i < x->count; i++) {
		char text[STRING_MAX + 1];
		unsigned n = 0;
		uint8_t c = 0;
		uint64_t start = x->address;
		bool is_there = true;
		while (n < STRING_MAX && (is_there = read_at(x, x->address, &c, 1)) && c) {
			text[n++] = isprint(c) ? (char)c : '.';
			x->address++;
		}
		text[n] = 0;
		x->address++;
		monitor_print(x->m, "%016llx: \"%s\"%s\n", (ull)start, text,
			      is_there ? "" : " and then nothing is there");
		if (!is_there)
			return;
	}
}

static ZydisMachineMode code_mode(const struct vcpu *v, ZydisStackWidth *width)
{
	if (vcpu_is_64bit(v)) {
		*width = ZYDIS_STACK_WIDTH_64;
		return ZYDIS_MACHINE_MODE_LONG_64;
	}
	if (vcpu_is_protected(v) && !vcpu_is_v86(v) &&
	    (v->state.seg[SEG_CS].attributes & ATTR_DB)) {
		*width = ZYDIS_STACK_WIDTH_32;
		return ZYDIS_MACHINE_MODE_LEGACY_32;
	}
	*width = ZYDIS_STACK_WIDTH_16;
	return vcpu_is_protected(v) ? ZYDIS_MACHINE_MODE_LEGACY_16 : ZYDIS_MACHINE_MODE_REAL_16;
}

static size_t read_code(const struct examine *x, uint8_t bytes[16])
{
	size_t n = 0;
	while (n < 15 && read_at(x, x->address + n, bytes + n, 1))
		n++;
	return n;
}

static void examine_code(struct examine *x)
{
	ZydisDecoder decoder;
	ZydisFormatter formatter;
	ZydisStackWidth width;
	ZydisMachineMode mode = code_mode(vm_vcpu(x->m->vm, x->m->vcpu), &width);
	ZydisDecoderInit(&decoder, mode, width);
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	for (unsigned i = 0; i < x->count; i++) {
		uint8_t bytes[16];
		size_t n = read_code(x, bytes);
		ZydisDecodedInstruction d;
		ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
		char text[160] = "(bad)";
		size_t length = 1;
		if (!n) {
			monitor_print(x->m, "%016llx: not there\n", (ull)x->address);
			return;
		}
		if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, n, &d, operands))) {
			length = d.length;
			ZydisFormatterFormatInstruction(&formatter, &d, operands,
							d.operand_count_visible, text, sizeof(text),
							x->address, NULL);
		}
		monitor_print(x->m, "%016llx: ", (ull)x->address);
		for (size_t k = 0; k < 10; k++)
			monitor_print(x->m, k < length ? "%02x" : "  ", bytes[k]);
		monitor_print(x->m, " %s\n", text);
		x->address += length;
	}
}

static void examine(struct monitor *m, const char *rest, bool is_physical)
{
	struct examine x = {.m = m, .is_physical = is_physical};
	if (!parse_format(&x, &rest)) {
		monitor_print(m, "the format is count, x d u o c s or i, b h w or g: x/4xw $rsp\n");
		return;
	}
	if (!monitor_address(m, rest, &x.address, NULL))
		return;
	if (x.format == 's')
		examine_strings(&x);
	else if (x.format == 'i')
		examine_code(&x);
	else
		examine_values(&x);
}

void monitor_examine(struct monitor *m, const char *rest)
{
	examine(m, rest, false);
}

void monitor_examine_physical(struct monitor *m, const char *rest)
{
	examine(m, rest, true);
}

/* ---- walk ---- */

static const char *level_name(unsigned level)
{
	static const char *const names[] = {"page", "PTE", "PDE", "PDPTE", "PML4E", "PML5E"};
	return level < ARRAY_COUNT(names) ? names[level] : "?";
}

static void print_step(struct monitor *m, const struct mmu_walk_step *s)
{
	uint64_t e = s->entry;
	monitor_print(m, "  %-5s at gpa %012llx = %016llx %s%s%s%s%s%s%s%s\n", level_name(s->level),
		      (ull)s->entry_address.v, (ull)e, e & PTE_P ? "present" : "NOT PRESENT",
		      e & PTE_W ? " write" : "", e & PTE_U ? " user" : "", e & PTE_A ? " A" : "",
		      e & PTE_D ? " D" : "", s->level > 1 && e & PTE_PS ? " large" : "",
		      s->level == 1 && e & PTE_G ? " global" : "", e & PTE_NX ? " NX" : "");
}

void monitor_walk(struct monitor *m, const char *rest)
{
	uint64_t address;
	if (!monitor_address(m, rest, &address, NULL))
		return;
	struct mmu_walk_step steps[6];
	unsigned n = mmu_walk_steps(vm_mmu(m->vm, m->vcpu), gva(address), steps);
	const struct vcpu_state *s = &vm_vcpu(m->vm, m->vcpu)->state;
	monitor_print(m, "gva %016llx, cr3 %llx%s\n", (ull)address, (ull)s->cr3,
		      s->cr0 & CR0_PG ? "" : ", paging off");
	for (unsigned i = 0; i < n; i++)
		if (steps[i].level)
			print_step(m, &steps[i]);
	if (!n) {
		monitor_print(m, "  not canonical\n");
	} else if (steps[n - 1].level) {
		monitor_print(m, "  maps to nothing\n");
	} else {
		gpa_t physical = steps[n - 1].entry_address;
		uint8_t *host = memory_host(vm_memory(m->vm), physical, 1);
		if (host)
			monitor_print(m, "  gpa %012llx, host %p\n", (ull)physical.v, (void *)host);
		else
			monitor_print(m, "  gpa %012llx, not RAM\n", (ull)physical.v);
	}
}

/* ---- info mem ---- */

struct mapping {
	uint64_t start, end; /* [start, end); start == end: none yet */
	bool is_writable, is_user, is_executable;
};

static void print_mapping(struct monitor *m, const struct mapping *r)
{
	monitor_print(m, "%016llx-%016llx %14llx %c%c%c\n", (ull)r->start, (ull)r->end,
		      (ull)(r->end - r->start), r->is_user ? 'u' : '-', r->is_writable ? 'w' : '-',
		      r->is_executable ? 'x' : '-');
}

static unsigned level_shift(const struct vcpu_state *s, unsigned level)
{
	return 12 + (level ? level - 1 : 0) * (s->cr4 & CR4_PAE ? 9 : 10);
}

/* What one address maps to: the bytes until the next decision, and whether they are mapped. */
static uint64_t look(struct monitor *m, uint64_t address, struct mapping *out, bool *is_mapped)
{
	const struct vcpu_state *s = &vm_vcpu(m->vm, m->vcpu)->state;
	struct mmu_walk_step steps[6];
	unsigned n = mmu_walk_steps(vm_mmu(m->vm, m->vcpu), gva(address), steps);
	*is_mapped = n && steps[n - 1].level == 0;
	*out = (struct mapping){.is_writable = true, .is_user = true, .is_executable = true};
	unsigned leaf = n ? steps[n - 1].level : 1;
	for (unsigned i = 0; i < n && steps[i].level; i++) {
		bool has_rights = steps[i].level != 3 || (s->efer & EFER_LMA);
		leaf = steps[i].level;
		out->is_writable &= !has_rights || (steps[i].entry & PTE_W);
		out->is_user &= !has_rights || (steps[i].entry & PTE_U);
		out->is_executable &= !(steps[i].entry & PTE_NX);
	}
	uint64_t span = 1ull << level_shift(s, leaf);
	return span - (address & (span - 1));
}

void monitor_mappings(struct monitor *m)
{
	const struct vcpu_state *s = &vm_vcpu(m->vm, m->vcpu)->state;
	if (!(s->cr0 & CR0_PG)) {
		monitor_print(m, "paging is off: every address means itself\n");
		return;
	}
	bool is_long = s->efer & EFER_LMA;
	unsigned width = !is_long ? 32 : s->cr4 & CR4_LA57 ? 57 : 48;
	struct mapping open = {0}, here;
	uint64_t address = 0;
	unsigned lines = 0;
	bool is_last = false;
	while (!is_last && lines < MAPPINGS_MAX) {
		bool is_mapped;
		uint64_t span = look(m, address, &here, &is_mapped);
		bool goes_on = is_mapped && open.end == address && open.start != open.end &&
			       here.is_writable == open.is_writable &&
			       here.is_user == open.is_user &&
			       here.is_executable == open.is_executable;
		if (!goes_on && open.start != open.end) {
			print_mapping(m, &open);
			lines++;
			open = (struct mapping){0};
		}
		if (is_mapped && !goes_on) {
			open = here;
			open.start = address;
		}
		address += span;
		if (is_mapped)
			open.end = address;
		/* From the end of the lower canonical half to the upper one. */
		if (is_long && address == 1ull << (width - 1))
			address = ~0ull << (width - 1);
		is_last = is_long ? address == 0 : address >= 1ull << 32;
	}
	if (open.start != open.end)
		print_mapping(m, &open);
	if (lines >= MAPPINGS_MAX)
		monitor_print(m, "and more\n");
}

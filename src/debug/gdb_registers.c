#include "debug/gdb_registers.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cpu/vcpu.h"

enum register_kind {
	KIND_GPR,
	KIND_RIP,
	KIND_FLAGS,
	KIND_SELECTOR,
	KIND_ST,
	KIND_X87, /* control registers of the x87, in gdb's order */
	KIND_XMM,
	KIND_MXCSR,
	KIND_BASE,
	KIND_YMM_HIGH,
	KIND_SYSTEM,
};

/* One run of registers of a kind. `names` are separated by spaces, or "st*" for numbered ones. */
struct run {
	const char *feature; /* NULL: the same as the run before */
	const char *names;
	const char *type;
	enum register_kind kind;
	uint8_t count;
	uint8_t bytes;
	uint8_t map[16]; /* gdb's order to ours; only kinds that need it */
};

static const struct run runs[] = {
	{"org.gnu.gdb.i386.core",
	 "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15",
	 "int64",
	 KIND_GPR,
	 16,
	 8,
	 {GPR_RAX, GPR_RBX, GPR_RCX, GPR_RDX, GPR_RSI, GPR_RDI, GPR_RBP, GPR_RSP, 8, 9, 10, 11, 12,
	  13, 14, 15}},
	{NULL, "rip", "code_ptr", KIND_RIP, 1, 8, {0}},
	{NULL, "eflags", "i386_eflags", KIND_FLAGS, 1, 4, {0}},
	{NULL,
	 "cs ss ds es fs gs",
	 "int32",
	 KIND_SELECTOR,
	 6,
	 4,
	 {SEG_CS, SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS}},
	{NULL, "st*", "i387_ext", KIND_ST, 8, 10, {0}},
	{NULL, "fctrl fstat ftag fiseg fioff foseg fooff fop", "int", KIND_X87, 8, 4, {0}},
	{"org.gnu.gdb.i386.sse", "xmm*", "vec128", KIND_XMM, 16, 16, {0}},
	{NULL, "mxcsr", "i386_mxcsr", KIND_MXCSR, 1, 4, {0}},
	{"org.gnu.gdb.i386.segments", "fs_base gs_base", "int", KIND_BASE, 2, 8, {SEG_FS, SEG_GS}},
	{"org.gnu.gdb.i386.avx", "ymm*h", "uint128", KIND_YMM_HIGH, 16, 16, {0}},
	{"org.gnomon.x86.system",
	 "cr0 cr2 cr3 cr4 cr8 efer k_gs_base gdt_base idt_base",
	 "uint64",
	 KIND_SYSTEM,
	 9,
	 8,
	 {0}},
};

/* The run of register `number`; *index is its place in it. */
static const struct run *find(unsigned number, unsigned *index)
{
	for (size_t i = 0; i < ARRAY_COUNT(runs); i++) {
		if (number < runs[i].count) {
			*index = number;
			return &runs[i];
		}
		number -= runs[i].count;
	}
	return NULL;
}

unsigned gdb_register_count(void)
{
	unsigned n = 0;
	for (size_t i = 0; i < ARRAY_COUNT(runs); i++)
		n += runs[i].count;
	return n;
}

unsigned gdb_register_bytes(unsigned number)
{
	unsigned index;
	const struct run *r = find(number, &index);
	return r ? r->bytes : 0;
}

/* ---- values ---- */

static uint64_t *system_register(struct vcpu_state *s, unsigned index)
{
	uint64_t *const list[] = {&s->cr0,
				  &s->cr2,
				  &s->cr3,
				  &s->cr4,
				  &s->cr8,
				  &s->efer,
				  &s->kernel_gs_base,
				  &s->gdtr.base,
				  &s->idtr.base};
	return list[index];
}

/* The tag word has two bits a register (3 empty); the state has one (1 in use). */
static uint32_t tag_word(uint8_t abridged)
{
	uint32_t word = 0;
	for (unsigned i = 0; i < 8; i++)
		if (!(abridged & 1u << i))
			word |= 3u << (2 * i);
	return word;
}

static uint8_t abridge(uint32_t word)
{
	uint8_t tags = 0;
	for (unsigned i = 0; i < 8; i++)
		if ((word >> (2 * i) & 3) != 3)
			tags |= (uint8_t)(1u << i);
	return tags;
}

static uint32_t x87_get(const struct fpu_state *f, unsigned index)
{
	switch (index) {
	case 0: return f->fcw;
	case 1: return f->fsw;
	case 2: return tag_word(f->ftw);
	case 3: return f->fcs;
	case 4: return (uint32_t)f->fip;
	case 5: return f->fds;
	case 6: return (uint32_t)f->fdp;
	default: return f->fop;
	}
}

static void x87_set(struct fpu_state *f, unsigned index, uint32_t v)
{
	switch (index) {
	case 0: f->fcw = (uint16_t)v; break;
	case 1: f->fsw = (uint16_t)v; break;
	case 2: f->ftw = abridge(v); break;
	case 3: f->fcs = (uint16_t)v; break;
	case 4: f->fip = v; break;
	case 5: f->fds = (uint16_t)v; break;
	case 6: f->fdp = v; break;
	default: f->fop = v & 0x7ff; break;
	}
}

void gdb_register_get(const struct vcpu *v, unsigned number, uint8_t bytes[GDB_REGISTER_BYTES_MAX])
{
	unsigned i;
	const struct run *r = find(number, &i);
	const struct vcpu_state *s = &v->state;
	uint64_t value = 0;
	if (!r)
		return;
	switch (r->kind) {
	case KIND_GPR: value = s->gpr[r->map[i]]; break;
	case KIND_RIP: value = s->rip; break;
	case KIND_FLAGS: value = vcpu_rflags(v); break;
	case KIND_SELECTOR: value = s->seg[r->map[i]].selector; break;
	case KIND_X87: value = x87_get(&s->fpu, i); break;
	case KIND_MXCSR: value = s->fpu.mxcsr; break;
	case KIND_BASE: value = s->seg[r->map[i]].base; break;
	case KIND_SYSTEM: value = *system_register((struct vcpu_state *)s, i); break;
	case KIND_ST: memcpy(bytes, s->fpu.st[i], 10); return;
	case KIND_XMM: memcpy(bytes, s->fpu.ymm[i], 16); return;
	case KIND_YMM_HIGH: memcpy(bytes, s->fpu.ymm[i] + 16, 16); return;
	}
	memcpy(bytes, &value, r->bytes);
}

void gdb_register_set(struct vcpu *v, unsigned number, const uint8_t *bytes)
{
	unsigned i;
	const struct run *r = find(number, &i);
	struct vcpu_state *s = &v->state;
	uint64_t value = 0;
	if (!r)
		return;
	memcpy(&value, bytes, r->bytes < 8 ? r->bytes : 8);
	switch (r->kind) {
	case KIND_GPR: s->gpr[r->map[i]] = value; break;
	case KIND_RIP: s->rip = value; break;
	case KIND_FLAGS: vcpu_set_rflags(v, value); break;
	case KIND_SELECTOR: break;
	case KIND_X87: x87_set(&s->fpu, i, (uint32_t)value); break;
	case KIND_MXCSR: s->fpu.mxcsr = (uint32_t)value & 0xffff; break;
	case KIND_BASE: s->seg[r->map[i]].base = value; break;
	/* Control registers drag modes behind them: they are shown only. */
	case KIND_SYSTEM: break;
	case KIND_ST: memcpy(s->fpu.st[i], bytes, 10); break;
	case KIND_XMM: memcpy(s->fpu.ymm[i], bytes, 16); break;
	case KIND_YMM_HIGH: memcpy(s->fpu.ymm[i] + 16, bytes, 16); break;
	}
}

/* ---- target.xml ---- */

struct text {
	char *out;
	size_t size, length;
};

static void add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *t, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int n = vsnprintf(t->out + t->length, t->size - t->length, format, arguments);
	va_end(arguments);
	if (n > 0)
		t->length += (size_t)n < t->size - t->length ? (size_t)n : t->size - t->length - 1;
}

static const char sse_types[] =
	"<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
	"<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
	"<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
	"<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
	"<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
	"<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
	"<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
	"<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
	"<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
	"<field name=\"v2_int64\" type=\"v2i64\"/>"
	"<field name=\"uint128\" type=\"uint128\"/></union>"
	"<flags id=\"i386_mxcsr\" size=\"4\"><field name=\"IE\" start=\"0\" end=\"0\"/>"
	"<field name=\"DE\" start=\"1\" end=\"1\"/><field name=\"ZE\" start=\"2\" end=\"2\"/>"
	"<field name=\"OE\" start=\"3\" end=\"3\"/><field name=\"UE\" start=\"4\" end=\"4\"/>"
	"<field name=\"PE\" start=\"5\" end=\"5\"/><field name=\"DAZ\" start=\"6\" end=\"6\"/>"
	"<field name=\"FZ\" start=\"15\" end=\"15\"/></flags>";

static const char core_types[] =
	"<flags id=\"i386_eflags\" size=\"4\"><field name=\"CF\" start=\"0\" end=\"0\"/>"
	"<field name=\"\" start=\"1\" end=\"1\"/><field name=\"PF\" start=\"2\" end=\"2\"/>"
	"<field name=\"AF\" start=\"4\" end=\"4\"/><field name=\"ZF\" start=\"6\" end=\"6\"/>"
	"<field name=\"SF\" start=\"7\" end=\"7\"/><field name=\"TF\" start=\"8\" end=\"8\"/>"
	"<field name=\"IF\" start=\"9\" end=\"9\"/><field name=\"DF\" start=\"10\" end=\"10\"/>"
	"<field name=\"OF\" start=\"11\" end=\"11\"/><field name=\"NT\" start=\"14\" end=\"14\"/>"
	"<field name=\"RF\" start=\"16\" end=\"16\"/><field name=\"VM\" start=\"17\" end=\"17\"/>"
	"<field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"VIF\" start=\"19\" end=\"19\"/>"
	"<field name=\"VIP\" start=\"20\" end=\"20\"/>"
	"<field name=\"ID\" start=\"21\" end=\"21\"/></flags>";

static void add_run(struct text *t, const struct run *r)
{
	const char *name = r->names;
	const char *star = strchr(name, '*');
	for (unsigned i = 0; i < r->count; i++) {
		size_t length = strcspn(name, " ");
		add(t, "<reg name=\"");
		if (star)
			add(t, "%.*s%u%s", (int)(star - name), name, i, star + 1);
		else
			add(t, "%.*s", (int)length, name);
		bool is_pointer = r->kind == KIND_GPR &&
				  (r->map[i] == GPR_RSP || r->map[i] == GPR_RBP);
		add(t, "\" bitsize=\"%u\" type=\"%s\"/>", r->bytes * 8u,
		    is_pointer ? "data_ptr" : r->type);
		if (!star)
			name += length + (name[length] == ' ');
	}
}

size_t gdb_target_xml(char *out, size_t size_bytes)
{
	struct text t = {.out = out, .size = size_bytes};
	add(&t, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
		"<target version=\"1.0\"><architecture>i386:x86-64</architecture>");
	bool is_open = false;
	for (size_t i = 0; i < ARRAY_COUNT(runs); i++) {
		if (runs[i].feature) {
			add(&t, "%s<feature name=\"%s\">", is_open ? "</feature>" : "",
			    runs[i].feature);
			is_open = true;
			if (runs[i].kind == KIND_GPR)
				add(&t, "%s", core_types);
			if (runs[i].kind == KIND_XMM)
				add(&t, "%s", sse_types);
		}
		add_run(&t, &runs[i]);
	}
	add(&t, "</feature></target>");
	return t.length;
}

/*
 * golden: guest code in, host code out, as text that somebody has read.
 *
 *   golden [--accept] FILE...
 *
 * A file of tests/golden/trans has comment lines (#), the guest's bytes, an instruction a line
 * behind a '>', and the host code that the translator makes of them as user code, from the first
 * one on. It is 64-bit code, or 32-bit code if a line before it says "=32". All but the comments
 * and the bytes is written by --accept; without it the files are compared with what the translator
 * makes now, and a difference is a failure. Whoever changes the translator accepts, reads the
 * difference that git shows, and commits it with the change.
 *
 * Each must also be the same when it is made for another address and when it is relocated there.
 *
 * Names stand for what may lie anywhere: the frame's members, the thunks, places in the block.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff/diff.h"
#include "diff/relocation.h"
#include "engine/trans/trans_private.h"

#define TEXT_BYTES (256u << 10)
#define BYTES_MAX 256
#define SKIPPED 77 /* Meson's */

struct text {
	char *bytes;
	size_t used;
};

struct golden {
	struct text old, new;
	uint8_t code[BYTES_MAX];
	unsigned code_bytes;
	unsigned mode; /* of the guest's code */
	struct trans *trans;
	const struct translation *translation;
};

static void put(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct text *t, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int n = vsnprintf(t->bytes + t->used, TEXT_BYTES - t->used, format, arguments);
	va_end(arguments);
	t->used += n > 0 ? (size_t)n : 0;
	if (t->used >= TEXT_BYTES)
		t->used = TEXT_BYTES - 1;
}

/* ---- the guest's side ----------------------------------------------------------------------- */

static bool is_disassembled(unsigned mode, uint64_t rip, const uint8_t *bytes, size_t count,
			    ZydisDisassembledInstruction *d)
{
	return ZYAN_SUCCESS(ZydisDisassembleIntel(mode == 64 ? ZYDIS_MACHINE_MODE_LONG_64
							     : ZYDIS_MACHINE_MODE_LEGACY_32,
						  rip, bytes, count, d));
}

/* "> 48 8b 07   ; mov rax, [rdi]": takes the bytes, writes the line anew. */
static void take_bytes(struct golden *g, const char *line)
{
	ZydisDisassembledInstruction d;
	unsigned begin = g->code_bytes;
	char hex[64] = "";
	for (const char *at = line + 1; *at == ' '; at += 3) {
		char *end;
		unsigned long byte = strtoul(at, &end, 16);
		if (end != at + 3 || g->code_bytes == BYTES_MAX)
			break;
		g->code[g->code_bytes++] = (uint8_t)byte;
		snprintf(hex + strlen(hex), sizeof(hex) - strlen(hex), " %02lx", byte);
	}
	unsigned count = g->code_bytes - begin;
	bool ok = is_disassembled(g->mode, CODE + begin, g->code + begin, count, &d);
	put(&g->new, ">%-33s ; %s\n", hex,
	    ok && d.info.length == count ? d.text : "not one instruction");
}

/* ---- the host's side ------------------------------------------------------------------------ */

static const struct {
	const char *name;
	size_t offset;
} members[] = {
#define MEMBER(name)                                \
	{                                           \
#name, offsetof(struct frame, name) \
	}
	MEMBER(budget),	    MEMBER(flags),	 MEMBER(home[0]),	MEMBER(home[1]),
	MEMBER(home[2]),    MEMBER(fs_base),	 MEMBER(gs_base),	MEMBER(value),
	MEMBER(state),	    MEMBER(linear),	 MEMBER(site),		MEMBER(rax),
	MEMBER(vectors),    MEMBER(x87),	 MEMBER(windows),	MEMBER(streams),
	MEMBER(loop_limit), MEMBER(loop_count),	 MEMBER(loop_patience), MEMBER(fs_bar),
	MEMBER(gs_bar),	    MEMBER(string_over), MEMBER(string_rest),
#undef MEMBER
};

/* [rsp+0x12] becomes [frame.member+2]. */
static void name_frame(struct text *t, const char *line)
{
	const char *at = strstr(line, "[rsp");
	if (!at || (at[4] != ']' && at[4] != '+')) {
		put(t, "%s", line);
		return;
	}
	unsigned long offset = at[4] == '+' ? strtoul(at + 5, NULL, 16) : 0;
	unsigned best = 0;
	for (unsigned k = 0; k < ARRAY_COUNT(members); k++)
		if (members[k].offset <= offset && members[k].offset >= members[best].offset)
			best = k;
	put(t, "%.*s[frame.%s", (int)(at - line), line, members[best].name);
	if (offset > members[best].offset)
		put(t, "+%lu", offset - members[best].offset);
	put(t, "%s", strchr(at, ']'));
}

static const char *thunk_name(const struct trans *trans, uint64_t address)
{
	const struct {
		const char *name;
		const uint8_t *at;
	} thunks[] = {{"leave", trans->leave},
		      {"take_micro", trans->take_micro[MMU_USER]},
		      {"fill", trans->to_fill},
		      {"interpret", trans->to_interpret},
		      {"end", trans->to_end},
		      {"syscall", trans->to_syscall},
		      {"sysret", trans->to_sysret},
		      {"link", trans->to_link},
		      {"indirect", trans->to_indirect[MMU_USER]},
		      {"budget", trans->to_budget},
		      {"vectors", trans->to_vectors},
		      {"x87", trans->to_x87}};
	for (unsigned k = 0; k < ARRAY_COUNT(thunks); k++)
		if ((uint64_t)(uintptr_t)thunks[k].at == address)
			return thunks[k].name;
	return "another block";
}

static bool is_relative(const ZydisDisassembledInstruction *d, uint64_t *target)
{
	return d->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	       d->operands[0].imm.is_relative &&
	       ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&d->info, &d->operands[0], d->runtime_address,
						     target));
}

static void put_host(struct golden *g)
{
	const struct translation *x = g->translation;
	uint64_t begin = (uint64_t)(uintptr_t)x->code, target;
	bool is_target[64 << 10] = {false};
	ZydisDisassembledInstruction d;
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned at = 0; at < x->code_bytes; at += d.info.length) {
			if (!is_disassembled(64, begin + at, x->code + at, x->code_bytes - at,
					     &d)) {
				put(&g->new, "    no instruction at %u\n", at);
				return;
			}
			bool is_jump = is_relative(&d, &target);
			bool is_inside = is_jump && target - begin < x->code_bytes;
			if (is_inside)
				is_target[target - begin] = true;
			if (!pass)
				continue;
			put(&g->new, is_target[at] ? "%3x:" : "    ", at);
			put(&g->new, "    ");
			const char *name = ZydisMnemonicGetString(d.info.mnemonic);
			if (is_inside)
				put(&g->new, "%s %llx", name, (unsigned long long)(target - begin));
			else if (is_jump)
				put(&g->new, "%s (%s)", name, thunk_name(g->trans, target));
			else
				name_frame(&g->new, d.text);
			put(&g->new, "\n");
		}
	}
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Runs the code once cold, so that all of its blocks are known, and once translated. */
static bool translate_code(struct golden *g, struct guest *guest)
{
	struct test_state start = {.rip = CODE, .rflags = 0x202, .mxcsr = 0x1f80, .x87.fcw = 0x37f};
	struct test_state out;
	uint8_t rest[CODE_PAGES * PAGE_SIZE_BYTES];
	struct interp *vm = (struct interp *)guest_engine(guest);
	g->trans = (struct trans *)(uintptr_t)vm->translator;
	/* What the text shows; main() has seen that this host can run it. */
	g->trans->has_bmi1 = true;
	guest_let_flags_go(guest);
	for (unsigned k = 0; k < 16; k++)
		start.gpr[k] = DATA + 0x800 + 64 * k;
	memset(rest, 0xcc, sizeof(rest));
	guest_set_code(guest, CODE, rest, sizeof(rest));
	guest_set_code(guest, CODE, g->code, g->code_bytes);
	guest_run(guest, &start, g->mode, &out);
	guest_run(guest, &start, g->mode, &out);
	if (!g->trans->records_used)
		return false;
	g->translation = (const struct translation *)g->trans->records;
	return g->translation->rip == CODE;
}

static bool read_file(const char *path, struct text *t)
{
	FILE *f = fopen(path, "r");
	if (!f)
		return false;
	t->used = fread(t->bytes, 1, TEXT_BYTES - 1, f);
	t->bytes[t->used] = 0;
	return !fclose(f);
}

static bool write_file(const char *path, const struct text *t)
{
	FILE *f = fopen(path, "w");
	if (!f)
		return false;
	bool ok = fwrite(t->bytes, 1, t->used, f) == t->used;
	return !fclose(f) && ok;
}

/* Comments and bytes of the old text; they begin the new one. */
static void take_input(struct golden *g)
{
	char line[256];
	for (const char *at = g->old.bytes; *at;) {
		size_t length = strcspn(at, "\n");
		snprintf(line, sizeof(line), "%.*s", (int)length, at);
		bool is_mode = !strcmp(line, "=32");
		if (is_mode)
			g->mode = 32;
		if (*line == '#' || is_mode)
			put(&g->new, "%s\n", line);
		else if (*line == '>')
			take_bytes(g, line);
		at += length + (at[length] == '\n');
	}
}

static void print_difference(const char *path, const struct golden *g)
{
	const char *a = g->old.bytes, *b = g->new.bytes;
	unsigned line = 1;
	while (*a && *b && strcspn(a, "\n") == strcspn(b, "\n") &&
	       !strncmp(a, b, strcspn(a, "\n") + 1)) {
		a += strcspn(a, "\n") + 1;
		b += strcspn(b, "\n") + 1;
		line++;
	}
	printf("%s:%u: differs: '%.*s' has become '%.*s'; golden --accept %s, and read git diff\n",
	       path, line, (int)strcspn(a, "\n"), a, (int)strcspn(b, "\n"), b, path);
}

static bool check_file(const char *path, bool is_accepted)
{
	struct golden g = {
		.old.bytes = calloc(1, TEXT_BYTES), .new.bytes = calloc(1, TEXT_BYTES), .mode = 64};
	struct guest *guest = NULL;
	bool ok = false;
	if (!g.old.bytes || !g.new.bytes || !read_file(path, &g.old)) {
		printf("%s: cannot read it\n", path);
	} else if (guest_create(&guest, "trans", "max", 2)) {
		printf("%s: no guest\n", path);
	} else {
		take_input(&g);
		put(&g.new, "\n");
		if (translate_code(&g, guest))
			put_host(&g);
		else
			put(&g.new, "not translated\n");
		ok = !strcmp(g.old.bytes, g.new.bytes);
		if (!ok && is_accepted)
			ok = write_file(path, &g.new);
		else if (!ok)
			print_difference(path, &g);
		const char *moved = relocation_difference(g.trans->interp);
		if (moved)
			printf("%s: what is relocated %s\n", path, moved);
		ok &= !moved;
	}
	guest_destroy(guest);
	free(g.old.bytes);
	free(g.new.bytes);
	return ok;
}

int main(int argc, char **argv)
{
	bool is_accepted = argc > 1 && !strcmp(argv[1], "--accept");
	unsigned failed = 0;
	if (argc < 2 + is_accepted) {
		fprintf(stderr, "usage: golden [--accept] FILE...\n");
		return 2;
	}
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi")) {
		printf("this host lacks AVX2 or BMI2, with which the files were written\n");
		return SKIPPED;
	}
	for (int k = 1 + is_accepted; k < argc; k++)
		failed += !check_file(argv[k], is_accepted);
	printf("%d files, %u failed\n", argc - 1 - is_accepted, failed);
	return failed > 0;
}

/*
 * diff: random instructions, the engine against the host's processor.
 *
 *   diff [--engine NAME] [--against ENGINE] [--seed N] [--count N] [--seconds N] [--group NAME]
 *        [--only MNEMONIC] [--mode 64|32] [--cpu MODEL] [--sequences] [--repeat N] [--warm N]
 *        [--lazy-flags] [--checked] [--all]
 *
 * --against has another engine in the host's place: then nothing may differ, undefined or not, but
 * the cases are still those that are harmless on the host. --sequences runs many instructions at a
 * time (sequence.c); --repeat lets the guest run a case so many times before the one that counts,
 * so that its code is warm, and trans translates what runs for the --warm th time (1: at once, and
 * then block by block, for what follows is not known yet). With --lazy-flags trans translates as it
 * does under --clock real, and arithmetic flags at a fault are not compared. With --checked pages
 * of code may become checked ones (engine/interp/block.h), as all here soon do; without it they are
 * always watched. Prints the first cases that differ, with both states, and what was covered; exits
 * with 1 if any differs or, without --group and --only, if fewer than DISTINCT_MIN distinct shapes
 * were tried. A sequence that differs is printed with the steps left out that it differs without.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "compare.h"
#include "relocation.h"
#include "sequence.h"

#define DISTINCT_MIN 2000
#define SHAPES (1u << 20)
#define RELOCATION_EVERY 32

struct options {
	struct generator_options generator;
	uint64_t count;
	double seconds;
	const char *cpu, *engine, *against;
	unsigned repeat;
	uint8_t warm_count;
	bool sequences, lazy_flags, checked;
	bool all; /* print every difference, not two of a mnemonic */
};

struct run {
	struct options options;
	struct generator *generator;
	struct guest *guest, *reference; /* reference: NULL for the host */
	uint8_t *code, *data;
	uint8_t begin[DATA_BYTES]; /* of a sequence: the sandbox before it */
	uint8_t host_code[SEQUENCE_BYTES], guest_code[SEQUENCE_BYTES]; /* after it */
	uint64_t *shapes;					       /* open hash set */
	uint64_t tested, distinct, different, faults;
	unsigned printed[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

static bool parse(struct options *o, int argc, char **argv)
{
	*o = (struct options){.generator.seed = 1,
			      .count = 400000,
			      .seconds = 15,
			      .warm_count = 1,
			      .cpu = "max",
			      .engine = "interp"};
	for (int k = 1; k < argc; k++) {
		bool *flag = !strcmp(argv[k], "--all")		? &o->all
			     : !strcmp(argv[k], "--sequences")	? &o->sequences
			     : !strcmp(argv[k], "--lazy-flags") ? &o->lazy_flags
			     : !strcmp(argv[k], "--checked")	? &o->checked
								: NULL;
		if (flag) {
			*flag = true;
			continue;
		}
		if (k + 1 == argc)
			return false;
		const char *value = argv[++k];
		if (!strcmp(argv[k - 1], "--seed"))
			o->generator.seed = strtoull(value, NULL, 0);
		else if (!strcmp(argv[k - 1], "--count"))
			o->count = strtoull(value, NULL, 0);
		else if (!strcmp(argv[k - 1], "--seconds"))
			o->seconds = strtod(value, NULL);
		else if (!strcmp(argv[k - 1], "--group"))
			o->generator.group = value;
		else if (!strcmp(argv[k - 1], "--only"))
			o->generator.only = value;
		else if (!strcmp(argv[k - 1], "--mode"))
			o->generator.mode = (unsigned)strtoul(value, NULL, 0);
		else if (!strcmp(argv[k - 1], "--cpu"))
			o->cpu = value;
		else if (!strcmp(argv[k - 1], "--engine"))
			o->engine = value;
		else if (!strcmp(argv[k - 1], "--against"))
			o->against = value;
		else if (!strcmp(argv[k - 1], "--repeat"))
			o->repeat = (unsigned)strtoul(value, NULL, 0);
		else if (!strcmp(argv[k - 1], "--warm"))
			o->warm_count = (uint8_t)strtoul(value, NULL, 0);
		else
			return false;
	}
	return true;
}

static bool is_group(const char *name)
{
	for (const char *const *g = generator_groups(); *g; g++)
		if (!strcmp(*g, name))
			return true;
	return false;
}

static void remember_shape(struct run *r, uint64_t shape)
{
	shape |= 1;
	for (uint64_t at = shape * 0x9e3779b97f4a7c15ull >> 44;; at = (at + 1) % SHAPES) {
		if (r->shapes[at] == shape)
			return;
		if (!r->shapes[at]) {
			r->shapes[at] = shape;
			r->distinct++;
			return;
		}
	}
}

static void print_case(const struct test_case *t, const char *text)
{
	ZydisFormatter formatter;
	char line[128] = "?";
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterFormatInstruction(&formatter, &t->d, t->operands, t->d.operand_count_visible,
					line, sizeof(line), t->start.rip, NULL);
	printf("DIFFERS in %u-bit code at %llx: %s  [", t->mode, (unsigned long long)t->start.rip,
	       line);
	for (unsigned k = 0; k < t->length; k++)
		printf("%s%02x", k ? " " : "", t->bytes[k]);
	printf("]\n%s", text);
}

/* What trans has of the case's code when it ran, and could have at other addresses. */
static void check_relocation(struct run *r, struct guest *guest)
{
	const char *what = NULL;
	bool is_due = guest == r->guest && !(r->tested % RELOCATION_EVERY);
	if (is_due && !strcmp(r->options.engine, "trans"))
		what = relocation_difference((struct interp *)guest_engine(guest));
	if (what && !r->different++)
		printf("DIFFERS: what is relocated %s, of seed %llu's case %llu\n", what,
		       (unsigned long long)r->options.generator.seed,
		       (unsigned long long)r->tested);
}

/* The guest, from `data`; what it made of the data comes back in it. */
static void run_guest(struct run *r, struct guest *guest, const struct test_state *start,
		      unsigned mode, const uint8_t *code, unsigned code_bytes, uint8_t *data,
		      struct test_state *out)
{
	for (unsigned k = 0; k <= r->options.repeat; k++) {
		if (!k || memcmp(code, r->guest_code, code_bytes))
			guest_set_code(guest, start->rip, code, code_bytes);
		guest_set_data(guest, data);
		guest_run(guest, start, mode, out);
		guest_get_code(guest, start->rip, r->guest_code, code_bytes);
	}
	check_relocation(r, guest);
	guest_get_data(guest, data);
}

/* But for the x87's pointers, which docs/translator.md says are not kept. */
static bool is_same_state(const struct test_state *a, const struct test_state *b)
{
	struct test_state x = *a, y = *b;
	x.x87.fop = y.x87.fop = 0;
	x.x87.fip = y.x87.fip = x.x87.fdp = y.x87.fdp = 0;
	return !memcmp(&x, &y, sizeof(x));
}

/* Two engines: everything that a program or its kernel could see. */
static bool is_equal(struct run *r, const struct test_case *t, const struct test_state *a,
		     const struct test_state *b, const uint8_t *a_data, const uint8_t *b_data,
		     char *text, size_t text_bytes)
{
	if (!r->reference)
		return !compare(t, a, b, a_data, b_data, text, text_bytes);
	/* The translator's CALL to nowhere has pushed by the time that it faults. */
	bool is_pushed = t->d.mnemonic == ZYDIS_MNEMONIC_CALL && a->vector == VECTOR_GP;
	if (is_same_state(a, b) && (is_pushed || !memcmp(a_data, b_data, DATA_BYTES)))
		return true;
	if (!compare(t, a, b, a_data, b_data, text, text_bytes))
		snprintf(text, text_bytes,
			 "  only in what the manual leaves open: vectors %u and %u, "
			 "rflags %llx and %llx\n",
			 a->vector, b->vector, (unsigned long long)a->rflags,
			 (unsigned long long)b->rflags);
	return false;
}

static void run_one(struct run *r)
{
	struct test_case t;
	struct test_state host = {0}, guest = {0};
	uint8_t guest_bytes[DATA_BYTES], reference[DATA_BYTES];
	char text[8192];
	if (!generate(r->generator, &t, r->data))
		return;
	uint8_t *at = r->code + (t.start.rip - CODE);
	memcpy(guest_bytes, r->data, DATA_BYTES);
	memcpy(at, t.bytes, t.length);
	if (!r->reference)
		native_run(&t.start, t.mode, &host);
	run_guest(r, r->guest, &t.start, t.mode, t.bytes, t.length, guest_bytes, &guest);
	if (r->reference) {
		memcpy(reference, r->data, DATA_BYTES);
		run_guest(r, r->reference, &t.start, t.mode, t.bytes, t.length, reference, &host);
	}
	memset(at, 0xcc, t.length);
	guest_set_code(r->guest, t.start.rip, at, t.length);
	if (r->reference)
		guest_set_code(r->reference, t.start.rip, at, t.length);

	r->tested++;
	r->faults += host.vector != NO_FAULT;
	remember_shape(r, test_shape(&t));
	if (is_equal(r, &t, &host, &guest, r->reference ? reference : r->data, guest_bytes, text,
		     sizeof(text)))
		return;
	r->different++;
	if (r->options.all || (r->printed[t.d.mnemonic]++ < 2 && r->different < 200))
		print_case(&t, text);
}

/* ---- sequences ----------------------------------------------------------------------------- */

/* What fits before the end of the mapped code. */
static unsigned mapped_bytes(const struct sequence *s)
{
	return CODE_END - s->rip < s->length ? (unsigned)(CODE_END - s->rip) : s->length;
}

static void run_native(void *opaque, const struct sequence *s, struct test_state *out)
{
	struct run *r = opaque;
	uint8_t *at = r->code + (s->rip - CODE);
	memcpy(r->data, r->begin, DATA_PAGES * PAGE_SIZE_BYTES);
	memcpy(at, s->bytes, mapped_bytes(s));
	native_run(&s->start, s->mode, out);
	memcpy(r->host_code, at, mapped_bytes(s));
	memset(at, 0xcc, mapped_bytes(s));
}

/* Both sides, compared; the text says in what they differ. */
static bool is_different(struct run *r, const struct sequence *s, char *text, size_t text_bytes)
{
	struct test_state host = {0}, guest = {0};
	struct test_case end;
	uint8_t guest_bytes[DATA_BYTES], reference[DATA_BYTES];
	const uint8_t *around = r->code + (s->rip - CODE);
	unsigned length = mapped_bytes(s);
	*text = 0;
	if (r->reference) {
		memcpy(reference, r->begin, DATA_BYTES);
		run_guest(r, r->reference, &s->start, s->mode, s->bytes, length, reference, &host);
		memcpy(r->host_code, r->guest_code, length);
		guest_set_code(r->reference, s->rip, around, length);
	} else {
		run_native(r, s, &host);
	}
	memcpy(guest_bytes, r->begin, DATA_BYTES);
	run_guest(r, r->guest, &s->start, s->mode, s->bytes, length, guest_bytes, &guest);
	guest_set_code(r->guest, s->rip, around, length);
	r->faults += host.vector != NO_FAULT;
	sequence_end(s, &host, &end);
	if (r->options.lazy_flags && guest.vector != NO_FAULT)
		guest.rflags = (guest.rflags & ~FLAGS_ARITHMETIC) |
			       (host.rflags & FLAGS_ARITHMETIC);
	return !is_equal(r, &end, &host, &guest, r->reference ? reference : r->data, guest_bytes,
			 text, text_bytes) ||
	       memcmp(r->host_code, r->guest_code, length) != 0;
}

static void run_sequence(struct run *r)
{
	struct sequence s;
	char text[8192], less[8192];
	sequence_generate(r->generator, &s, r->begin, run_native, r);
	r->tested++;
	r->distinct += s.step_count;
	if (!is_different(r, &s, text, sizeof(text)))
		return;
	r->different++;
	if (r->different > 10 && !r->options.all)
		return;
	for (unsigned k = s.step_count; k-- > 0;) {
		struct sequence shorter = s;
		sequence_blank(&shorter, k);
		if (is_different(r, &shorter, less, sizeof(less))) {
			s = shorter;
			memcpy(text, less, sizeof(text));
		}
	}
	printf("DIFFERS in a sequence of %u-bit code:\n", s.mode);
	sequence_print(&s);
	printf("%s", *text ? text : "  the code, after it changed itself\n");
}

static double now_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int open_run(struct run *r)
{
	uint8_t fill[CODE_PAGES * PAGE_SIZE_BYTES];
	r->shapes = calloc(SHAPES, sizeof(*r->shapes));
	r->generator = generator_create(&r->options.generator);
	if (!r->shapes || !r->generator || native_open(&r->code, &r->data)) {
		fprintf(stderr, "diff: cannot set up the host's side\n");
		return 2;
	}
	const char *cpu = r->options.cpu, *against = r->options.against;
	if (guest_create(&r->guest, r->options.engine, cpu, r->options.warm_count))
		return 2;
	if (against && guest_create(&r->reference, against, cpu, r->options.warm_count))
		return 2;
	if (!r->options.checked)
		guest_watch_always(r->guest);
	if (r->options.lazy_flags)
		guest_let_flags_go(r->guest);
	memset(fill, 0xcc, sizeof(fill));
	memcpy(r->code, fill, sizeof(fill));
	guest_set_code(r->guest, CODE, fill, sizeof(fill));
	if (r->reference)
		guest_set_code(r->reference, CODE, fill, sizeof(fill));
	for (unsigned k = 0; k < DATA_BYTES; k++)
		r->data[k] = (uint8_t)generator_random(r->generator);
	memcpy(r->begin, r->data, DATA_BYTES);
	return native_seal() ? 2 : 0;
}

int main(int argc, char **argv)
{
	static struct run r;
	if (!parse(&r.options, argc, argv) ||
	    (r.options.generator.group && !is_group(r.options.generator.group))) {
		fprintf(stderr,
			"usage: diff [--engine NAME] [--against ENGINE] [--seed N] [--count N] "
			"[--seconds N] "
			"[--group NAME] [--only MNEMONIC] [--mode 64|32] [--cpu MODEL] "
			"[--sequences] [--repeat N] [--warm N] "
			"[--lazy-flags] [--checked] [--all]\ngroups:");
		for (const char *const *g = generator_groups(); *g; g++)
			fprintf(stderr, " %s", *g);
		fprintf(stderr, "\n");
		return 2;
	}
	int error = open_run(&r);
	double end = now_seconds() + r.options.seconds;
	for (uint64_t k = 0; !error && k < r.options.count && now_seconds() < end; k++)
		r.options.sequences ? run_sequence(&r) : run_one(&r);
	if (!error) {
		bool is_all = !r.options.generator.group && !r.options.generator.only;
		printf("%llu %s, %llu %s, %llu faults, %llu differ\n", (unsigned long long)r.tested,
		       r.options.sequences ? "sequences" : "cases", (unsigned long long)r.distinct,
		       r.options.sequences ? "steps" : "distinct encodings",
		       (unsigned long long)r.faults, (unsigned long long)r.different);
		error = r.different || !r.tested || (is_all && r.distinct < DISTINCT_MIN);
	}
	guest_destroy(r.guest);
	guest_destroy(r.reference);
	generator_destroy(r.generator);
	free(r.shapes);
	return error;
}

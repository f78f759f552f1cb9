/*
 * diff: random instructions, the engine against the host's processor.
 *
 *   diff [--seed N] [--count N] [--seconds N] [--group NAME] [--only MNEMONIC] [--mode 64|32]
 * [--cpu MODEL]
 * [--all]
 *
 * Prints the first cases that differ, with both states, and what was covered; exits with 1 if any
 * differs or, without
 * --group and --only, if fewer than DISTINCT_MIN distinct shapes were tried.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "compare.h"

#define DISTINCT_MIN 2000
#define SHAPES (1u << 20)

struct options {
	struct generator_options generator;
	uint64_t count;
	double seconds;
	const char *cpu;
	bool all; /* print every difference, not two of a mnemonic */
};

struct run {
	struct options options;
	struct generator *generator;
	struct guest *guest;
	uint8_t *code, *data;
	uint64_t *shapes; /* open hash set */
	uint64_t tested, distinct, different, faults;
	unsigned printed[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

static bool parse(struct options *o, int argc, char **argv)
{
	*o = (struct options){.generator.seed = 1, .count = 400000, .seconds = 15, .cpu = "max"};
	for (int k = 1; k < argc; k++) {
		if (!strcmp(argv[k], "--all")) {
			o->all = true;
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

static void run_one(struct run *r)
{
	struct test_case t;
	struct test_state host = {0}, guest = {0};
	char text[8192];
	if (!generate(r->generator, &t, r->data))
		return;
	uint8_t *guest_bytes = guest_data(r->guest);
	uint8_t *at = r->code + (t.start.rip - CODE);
	memcpy(guest_bytes, r->data, DATA_BYTES);
	memcpy(at, t.bytes, t.length);
	guest_set_code(r->guest, t.start.rip, t.bytes, t.length);
	native_run(&t.start, t.mode, &host);
	guest_run(r->guest, &t.start, t.mode, &guest);
	memset(at, 0xcc, t.length);
	guest_set_code(r->guest, t.start.rip, at, t.length);

	r->tested++;
	r->faults += host.vector != NO_FAULT;
	remember_shape(r, test_shape(&t));
	if (!compare(&t, &host, &guest, r->data, guest_bytes, text, sizeof(text)))
		return;
	r->different++;
	if (r->options.all || (r->printed[t.d.mnemonic]++ < 2 && r->different < 200))
		print_case(&t, text);
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
	if (guest_create(&r->guest, r->options.cpu))
		return 2;
	memset(fill, 0xcc, sizeof(fill));
	memcpy(r->code, fill, sizeof(fill));
	guest_set_code(r->guest, CODE, fill, sizeof(fill));
	for (unsigned k = 0; k < DATA_BYTES; k++)
		r->data[k] = (uint8_t)generator_random(r->generator);
	return native_seal() ? 2 : 0;
}

int main(int argc, char **argv)
{
	static struct run r;
	if (!parse(&r.options, argc, argv) ||
	    (r.options.generator.group && !is_group(r.options.generator.group))) {
		fprintf(stderr, "usage: diff [--seed N] [--count N] [--seconds N] [--group NAME] "
				"[--only MNEMONIC] [--mode 64|32] [--cpu MODEL] [--all]\ngroups:");
		for (const char *const *g = generator_groups(); *g; g++)
			fprintf(stderr, " %s", *g);
		fprintf(stderr, "\n");
		return 2;
	}
	int error = open_run(&r);
	double end = now_seconds() + r.options.seconds;
	for (uint64_t k = 0; !error && k < r.options.count && now_seconds() < end; k++)
		run_one(&r);
	if (!error) {
		bool is_all = !r.options.generator.group && !r.options.generator.only;
		printf("%llu cases, %llu distinct encodings, %llu faults, %llu differ\n",
		       (unsigned long long)r.tested, (unsigned long long)r.distinct,
		       (unsigned long long)r.faults, (unsigned long long)r.different);
		error = r.different || !r.tested || (is_all && r.distinct < DISTINCT_MIN);
	}
	guest_destroy(r.guest);
	generator_destroy(r.generator);
	free(r.shapes);
	return error;
}

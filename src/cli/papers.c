/*
 * `gnomon bench papers`: the papers' results, measured again (papers/papers.h), as a document and
 * as JSON.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "papers/papers.h"

enum { FORMAT_DOCUMENT, FORMAT_JSON };

struct papers_command {
	struct papers_options run;
	const char *out, *json;
	int format;
	bool is_quiet, help;
};

static const char *const formats[] = {"document", "json", NULL};

#define AT(member) offsetof(struct papers_command, member)
static const struct option_row rows[] = {
	{"kernel", "-kernel", "FILE", "a 64-bit Linux: the machine that KVM had in paper 002",
	 "The guests", OPTION_TEXT, AT(run.guest[PAPERS_KVM].kernel)},
	{"initrd", "-initrd", "FILE",
	 "for it: scripts/make-initramfs OUT --workloads build/workloads", NULL, OPTION_TEXT,
	 AT(run.guest[PAPERS_KVM].initrd)},
	{"kernel32", NULL, "FILE", "a 32-bit Linux without PAE: the machine that Palacios had",
	 NULL, OPTION_TEXT, AT(run.guest[PAPERS_PALACIOS].kernel)},
	{"initrd32", NULL, "FILE", "for it: the same with --arch i386", NULL, OPTION_TEXT,
	 AT(run.guest[PAPERS_PALACIOS].initrd)},
	{"small", NULL, NULL, "workloads a tenth as long, to see that everything works", "What",
	 OPTION_SWITCH, AT(run.is_small)},
	{"only", NULL, "IDS", "answer these items only: 002-20,002-26", NULL, OPTION_TEXT,
	 AT(run.only)},
	{"verify", NULL, NULL, "check the primary's translations, too; observers' always are", NULL,
	 OPTION_SWITCH, AT(run.is_verified)},
	{"format", NULL, "FORMAT", "document (Markdown) or json [document]", "Output",
	 OPTION_CHOICE, AT(format), .choices = formats},
	{"out", NULL, "FILE", "write there instead of to standard output", NULL, OPTION_TEXT,
	 AT(out)},
	{"json", NULL, "FILE", "write the JSON there as well", NULL, OPTION_TEXT, AT(json)},
	{"quiet", "-q", NULL, "no progress", NULL, OPTION_SWITCH, AT(is_quiet)},
	{"help", "-h", NULL, "this text", NULL, OPTION_SWITCH, AT(help)},
};
#undef AT

static void print_help(void)
{
	printf("usage: gnomon bench papers [OPTION]...\n\n"
	       "Runs the workloads of five papers on virtualized address translation with every\n"
	       "strategy riding along, and says of each of their results whether it comes out.\n"
	       "Without a kernel only what needs no guest is answered. A few minutes a guest.\n");
	options_print(stdout, rows, ARRAY_COUNT(rows));
}

static void progress(void *opaque, const char *machine, const char *workload)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	fprintf(stderr, "gnomon bench papers: %6lld s  %s: %s\n",
		(long long)(t.tv_sec - *(const time_t *)opaque), machine, workload);
}

typedef int write_fn(FILE *, const struct papers *, struct error *);

/* `path` NULL: standard output. */
static int write_to(const char *path, write_fn *write, const struct papers *p, struct error *e)
{
	FILE *f = path ? fopen(path, "we") : stdout;
	if (!f)
		return error_set(e, -errno, "cannot write '%s': %s", path, strerror(errno));
	int r = write(f, p, e);
	if (path && fclose(f) && !r)
		r = error_set(e, -errno, "cannot write '%s': %s", path, strerror(errno));
	return r;
}

static int check(const struct papers_options *o, struct error *e)
{
	static const char *const suffixes[] = {"", "32"};
	for (unsigned m = 0; m < PAPERS_MACHINE_COUNT; m++) {
		const struct papers_guest *g = &o->guest[m];
		if (!g->kernel != !g->initrd)
			return error_set(e, -EINVAL, "--kernel%s and --initrd%s go together",
					 suffixes[m], suffixes[m]);
	}
	return 0;
}

int cmd_bench_papers(int argc, char **argv)
{
	struct papers_command c = {0};
	struct papers *p = NULL;
	struct error e = {0};
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	if (options_parse(rows, ARRAY_COUNT(rows), &c, argc, argv, &e) ||
	    (!c.help && check(&c.run, &e)))
		return cli_usage_error("bench papers", e.text);
	if (c.help) {
		print_help();
		return EXIT_CODE_OK;
	}
	if (!c.is_quiet) {
		c.run.progress = progress;
		c.run.opaque = &t.tv_sec;
	}
	int r = papers_run(&p, &c.run, &e);
	if (!r)
		r = write_to(c.out,
			     c.format == FORMAT_JSON ? papers_write_json : papers_write_document, p,
			     &e);
	if (!r && c.json)
		r = write_to(c.json, papers_write_json, p, &e);
	papers_destroy(p);
	if (!r)
		return EXIT_CODE_OK;
	fprintf(stderr, "gnomon bench papers: error: %s\n", e.text);
	return r == -EINVAL || r == -ENOENT ? EXIT_CODE_USAGE : EXIT_CODE_VMM;
}

/* `gnomon profile`: lists, shows, checks and compares the processors whose prices are known. */
#include <errno.h>
#include <string.h>

#include "base/nearest.h"
#include "cli/cli.h"
#include "report/report.h"

static const char help[] =
	"usage: gnomon profile list\n"
	"       gnomon profile show NAME [--format text|json]\n"
	"       gnomon profile check FILE...\n"
	"       gnomon profile diff A B [--format text|json]\n"
	"\n"
	"A profile says what one processor is like and what each event costs on it, every number\n"
	"with its source. A NAME is one of the list, or a path to a JSON file (docs/profiles.md).\n"
	"check warns of values that contradict each other; diff shows the facts that differ.\n"
	"To measure a profile of this machine, see gnomon calibrate --help.\n";

static int fail(const struct error *e)
{
	fprintf(stderr, "gnomon profile: error: %s\n", e->text);
	return e->code == -EINVAL || e->code == -ENOENT ? EXIT_CODE_USAGE : EXIT_CODE_VMM;
}

/* Standard output may be a full disk. */
static int finish(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return EXIT_CODE_OK;
	fprintf(stderr, "gnomon profile: error: cannot write to standard output\n");
	return EXIT_CODE_VMM;
}

static int list_profiles(void)
{
	for (size_t i = 0; profile_name(i); i++) {
		struct error e = {0};
		struct profile *p;

		if (profile_load(profile_name(i), &p, &e))
			return fail(&e);
		printf("%-16s %s\n", p->name, p->description);
		profile_destroy(p);
	}
	return finish();
}

/* NAMEs and --format, for show and diff. */
struct arguments {
	const char *names[2];
	unsigned name_count;
	bool is_json;
};

/* 0, or the exit code after a message. */
static int read_arguments(struct arguments *a, const char *verb, unsigned wanted, int argc,
			  char **argv)
{
	const char *format = "text";
	char text[120];

	for (int i = 0; i < argc; i++) {
		bool is_name = argv[i][0] != '-';

		if (!strncmp(argv[i], "--format=", 9))
			format = argv[i] + 9;
		else if (!strcmp(argv[i], "--format") && i + 1 < argc)
			format = argv[++i];
		else if (is_name && a->name_count < wanted)
			a->names[a->name_count++] = argv[i];
		else {
			snprintf(text, sizeof(text), "%s takes %s and --format text|json", verb,
				 wanted == 1 ? "one NAME" : "two NAMEs");
			return cli_usage_error("profile", text);
		}
	}
	if (a->name_count < wanted) {
		snprintf(text, sizeof(text), "%s: %s? (gnomon profile list)", verb,
			 wanted == 1 ? "which one" : "which two");
		return cli_usage_error("profile", text);
	}
	a->is_json = !strcmp(format, "json");
	if (!a->is_json && strcmp(format, "text"))
		return cli_usage_error("profile", "--format: text or json");
	return 0;
}

static int show_profile(int argc, char **argv)
{
	struct arguments a = {0};
	struct error e = {0};
	struct profile *p;
	int rc = read_arguments(&a, "show", 1, argc, argv);

	if (rc)
		return rc;
	if (profile_load(a.names[0], &p, &e))
		return fail(&e);
	rc = report_profile_show(stdout, p, a.is_json, &e);
	profile_destroy(p);
	return rc ? fail(&e) : EXIT_CODE_OK;
}

static int diff_profiles(int argc, char **argv)
{
	struct arguments a = {0};
	struct error e = {0};
	struct profile *left, *right;
	int rc = read_arguments(&a, "diff", 2, argc, argv);

	if (rc)
		return rc;
	if (profile_load(a.names[0], &left, &e))
		return fail(&e);
	rc = profile_load(a.names[1], &right, &e);
	if (!rc)
		rc = report_profile_diff(stdout, left, right, a.is_json, &e);
	profile_destroy(left);
	profile_destroy(right);
	return rc ? fail(&e) : EXIT_CODE_OK;
}

/* Every file is checked; the first that is wrong does not hide the others. */
static int check_profiles(int argc, char **argv)
{
	int code = EXIT_CODE_OK;

	if (!argc)
		return cli_usage_error("profile", "check: which files?");
	for (int i = 0; i < argc; i++) {
		struct error e = {0};
		struct profile *p;
		int rc = profile_load(argv[i], &p, &e);

		if (!rc)
			rc = report_profile_basis(stdout, p, &e);
		if (rc)
			code = fail(&e);
		else
			profile_destroy(p);
	}
	return code;
}

static const char *const verbs[] = {"list", "show", "check", "diff"};

static const char *verb_name(const void *opaque, size_t i)
{
	return verbs[i];
}

int cmd_profile(int argc, char **argv)
{
	char text[160];

	if (argc < 2)
		return cli_usage_error("profile", "list, show, check or diff?");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		fputs(help, stdout);
		return finish();
	}
	if (!strcmp(argv[1], "list"))
		return argc == 2 ? list_profiles()
				 : cli_usage_error("profile", "list takes nothing more");
	if (!strcmp(argv[1], "show"))
		return show_profile(argc - 2, argv + 2);
	if (!strcmp(argv[1], "check"))
		return check_profiles(argc - 2, argv + 2);
	if (!strcmp(argv[1], "diff"))
		return diff_profiles(argc - 2, argv + 2);

	const char *near = nearest(argv[1], ARRAY_COUNT(verbs), verb_name, NULL);
	snprintf(text, sizeof(text), "unknown \"%.60s\"; %s%s%s", argv[1],
		 near ? "did you mean '" : "there are list, show, check and diff", near ? near : "",
		 near ? "'?" : "");
	return cli_usage_error("profile", text);
}

/* `gnomon profile`: lists, shows and checks the processors whose prices are known. */
#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/nearest.h"
#include "report/report.h"

static const char help[] =
	"usage: gnomon profile list\n"
	"       gnomon profile show NAME [--format text|json]\n"
	"       gnomon profile check FILE...\n"
	"\n"
	"A profile says what one processor is like and what each event costs on it, every number\n"
	"with its source. NAME is one of the list, or a path to a JSON file (docs/profiles.md).\n";

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

static int show_profile(int argc, char **argv)
{
	const char *name = NULL, *format = "text";
	struct error e = {0};
	struct profile *p;

	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "--format=", 9))
			format = argv[i] + 9;
		else if (!strcmp(argv[i], "--format") && i + 1 < argc)
			format = argv[++i];
		else if (argv[i][0] == '-')
			return cli_usage_error("profile", "show takes NAME and --format text|json");
		else if (name)
			return cli_usage_error("profile", "show takes one NAME");
		else
			name = argv[i];
	}
	if (!name)
		return cli_usage_error("profile", "show: which one? (gnomon profile list)");
	if (strcmp(format, "text") && strcmp(format, "json"))
		return cli_usage_error("profile", "--format: text or json");
	if (profile_load(name, &p, &e))
		return fail(&e);

	int rc = report_profile_show(stdout, p, !strcmp(format, "json"), &e);
	profile_destroy(p);
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

static const char *const verbs[] = {"list", "show", "check"};

static const char *verb_name(const void *opaque, size_t i)
{
	return verbs[i];
}

int cmd_profile(int argc, char **argv)
{
	char text[160];

	if (argc < 2)
		return cli_usage_error("profile", "list, show or check?");
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

	const char *near = nearest(argv[1], ARRAY_COUNT(verbs), verb_name, NULL);
	snprintf(text, sizeof(text), "unknown \"%.60s\"; %s%s%s", argv[1],
		 near ? "did you mean '" : "there are list, show and check", near ? near : "",
		 near ? "'?" : "");
	return cli_usage_error("profile", text);
}

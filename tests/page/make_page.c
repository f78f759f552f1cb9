/*
 * Writes the made comparison of tests/unit/compare_world.h as a page and as JSON, for
 * tests/page/run.
 *
 * usage: make_page PAGE.html DATA.json
 */
#include "unit/compare_world.h"

static int write_file(const char *path, enum compare_format format, const struct compare *c)
{
	struct error e = {0};
	FILE *f = fopen(path, "w");
	int rc = f ? compare_write(f, format, c, false, &e) : -1;

	if (f && fclose(f))
		rc = -1;
	if (rc)
		fprintf(stderr, "%s: %s\n", path, e.text);
	return rc;
}

int main(int argc, char **argv)
{
	static struct compare_world world;
	struct error e = {0};
	struct compare c;
	struct vary vary;

	if (argc != 3 || compare_world_init(&world) || compare_init(&c, &world.input, &e) ||
	    vary_parse(&vary, "exit.cr3_write.transition=100..9000", &e) ||
	    compare_vary(&c, &vary, &e)) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	int rc = write_file(argv[1], COMPARE_HTML, &c) || write_file(argv[2], COMPARE_JSON, &c);
	compare_fini(&c);
	compare_world_fini(&world);
	return rc;
}

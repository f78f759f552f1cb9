/* Golden files: what people and programs read, pinned under tests/unit/golden. GNOMON_GOLDEN=write
 * rewrites them. For tests that include cmocka.h before. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline char *golden_read(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = NULL;
	size_t size = 0;

	if (!f)
		fail_msg("%s cannot be read (GNOMON_GOLDEN=write makes it)", path);
	if (getdelim(&text, &size, 0, f) < 0)
		fail_msg("%s is empty", path);
	fclose(f);
	return text;
}

static inline void check_golden(const char *name, const char *text)
{
	const char *mode = getenv("GNOMON_GOLDEN");
	char path[300];

	snprintf(path, sizeof(path), "%s/tests/unit/golden/%s", SOURCE_ROOT, name);
	if (mode && !strcmp(mode, "write")) {
		FILE *f = fopen(path, "w");

		assert_non_null(f);
		fputs(text, f);
		fclose(f);
	}

	char *expected = golden_read(path);
	if (strcmp(expected, text))
		fail_msg("%s differs; the report is now:\n%s", path, text);
	free(expected);
}

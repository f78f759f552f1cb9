/*
 * Where profiles come from: the ones built into the program, the installed folder, a file the user
 * names. Also their life and their words.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hw/builtin.h"
#include "hw/hw.h"
#include "hw/reader.h"

/* A profile is some 20 KB; what is far larger is some other file. */
#define PROFILE_FILE_MAX_BYTES (1u << 20)

#ifndef PROFILE_DIR
#define PROFILE_DIR "/usr/local/share/gnomon/profiles"
#endif

static const struct mark_row {
	char letter;
	const char *text;
} marks[MARK_COUNT] = {
	[MARK_SEED] = {'S', "a seed paper"},
	[MARK_READ] = {'T', "read in the source named, or measured"},
	[MARK_COMMON] = {'K', "common knowledge, not checked again"},
	[MARK_DERIVED] = {'D', "derived from sourced numbers"},
	[MARK_ESTIMATE] = {'E', "an estimate"},
};

char mark_letter(enum mark m)
{
	return marks[m].letter;
}

const char *mark_text(enum mark m)
{
	return marks[m].text;
}

const char *cache_level_name(enum cache_level level)
{
	static const char *const names[CACHE_LEVEL_COUNT] = {"l1d", "l2", "l3", "dram"};

	return names[level];
}

static size_t builtin_count(void)
{
	size_t n = 0;

	while (builtin_profiles[n].name && !builtin_profiles[n].is_base)
		n++;
	return n;
}

const char *profile_name(size_t i)
{
	return i < builtin_count() ? builtin_profiles[i].name : NULL;
}

const char *profile_builtin_text(size_t i, size_t *size_bytes)
{
	*size_bytes = builtin_profiles[i].size_bytes;
	return builtin_profiles[i].text;
}

void profile_destroy(struct profile *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->fact_count; i++) {
		free(p->facts[i].path);
		free(p->facts[i].value);
	}
	free(p->facts);
	free(p->origin);
	json_decref(p->document);
	free(p);
}

/* The whole file to a heap block. Refuses what is no regular file: a device or a pipe may never
 * end. */
static int read_file(const char *path, char **bytes, size_t *size_bytes, struct error *e)
{
	int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	char *block = NULL;
	size_t size = 0;

	if (fd < 0)
		return error_set(e, -errno, "profile %s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0)
		rc = error_set(e, -errno, "profile %s: %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		rc = error_set(e, -EINVAL, "profile %s: not a regular file", path);
	else if (st.st_size > PROFILE_FILE_MAX_BYTES)
		rc = error_set(e, -EINVAL, "profile %s: larger than 1 MB: not a profile", path);
	else if (!(block = malloc((size_t)st.st_size + 1)))
		rc = error_set(e, -ENOMEM, "profile %s: no memory to read it", path);
	while (!rc && size < (size_t)st.st_size) {
		ssize_t n = read(fd, block + size, (size_t)st.st_size - size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = error_set(e, -errno, "profile %s: %s", path, strerror(errno));
		if (n <= 0)
			break;
		size += (size_t)n;
	}
	close(fd);
	if (rc) {
		free(block);
		return rc;
	}
	*bytes = block;
	*size_bytes = size;
	return 0;
}

static int load_file(const char *path, struct profile **out, struct error *e)
{
	char *bytes;
	size_t size_bytes;
	int rc = read_file(path, &bytes, &size_bytes, e);

	if (rc)
		return rc;
	rc = profile_parse(path, bytes, size_bytes, out, e);
	free(bytes);
	return rc;
}

static int refuse_name(const char *name, struct error *e)
{
	char legal[300] = "";
	const char *names[16];
	size_t count = 0, at = 0;

	for (; count < ARRAY_COUNT(names) && profile_name(count); count++) {
		names[count] = profile_name(count);
		if (at < sizeof(legal))
			at += (size_t)snprintf(legal + at, sizeof(legal) - at, "%s%s",
					       count ? ", " : "", names[count]);
	}
	const char *near = nearest_word(name, names, count);
	if (near)
		return error_set(
			e, -ENOENT,
			"no profile is called \"%.60s\"; did you mean \"%s\"? (there are: %s; "
			"or give a path)",
			name, near, legal);
	return error_set(e, -ENOENT,
			 "no profile is called \"%.60s\"; there are: %s; or give a path", name,
			 legal);
}

static bool is_path(const char *name_or_path)
{
	size_t length = strlen(name_or_path);

	return strchr(name_or_path, '/') ||
	       (length > 5 && !strcmp(name_or_path + length - 5, ".json"));
}

int profile_load(const char *name_or_path, struct profile **out, struct error *e)
{
	char path[512];

	*out = NULL;
	if (is_path(name_or_path))
		return load_file(name_or_path, out, e);
	for (size_t i = 0; profile_name(i); i++) {
		const struct builtin_profile *b = &builtin_profiles[i];

		if (!strcmp(b->name, name_or_path))
			return profile_parse("built in", b->text, b->size_bytes, out, e);
	}
	if (snprintf(path, sizeof(path), "%s/%s.json", PROFILE_DIR, name_or_path) >=
		    (int)sizeof(path) ||
	    access(path, F_OK) < 0)
		return refuse_name(name_or_path, e);
	return load_file(path, out, e);
}

/*
 * A bounded stand-in for libFuzzer: gives a fuzz target a main() that any compiler links, so that
 * `check` runs every target for a few seconds. With arguments it runs those files; without, it
 * makes deterministic pseudo-random inputs, from nothing or by mutating the seeds found in
 * $GNOMON_FUZZ_CORPUS. The same seed gives the same inputs on every machine, so a crash is repeated
 * by running the test again; the input that was running is written to fuzz-crash.bin beside the
 * test when a fatal signal arrives.
 *
 *   GNOMON_FUZZ_RUNS     how many inputs at most (20000)
 *   GNOMON_FUZZ_SECONDS  how long at most (5)
 *   GNOMON_FUZZ_SEED     another sequence (1)
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define INPUT_MAX 4096
#define SEEDS_MAX 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seed {
	uint8_t *bytes;
	size_t size_bytes;
};

struct fuzzer {
	uint64_t random;
	struct seed seeds[SEEDS_MAX];
	size_t seed_count;
	uint64_t run_count;
};

/* The input that is running, for the signal handler; this program's only shared state. */
static const uint8_t *volatile running_bytes;
static volatile size_t running_size;

static void on_fatal(int number)
{
	static const char text[] = "fuzz: fatal signal; the input is in fuzz-crash.bin\n";
	int fd = open("fuzz-crash.bin", O_WRONLY | O_CREAT | O_TRUNC, 0644);
	ssize_t ignored = 0;

	if (fd >= 0) {
		ignored += write(fd, running_bytes, running_size);
		close(fd);
	}
	ignored += write(STDERR_FILENO, text, sizeof(text) - 1);
	(void)ignored;
	signal(number, SIG_DFL);
	raise(number);
}

/* splitmix64 */
static uint64_t next_random(struct fuzzer *f)
{
	uint64_t z = (f->random += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static size_t below(struct fuzzer *f, size_t limit)
{
	return limit ? next_random(f) % limit : 0;
}

/* Each input lives in a block of its exact size, so that a sanitizer sees one byte too many. */
static void run_one(struct fuzzer *f, const uint8_t *bytes, size_t size_bytes)
{
	uint8_t *copy = malloc(size_bytes ? size_bytes : 1);

	if (!copy)
		return;
	if (size_bytes)
		memcpy(copy, bytes, size_bytes);
	running_bytes = copy;
	running_size = size_bytes;
	LLVMFuzzerTestOneInput(copy, size_bytes);
	free(copy);
	f->run_count++;
}

/* Short inputs are the common case: most targets read few bytes and a short one runs fast. */
static size_t pick_length(struct fuzzer *f)
{
	switch (below(f, 8)) {
	case 0: return below(f, 4);
	case 1:
	case 2:
	case 3: return below(f, 64);
	case 4:
	case 5: return below(f, 512);
	default: return below(f, INPUT_MAX + 1);
	}
}

static size_t fill_noise(struct fuzzer *f, uint8_t *out)
{
	size_t length = pick_length(f);
	unsigned mode = below(f, 4);

	for (size_t i = 0; i < length; i++) {
		uint64_t r = next_random(f);

		switch (mode) {
		case 0: out[i] = (uint8_t)r; break;
		case 1: out[i] = (r & 0x300) ? 0 : (uint8_t)r; break;
		case 2: out[i] = (uint8_t)(r & 7); break;
		default: out[i] = (r & 0x700) && i >= 8 ? out[i - 8] : (uint8_t)r; break;
		}
	}
	return length;
}

static void plant_number(struct fuzzer *f, uint8_t *bytes, size_t length)
{
	static const uint64_t edges[] = {0,
					 1,
					 0x7f,
					 0x80,
					 0xff,
					 0xfff,
					 0x1000,
					 0x7fff,
					 0x8000,
					 0xffff,
					 0x7fffffff,
					 0x80000000,
					 0xffffffff,
					 0x7fffffffffffffff,
					 0x8000000000000000,
					 0xffffffffffffffff,
					 0xfee00000,
					 0xfec00000};
	uint64_t value = edges[below(f, sizeof(edges) / sizeof(edges[0]))];
	size_t width = (size_t)1 << below(f, 4);

	if (length >= width)
		memcpy(bytes + below(f, length - width + 1), &value, width);
}

/* One small change; returns the new length. */
static size_t mutate(struct fuzzer *f, uint8_t *bytes, size_t length)
{
	size_t from, to, count;

	if (!length)
		return fill_noise(f, bytes);
	switch (below(f, 6)) {
	case 0: bytes[below(f, length)] ^= (uint8_t)(1u << below(f, 8)); break;
	case 1: bytes[below(f, length)] = (uint8_t)next_random(f); break;
	case 2: plant_number(f, bytes, length); break;
	case 3: return below(f, length + 1);
	case 4:
		from = below(f, length);
		to = below(f, length);
		count = below(f, length - (from > to ? from : to));
		memmove(bytes + to, bytes + from, count);
		break;
	default:
		count = below(f, INPUT_MAX - length + 1) % 64;
		for (size_t i = 0; i < count; i++)
			bytes[length + i] = (uint8_t)next_random(f);
		return length + count;
	}
	return length;
}

static size_t make_input(struct fuzzer *f, uint8_t *out)
{
	size_t length, changes;

	if (!f->seed_count || below(f, 4) == 0) {
		length = fill_noise(f, out);
		changes = below(f, 3);
	} else {
		const struct seed *s = &f->seeds[below(f, f->seed_count)];

		length = s->size_bytes < INPUT_MAX ? s->size_bytes : INPUT_MAX;
		memcpy(out, s->bytes, length);
		changes = 1 + below(f, 8);
	}
	while (changes--)
		length = mutate(f, out, length);
	return length;
}

static int read_file(const char *path, struct seed *out)
{
	FILE *file = fopen(path, "rb");
	struct stat st;
	int result = -EIO;

	if (!file)
		return -errno;
	if (!fstat(fileno(file), &st) && S_ISREG(st.st_mode)) {
		out->size_bytes = (size_t)st.st_size;
		out->bytes = malloc(out->size_bytes + 1);
		if (out->bytes && fread(out->bytes, 1, out->size_bytes, file) == out->size_bytes)
			result = 0;
		else
			free(out->bytes);
	}
	fclose(file);
	return result;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void read_seeds(struct fuzzer *f, const char *folder)
{
	struct dirent **names = NULL;
	int count = scandir(folder, &names, NULL, by_name);
	char path[4096];

	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]->d_name);
		if (f->seed_count < SEEDS_MAX && !read_file(path, &f->seeds[f->seed_count]))
			f->seed_count++;
		free(names[i]);
	}
	free(names);
}

static int run_files(struct fuzzer *f, int count, char **paths)
{
	struct seed input;

	for (int i = 0; i < count; i++) {
		if (read_file(paths[i], &input)) {
			fprintf(stderr, "fuzz: cannot read %s\n", paths[i]);
			return 2;
		}
		run_one(f, input.bytes, input.size_bytes);
		free(input.bytes);
	}
	return 0;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static double now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run_random(struct fuzzer *f)
{
	uint64_t runs = setting("GNOMON_FUZZ_RUNS", 20000);
	double deadline = now_seconds() + (double)setting("GNOMON_FUZZ_SECONDS", 5);
	const char *folder = getenv("GNOMON_FUZZ_CORPUS");
	uint8_t input[INPUT_MAX];

	if (folder && *folder)
		read_seeds(f, folder);
	run_one(f, input, 0);
	for (size_t i = 0; i < f->seed_count; i++)
		run_one(f, f->seeds[i].bytes, f->seeds[i].size_bytes);
	while (f->run_count < runs && now_seconds() < deadline) {
		size_t length = make_input(f, input);

		run_one(f, input, length);
	}
	for (size_t i = 0; i < f->seed_count; i++)
		free(f->seeds[i].bytes);
}

int main(int argc, char **argv)
{
	struct fuzzer f = {.random = setting("GNOMON_FUZZ_SEED", 1)};
	static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

	for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
		signal(fatal[i], on_fatal);
	if (argc > 1) {
		int result = run_files(&f, argc - 1, argv + 1);

		if (result)
			return result;
	} else {
		run_random(&f);
	}
	printf("fuzz: %llu inputs, no crash\n", (unsigned long long)f.run_count);
	return 0;
}

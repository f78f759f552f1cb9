/*
 * A kernel build in small: generated C files and headers, compiled one process each by a real
 * compiler under a scheduler that works as make does (compare times of files, fork and exec a shell
 * for each rule, JOBS at a time), linked, and run. A second pass must find everything up to date.
 *
 * The compiler is $CC, or else tcc, gcc or cc, whichever is there first. The program that is built
 * uses no library and prints one number; that is the checksum, so it is the same with any compiler.
 */
#include "suite.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILES, FUNCTIONS, HEADERS, JOBS };

#define COMMAND_MAX 512
#define HEADERS_A_FILE 4u

struct build {
	const uint64_t *knob;
	const char *compiler;
	unsigned running, started;
};

/* ---- what is built ---- */

static FILE *create(const char *form, unsigned number)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), form, number);
	f = fopen(path, "w");
	if (!f)
		give_up(path);
	return f;
}

static void write_header(unsigned number, uint64_t *random)
{
	FILE *f = create("h%u.h", number);

	fprintf(f, "#ifndef H%u\n#define H%u\n", number, number);
	for (unsigned i = 0; i < 24; i++) {
		unsigned r = (unsigned)next_random(random);

		fprintf(f, "#define H%u_MASK_%u 0x%xu\n", number, i, r);
		fprintf(f, "#define H%u_MIX_%u(a, b) (((a) ^ ((b) >> %u)) + H%u_MASK_%u)\n", number,
			i, 1 + r % 30, number, i);
		fprintf(f, "struct h%u_s%u {\n\tunsigned key;\n\tstruct h%u_s%u *next;\n", number,
			i, number, i);
		fprintf(f, "\tunsigned char tag[%u];\n};\n", 4 + r % 29);
		fprintf(f, "enum h%u_e%u { H%u_A%u = %u, H%u_B%u, H%u_C%u };\n", number, i, number,
			i, r % 1000, number, i, number, i);
		fprintf(f, "static inline unsigned h%u_step_%u(unsigned v)\n{\n", number, i);
		fprintf(f, "\treturn H%u_MIX_%u(v, v * %uu);\n}\n", number, i, r | 1);
	}
	fprintf(f, "#endif\n");
	fclose(f);
}

static void write_function(FILE *f, unsigned file, unsigned number, unsigned header, uint64_t r)
{
	unsigned a = (unsigned)r, b = (unsigned)(r >> 32), step = a % 24;

	fprintf(f, "static unsigned f%u(unsigned a, unsigned b)\n{\n", number);
	fprintf(f, "\tstruct h%u_s%u s;\n\tunsigned table[16], i;\n\n\ts.key = a;\n", header, step);
	fprintf(f, "\tfor (i = 0; i < 4; i++)\n\t\ts.tag[i] = i;\n\tfor (i = 0; i < 16; i++)\n");
	fprintf(f, "\t\ttable[i] = h%u_step_%u(a + i) ^ b;\n", header, step);
	fprintf(f, "\tfor (i = 0; i < %uu; i++) {\n\t\tswitch ((a ^ i) & 7) {\n", 4 + b % 13);
	for (unsigned c = 0; c < 7; c++)
		fprintf(f, "\t\tcase %u: a = table[(b + %u) & 15] * %uu + s.tag[%u]; break;\n", c,
			(a >> c) & 15, (b >> c) | 1, c & 3);
	fprintf(f, "\t\tdefault: b ^= H%u_MASK_%u;\n\t\t}\n", header, (step + 1) % 24);
	fprintf(f, "\t\ts.key = s.key << 5 | s.key >> 27;\n\t\tb += s.key + H%u_B%u;\n\t}\n",
		header, step);
	fprintf(f, "\treturn a ^ b + %uu;\n}\n\n", file);
}

static void write_file(const struct build *b, unsigned number, uint64_t *random)
{
	FILE *f = create("f%u.c", number);
	unsigned function_count = (unsigned)b->knob[FUNCTIONS];

	for (unsigned i = 0; i < HEADERS_A_FILE; i++)
		fprintf(f, "#include \"h%u.h\"\n", (number + i) % (unsigned)b->knob[HEADERS]);
	for (unsigned i = 0; i < function_count; i++)
		write_function(f, number, i,
			       (number + i % HEADERS_A_FILE) % (unsigned)b->knob[HEADERS],
			       next_random(random));
	fprintf(f, "unsigned unit%u(unsigned v)\n{\n", number);
	for (unsigned i = 0; i < function_count; i++)
		fprintf(f, "\tv = f%u(v, %uu);\n", i, i * 77);
	fprintf(f, "\treturn v;\n}\n");
	fclose(f);
}

/* The program's own way to the kernel, without a library: on both x86 and with every compiler. */
static const char start_text[] =
	"static void print_and_exit(const char *text)\n{\n"
	"#ifdef __x86_64__\n"
	"\tlong r;\n"
	"\t__asm__ volatile(\"syscall\" : \"=a\"(r)\n"
	"\t\t: \"a\"(1L), \"D\"(1L), \"S\"(text), \"d\"(8L) : \"rcx\", \"r11\", \"memory\");\n"
	"\t__asm__ volatile(\"syscall\" : \"=a\"(r) : \"a\"(60L), \"D\"(0L) : \"rcx\", \"r11\");\n"
	"#else\n"
	"\tint r;\n"
	"\t__asm__ volatile(\"int $0x80\" : \"=a\"(r)\n"
	"\t\t: \"a\"(4), \"b\"(1), \"c\"(text), \"d\"(8) : \"memory\");\n"
	"\t__asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(1), \"b\"(0));\n"
	"#endif\n}\n\n"
	"__attribute__((force_align_arg_pointer)) void _start(void)\n{\n"
	"\tchar text[8];\n\tunsigned v = 1, i;\n\n";

static void write_main(const struct build *b)
{
	FILE *f = create("f%u.c", (unsigned)b->knob[FILES]);

	for (unsigned i = 0; i < b->knob[FILES]; i++)
		fprintf(f, "unsigned unit%u(unsigned v);\n", i);
	fputs(start_text, f);
	for (unsigned i = 0; i < b->knob[FILES]; i++)
		fprintf(f, "\tv = unit%u(v);\n", i);
	fprintf(f, "\tfor (i = 0; i < 8; i++, v <<= 4)\n"
		   "\t\ttext[i] = \"0123456789abcdef\"[v >> 28];\n\tprint_and_exit(text);\n}\n");
	fclose(f);
}

static void write_sources(const struct build *b)
{
	uint64_t random = 26;

	for (unsigned i = 0; i < b->knob[HEADERS]; i++)
		write_header(i, &random);
	for (unsigned i = 0; i < b->knob[FILES]; i++)
		write_file(b, i, &random);
	write_main(b);
}

/* ---- building it ---- */

static int is_newer(const char *a, const struct stat *than)
{
	struct stat st;

	if (stat(a, &st))
		give_up(a);
	return st.st_mtim.tv_sec > than->st_mtim.tv_sec ||
	       (st.st_mtim.tv_sec == than->st_mtim.tv_sec &&
		st.st_mtim.tv_nsec > than->st_mtim.tv_nsec);
}

static int is_object_old(const struct build *b, unsigned number)
{
	char path[64];
	struct stat object;

	snprintf(path, sizeof(path), "f%u.o", number);
	if (stat(path, &object))
		return 1;
	snprintf(path, sizeof(path), "f%u.c", number);
	if (is_newer(path, &object))
		return 1;
	for (unsigned i = 0; i < HEADERS_A_FILE && number < b->knob[FILES]; i++) {
		snprintf(path, sizeof(path), "h%u.h", (number + i) % (unsigned)b->knob[HEADERS]);
		if (is_newer(path, &object))
			return 1;
	}
	return 0;
}

static void await_one(struct build *b)
{
	int status;

	if (wait(&status) < 0)
		give_up("wait");
	if (status) {
		errno = 0;
		give_up("kbuild: the compiler failed");
	}
	b->running--;
}

static void start_rule(struct build *b, const char *command)
{
	pid_t child;

	while (b->running >= b->knob[JOBS])
		await_one(b);
	child = fork();
	if (child < 0)
		give_up("fork");
	if (!child) {
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	b->running++;
	b->started++;
}

static void make(struct build *b)
{
	char command[COMMAND_MAX];
	unsigned before = b->started;
	struct stat program;

	for (unsigned i = 0; i <= b->knob[FILES]; i++) {
		if (!is_object_old(b, i))
			continue;
		snprintf(command, sizeof(command), "exec %s -c -I. -o f%u.o f%u.c", b->compiler, i,
			 i);
		start_rule(b, command);
	}
	while (b->running)
		await_one(b);
	if (b->started == before && !stat("program", &program))
		return;
	snprintf(command, sizeof(command), "exec %s -static -nostdlib -o program f*.o",
		 b->compiler);
	start_rule(b, command);
	await_one(b);
}

static uint64_t run_program(void)
{
	char text[9] = "";
	size_t got;
	FILE *f = popen("./program", "r");

	got = f ? fread(text, 1, 8, f) : 0;
	if (!f || pclose(f) || got != 8)
		give_up("kbuild: the program that was built");
	return strtoull(text, NULL, 16);
}

static int is_in_path(const char *name)
{
	char path[256];
	const char *rest = getenv("PATH");

	for (size_t n; rest && *rest; rest += n + (rest[n] == ':')) {
		n = strcspn(rest, ":");
		snprintf(path, sizeof(path), "%.*s/%s", (int)n, rest, name);
		if (!access(path, X_OK))
			return 1;
	}
	return 0;
}

static const char *find_compiler(void)
{
	static const char *const names[] = {"tcc", "gcc", "cc"};

	if (getenv("CC"))
		return getenv("CC");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (is_in_path(names[i]))
			return names[i];
	errno = ENOENT;
	give_up("kbuild needs a compiler, tcc or gcc");
}

static void remove_folder(const char *path)
{
	DIR *folder = opendir(".");

	for (struct dirent *e; folder && (e = readdir(folder));)
		unlink(e->d_name); /* refuses . and .. */
	if (folder)
		closedir(folder);
	if (chdir("/") || rmdir(path))
		give_up(path);
}

static uint64_t kbuild(const uint64_t *knob)
{
	struct build b = {.knob = knob, .compiler = find_compiler()};
	char path[] = "/tmp/kbuild-XXXXXX", *before = getcwd(NULL, 0);
	uint64_t sum;

	if (!before || !mkdtemp(path) || chdir(path))
		give_up("kbuild: a folder in /tmp");
	write_sources(&b);
	measure_begin();
	make(&b);
	sum = fold(0, run_program());
	make(&b);
	measure_end();
	if (b.started != knob[FILES] + 2) {
		errno = 0;
		give_up("kbuild: the second pass built something");
	}
	remove_folder(path);
	if (chdir(before))
		give_up(before);
	free(before);
	return sum;
}

const struct study kbuild_study = {
	"kbuild",
	"a build: generated C files, a real compiler, make's fork and exec",
	{
		[FILES] = {"files", 40, 3, 1, 4096, "files to compile"},
		[FUNCTIONS] = {"functions", 40, 6, 1, 10000, "functions in each"},
		[HEADERS] = {"headers", 12, 6, HEADERS_A_FILE, 1000, "headers; a file includes 4"},
		[JOBS] = {"jobs", 2, 2, 1, 64, "compilers at a time"},
	},
	kbuild,
};

/*
 * `gnomon bench engine`: how many guest instructions a second the engine runs on this host.
 *
 * Three loops of guest code that lie in this file (the host is the same processor, so its assembler
 * makes guest code), run in 64-bit mode under the chosen strategy, and a kernel's boot if one is
 * given. The figures are host seconds over guest instructions retired; nothing is asserted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <jansson.h>

#include "base/host_time.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cpu/vcpu.h"
#include "memory/memory.h"
#include "vm/vm.h"

/* Integer work: a linear congruential generator, a table look-up and an unpredictable branch. */
__asm__(".pushsection .rodata\n"
	"bench_integer:\n"
	"	movl $12345, %eax\n"
	"	xorl %ebx, %ebx\n"
	"	movl $0x400000, %edi\n"
	"1:	imull $1103515245, %eax, %eax\n"
	"	addl $12345, %eax\n"
	"	movl %eax, %ecx\n"
	"	shrl $20, %ecx\n"
	"	movl (%rdi,%rcx,4), %edx\n"
	"	addl %eax, %edx\n"
	"	movl %edx, (%rdi,%rcx,4)\n"
	"	xorq %rdx, %rbx\n"
	"	testl $0x10000, %eax\n"
	"	jz 2f\n"
	"	rolq $7, %rbx\n"
	"	incq %rsi\n"
	"2:	decq %r8\n"
	"	cmpq $0, %r8\n"
	"	jne 1b\n"
	"	jmp 1b\n"
	"bench_integer_end:\n"
	/* Memory work: 1 MiB read, added to and copied to the next, eight bytes of every line. */
	"bench_memory:\n"
	"	movl $0x800000, %edi\n"
	"	xorl %eax, %eax\n"
	"	xorl %esi, %esi\n"
	"1:	movq (%rdi,%rsi), %rcx\n"
	"	addq %rcx, %rax\n"
	"	movq %rax, 0x100000(%rdi,%rsi)\n"
	"	addl $1, 8(%rdi,%rsi)\n"
	"	addq $64, %rsi\n"
	"	andl $0xfffff, %esi\n"
	"	jmp 1b\n"
	"bench_memory_end:\n"
	/* Translation work: a page further at every step, 1024 of them: the first-level TLB misses.
	 */
	"bench_pages:\n"
	"	movl $0x800000, %edi\n"
	"	xorl %eax, %eax\n"
	"	xorl %esi, %esi\n"
	"1:	movq (%rdi,%rsi), %rcx\n"
	"	addq %rcx, %rax\n"
	"	movq %rax, 64(%rdi,%rsi)\n"
	"	movl 128(%rdi,%rsi), %edx\n"
	"	addl $1, 192(%rdi,%rsi)\n"
	"	addq $0x1040, %rsi\n"
	"	andl $0x3fffff, %esi\n"
	"	jmp 1b\n"
	"bench_pages_end:\n"
	".popsection\n");

extern const uint8_t bench_integer[], bench_integer_end[], bench_memory[], bench_memory_end[],
	bench_pages[], bench_pages_end[];

static const struct loop {
	const char *name;
	const uint8_t *code, *end;
} loops[] = {
	{"integer loop", bench_integer, bench_integer_end},
	{"memory loop", bench_memory, bench_memory_end},
	{"page loop", bench_pages, bench_pages_end},
};

#define CODE_ADDRESS 0x300000ull
#define TABLES_ADDRESS 0x200000ull

struct bench_options {
	const char *kernel, *initrd, *append, *paging, *profile;
	const char *stop_at;
	uint64_t instructions;
	int format;
	bool help;
};

static const char *const formats[] = {"table", "json", NULL};

#define AT(member) offsetof(struct bench_options, member)
static const struct option_row rows[] = {
	{"kernel", "-kernel", "FILE", "also boot this kernel and time it", "What", OPTION_TEXT,
	 AT(kernel), 0, 0, NULL, NULL},
	{"initrd", "-initrd", "FILE", "its initial RAM file system", NULL, OPTION_TEXT, AT(initrd),
	 0, 0, NULL, NULL},
	{"append", "-append", "TEXT", "its command line", NULL, OPTION_TEXT, AT(append), 0, 0, NULL,
	 NULL},
	{"stop-at", NULL, "TEXT", "the boot is over when the console prints this", NULL,
	 OPTION_TEXT, AT(stop_at), 0, 0, NULL, NULL},
	{"instructions", NULL, "N", "guest instructions per loop (300000000)", NULL, OPTION_NUMBER,
	 AT(instructions), 1000000, 1000000000000ull, NULL, NULL},
	{"paging", NULL, "STRATEGY", "as for run (native)", "How", OPTION_TEXT, AT(paging), 0, 0,
	 NULL, NULL},
	{"profile", NULL, "PROFILE", "as for run (skylake-sp)", NULL, OPTION_TEXT, AT(profile), 0,
	 0, NULL, NULL},
	{"format", NULL, "FORMAT", "table or json", NULL, OPTION_CHOICE, AT(format), 0, 0, formats,
	 NULL},
	{"help", "-h", NULL, "this text", NULL, OPTION_SWITCH, AT(help), 0, 0, NULL, NULL},
};
#undef AT

struct measurement {
	const char *name;
	uint64_t instructions;
	double seconds;
};

static double now_seconds(void)
{
	return (double)host_time_ns() / 1e9;
}

/* A machine needs something to load: a boot sector that does nothing. Returns its descriptor. */
static int empty_kernel(char path[32])
{
	uint8_t sector[512] = {0xf4};
	sector[510] = 0x55;
	sector[511] = 0xaa;
	int fd = memfd_create("bench", MFD_CLOEXEC);
	if (fd >= 0 && write(fd, sector, sizeof(sector)) == sizeof(sector))
		snprintf(path, 32, "/proc/self/fd/%d", fd);
	return fd;
}

static void machine_config(struct vm_config *config, const struct bench_options *o)
{
	vm_config_defaults(config);
	config->paging = o->paging;
	config->profile = o->profile;
	config->memory_bytes = 256ull << 20;
}

/* 64-bit mode with the low GiB mapped to itself in 4 KiB pages where the loops work, 2 MiB else. */
static void enter_long_mode(struct vm *vm)
{
	struct memory *m = vm_memory(vm);
	struct vcpu_state *s = &vm_vcpu(vm, 0)->state;
	uint64_t flags = PTE_P | PTE_W, entry = (TABLES_ADDRESS + 0x1000) | flags;

	memory_write(m, gpa(TABLES_ADDRESS), &entry, 8);
	entry = (TABLES_ADDRESS + 0x2000) | flags;
	memory_write(m, gpa(TABLES_ADDRESS + 0x1000), &entry, 8);
	for (uint64_t n = 0; n < 128; n++) {
		uint64_t table = TABLES_ADDRESS + 0x3000 + n * 0x1000;
		entry = n < 16 ? table | flags : n << 21 | flags | PTE_PS;
		memory_write(m, gpa(TABLES_ADDRESS + 0x2000 + n * 8), &entry, 8);
		for (uint64_t k = 0; n < 16 && k < 512; k++) {
			entry = (n << 21 | k << 12) | flags;
			memory_write(m, gpa(table + k * 8), &entry, 8);
		}
	}
	s->cr3 = TABLES_ADDRESS;
	s->cr4 = CR4_PAE;
	s->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
	s->efer = EFER_LME | EFER_LMA;
	s->seg[SEG_CS].attributes = ATTR_L | ATTR_P | ATTR_S | ATTR_CODE | ATTR_READABLE |
				    ATTR_ACCESSED;
	s->rip = CODE_ADDRESS;
	vm_state_changed(vm, 0);
}

static int run_loop(const struct bench_options *o, const struct loop *loop, struct measurement *out,
		    struct error *e)
{
	struct vm_config config;
	struct vm_outcome outcome;
	struct vm *vm;
	char path[32] = "";
	int fd = empty_kernel(path);

	machine_config(&config, o);
	config.kernel = path;
	config.kernel_format = BOOT_FORMAT_RAW;
	int err = vm_create(&vm, &config, e);
	if (fd >= 0)
		close(fd);
	if (err)
		return err;
	enter_long_mode(vm);
	memory_write(vm_memory(vm), gpa(CODE_ADDRESS), loop->code,
		     (size_t)(loop->end - loop->code));
	vm_run_for(vm, o->instructions / 20, &outcome); /* warm */
	uint64_t before = vm_instructions(vm);
	double start = now_seconds();
	vm_run_for(vm, o->instructions, &outcome);
	*out = (struct measurement){loop->name, vm_instructions(vm) - before,
				    now_seconds() - start};
	vm_destroy(vm);
	return 0;
}

static int run_boot(const struct bench_options *o, struct measurement *out, struct error *e)
{
	struct vm_config config;
	struct vm_outcome outcome;
	struct vm *vm;

	machine_config(&config, o);
	config.kernel = o->kernel;
	config.initrd[0] = o->initrd;
	config.initrd_count = o->initrd != NULL;
	config.append = o->append ? o->append : "console=ttyS0 quiet panic=-1";
	config.stop_at = o->stop_at;
	config.no_reboot = true;
	double start = now_seconds();
	int err = vm_create(&vm, &config, e);
	if (err)
		return err;
	vm_run(vm, &outcome);
	*out = (struct measurement){"kernel boot", vm_instructions(vm), now_seconds() - start};
	vm_destroy(vm);
	if (outcome.end == VM_END_STOP_AT || outcome.end == VM_END_POWER_OFF)
		return 0;
	return error_set(e, -EIO, "the kernel's boot did not end well: %s", outcome.text);
}

static void print_table(const struct measurement *m, size_t count, long peak_kib)
{
	printf("%-14s %16s %10s %12s\n", "workload", "instructions", "seconds", "MIPS");
	for (size_t n = 0; n < count; n++)
		printf("%-14s %16llu %10.3f %12.1f\n", m[n].name,
		       (unsigned long long)m[n].instructions, m[n].seconds,
		       (double)m[n].instructions / m[n].seconds / 1e6);
	printf("peak memory of the process: %ld MiB\n", peak_kib / 1024);
}

static void print_json(const struct measurement *m, size_t count, long peak_kib)
{
	json_t *list = json_array();
	for (size_t n = 0; n < count; n++)
		json_array_append_new(
			list, json_pack("{s:s, s:I, s:f, s:f}", "name", m[n].name, "instructions",
					(json_int_t)m[n].instructions, "seconds", m[n].seconds,
					"mips", (double)m[n].instructions / m[n].seconds / 1e6));
	json_t *root = json_pack("{s:s, s:i, s:o, s:I}", "schema", "gnomon-bench-engine", "version",
				 1, "workloads", list, "peak_rss_kib", (json_int_t)peak_kib);
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
}

static int bench_engine(const struct bench_options *o)
{
	struct measurement results[ARRAY_COUNT(loops) + 1];
	struct error e = {0};
	size_t count = 0;
	int err = 0;

	for (size_t n = 0; n < ARRAY_COUNT(loops) && !err; n++)
		err = run_loop(o, &loops[n], &results[count++], &e);
	if (!err && o->kernel)
		err = run_boot(o, &results[count++], &e);
	if (err) {
		fprintf(stderr, "gnomon bench: error: %s\n", e.text);
		return err == -EINVAL || err == -ENOENT ? EXIT_CODE_USAGE : EXIT_CODE_VMM;
	}
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	if (o->format)
		print_json(results, count, usage.ru_maxrss);
	else
		print_table(results, count, usage.ru_maxrss);
	return EXIT_CODE_OK;
}

static void print_help(void)
{
	printf("usage: gnomon bench engine [OPTION]...\n"
	       "       gnomon bench papers [OPTION]...   (gnomon bench papers --help)\n\n"
	       "Measures guest instructions per host second: an integer loop, a memory loop, a\n"
	       "loop that misses the first-level TLB at every step and, with --kernel, a boot.\n");
	options_print(stdout, rows, ARRAY_COUNT(rows));
}

int cmd_bench(int argc, char **argv)
{
	struct bench_options o = {.paging = "native",
				  .profile = "skylake-sp",
				  .instructions = 300000000,
				  .stop_at = "GNOMON-INIT"};
	struct error e = {0};

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		print_help();
		return EXIT_CODE_OK;
	}
	if (argc > 1 && !strcmp(argv[1], "papers"))
		return cmd_bench_papers(argc - 1, argv + 1);
	if (argc < 2 || strcmp(argv[1], "engine"))
		return cli_usage_error("bench",
				       "what to measure comes first; there are: engine, papers");
	if (options_parse(rows, ARRAY_COUNT(rows), &o, argc - 1, argv + 1, &e))
		return cli_usage_error("bench", e.text);
	if (o.help) {
		print_help();
		return EXIT_CODE_OK;
	}
	return bench_engine(&o);
}

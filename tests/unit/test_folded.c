/* Folded stacks: counts go to where the guest was, their sum is the ledger's and the bill's; and
 * the files that name addresses, good and bad ones. */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "report/bill.h"
#include "report/folded.h"
#include "report/symbols.h"

#define KERNEL 0xffffffff81000000ull
#define CODE_A (KERNEL + 0x10)
#define CODE_B (KERNEL + 0x200)
#define CODE_USER 0x401000ull

static struct profile *profile;
static struct ledger ledger;
static struct folded *folded;

static int set_up(void **state)
{
	struct error e = {0};

	memset(&ledger, 0, sizeof(ledger));
	return profile_load("skylake-sp", &profile, &e) || folded_create(&folded, 2);
}

static int tear_down(void **state)
{
	profile_destroy(profile);
	folded_destroy(folded);
	return 0;
}

static void told(void *opaque, enum event e)
{
	folded_charge(folded, 0, &ledger, e, *(uint64_t *)opaque);
}

/* Charges as the machine does: the ledger tells of exits and misses. */
static void charge(uint64_t address, enum event e)
{
	ledger.on_charge = told;
	ledger.on_charge_opaque = &address;
	ledger_charge(&ledger, e);
	ledger.on_charge = NULL;
}

static char *written(bool is_virtualized, const struct symbols *symbols)
{
	const struct ledger *list[] = {&ledger};
	struct report_input in = {.profile = profile,
				  .ledgers = list,
				  .vcpu_count = 1,
				  .strategy = "any",
				  .is_virtualized = is_virtualized};
	struct error e = {0};
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_int_equal(folded_write(f, folded, &in, symbols, &e), 0);
	fclose(f);
	return text;
}

static struct symbols *parse(const char *text)
{
	struct symbols *s = NULL;
	struct error e = {0};

	if (symbols_parse("made", text, strlen(text), &s, &e))
		fail_msg("%s", e.text);
	return s;
}

static uint64_t price(enum event e)
{
	return price_millis(&profile->price[e]) / MILLIS_PER_CYCLE;
}

/* What follows a told event is charged where that was. */
static void test_work_goes_to_its_place(void **state)
{
	struct symbols *s = parse("ffffffff81000000 T first\nffffffff81000200 t second\n");
	char expected[400];

	charge(CODE_A, EVENT_TLB_MISS);
	ledger_charge_many(&ledger, EVENT_REF_SHADOW_L1, 4);
	charge(CODE_B, EVENT_EXIT_PF_HIDDEN);
	ledger_charge(&ledger, EVENT_SHADOW_FILL);
	charge(CODE_USER, EVENT_EXIT_CPUID);
	charge(CODE_A, EVENT_EXIT_CPUID);
	charge(CODE_A + 5, EVENT_EXIT_CPUID);
	folded_finish(folded, 0, &ledger);
	char *text = written(true, s);
	snprintf(expected, sizeof(expected),
		 "tlb;tlb.miss;first %llu\nwalk;ref.shadow.l1;first %llu\n"
		 "exit;exit.pf_hidden;second %llu\nexit;exit.cpuid;first %llu\n"
		 "exit;exit.cpuid;user %llu\npaging;shadow.fill;second %llu\n",
		 (unsigned long long)price(EVENT_TLB_MISS),
		 4 * (unsigned long long)price(EVENT_REF_SHADOW_L1),
		 (unsigned long long)price(EVENT_EXIT_PF_HIDDEN),
		 2 * (unsigned long long)price(EVENT_EXIT_CPUID),
		 (unsigned long long)price(EVENT_EXIT_CPUID),
		 (unsigned long long)price(EVENT_SHADOW_FILL));
	assert_string_equal(text, expected);
	free(text);
	symbols_destroy(s);
}

static void test_native_pays_no_exits(void **state)
{
	charge(CODE_A, EVENT_TLB_MISS);
	charge(CODE_A, EVENT_EXIT_CPUID);
	char *text = written(false, NULL);
	assert_non_null(strstr(text, "tlb;tlb.miss;kernel "));
	assert_null(strstr(text, "exit"));
	free(text);
}

static uint64_t next_random(uint64_t *seed)
{
	uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	return z ^ (z >> 27);
}

/* Tens of thousands of places, and no count is lost: not while the table grows either. */
static void test_nothing_is_lost(void **state)
{
	uint64_t seed = 3;

	charge(CODE_A, EVENT_TLB_MISS);
	for (unsigned i = 0; i < 200000; i++) {
		uint64_t r = next_random(&seed);
		enum event e = (enum event)(r % EVENT_COUNT);

		ledger.ring = r >> 40 & 1 ? RING_USER : RING_KERNEL;
		charge(KERNEL + (r >> 8) % 40000 * 4, e);
	}
	folded_finish(folded, 0, &ledger);
	for (int e = 0; e < EVENT_COUNT; e++) {
		enum event_group g = event_group((enum event)e);
		bool is_told = g != GROUP_WORK && g != GROUP_GUEST;

		assert_int_equal(folded_count(folded, (enum event)e),
				 is_told ? ledger_total(&ledger, (enum event)e) : 0);
	}
}

static void test_regions(void **state)
{
	charge(CODE_A, EVENT_EXIT_CPUID);
	folded_restart(folded);
	ledger_charge(&ledger, EVENT_SHADOW_FILL); /* nobody knows where */
	charge(CODE_A, EVENT_EXIT_HLT);
	ledger_charge(&ledger, EVENT_SHADOW_FILL);
	charge(CODE_A, EVENT_EXIT_HLT);
	folded_leave(folded, 0);
	ledger_charge(&ledger, EVENT_SHADOW_FILL);
	folded_finish(folded, 0, &ledger);
	assert_int_equal(folded_count(folded, EVENT_EXIT_CPUID), 0);
	assert_int_equal(folded_count(folded, EVENT_EXIT_HLT), 2);
	assert_int_equal(folded_count(folded, EVENT_SHADOW_FILL), 1);
}

/* ---- symbols ---- */

static void test_map(void **state)
{
	struct symbols *s = parse("ffffffff81000200 t second\r\n"
				  "0000000000000000 A absolute\n"
				  "ffffffff81000000 T first\n"
				  "ffffffff81000000 T alias\n"
				  "ffffffff81000300 D data\n"
				  "no symbol at all\n"
				  "ffffffffc0000000 t odd name;x\t[module]");

	assert_int_equal(symbols_count(s), 4);
	assert_string_equal(symbols_find(s, KERNEL), "first");
	assert_string_equal(symbols_find(s, KERNEL + 0x1ff), "first");
	assert_string_equal(symbols_find(s, KERNEL + 0x200), "second");
	assert_string_equal(symbols_find(s, KERNEL + 0x400), "second");
	assert_string_equal(symbols_find(s, 0xffffffffc0000001ull), "odd");
	assert_null(symbols_find(s, KERNEL - 1));
	assert_null(symbols_find(s, KERNEL + 0x200 + SYMBOL_SPAN_MAX));
	symbols_destroy(s);
}

struct made_elf {
	Elf64_Ehdr head;
	Elf64_Shdr sections[2];
	Elf64_Sym symbols[4];
	char names[32];
};

static void make_elf(struct made_elf *m)
{
	*m = (struct made_elf){
		.head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			 .e_shoff = offsetof(struct made_elf, sections),
			 .e_shentsize = sizeof(Elf64_Shdr),
			 .e_shnum = 2},
		.sections = {{.sh_type = SHT_SYMTAB,
			      .sh_offset = offsetof(struct made_elf, symbols),
			      .sh_size = sizeof(m->symbols),
			      .sh_link = 1},
			     {.sh_type = SHT_STRTAB,
			      .sh_offset = offsetof(struct made_elf, names),
			      .sh_size = sizeof(m->names)}},
		.symbols = {{0},
			    {.st_name = 1, .st_info = STT_FUNC, .st_shndx = 1, .st_value = 0x2000},
			    {.st_name = 5, .st_info = STT_FUNC, .st_shndx = 1, .st_value = 0x1000},
			    {.st_name = 5, .st_info = STT_OBJECT, .st_shndx = 1, .st_value = 1}},
		.names = "\0two\0one",
	};
}

static void test_vmlinux(void **state)
{
	struct symbols *s = NULL;
	struct error e = {0};
	struct made_elf m;

	make_elf(&m);
	assert_int_equal(symbols_parse("made", (const char *)&m, sizeof(m), &s, &e), 0);
	assert_int_equal(symbols_count(s), 2);
	assert_string_equal(symbols_find(s, 0x1fff), "one");
	assert_string_equal(symbols_find(s, 0x2000), "two");
	symbols_destroy(s);
}

/* Whatever bytes are there, nothing outside them is read (ASan looks) and nothing is made up. */
static void test_damaged_elf(void **state)
{
	uint64_t seed = 11;

	for (unsigned round = 0; round < 20000; round++) {
		struct made_elf m;
		struct symbols *s = NULL;
		struct error e = {0};
		size_t size = sizeof(m) - (round % 3 ? 0 : next_random(&seed) % sizeof(m));

		make_elf(&m);
		for (unsigned n = 0; n < 1 + round % 4; n++)
			((uint8_t *)&m)[next_random(&seed) %
					(sizeof(m.head) + sizeof(m.sections))] =
				(uint8_t)next_random(&seed);
		memcpy(m.head.e_ident, ELFMAG, SELFMAG);
		char *exact = malloc(size + !size);
		memcpy(exact, &m, size);
		int r = symbols_parse("damaged", exact, size, &s, &e);
		assert_true(r == 0 || r == -EINVAL || r == -ENOMEM);
		if (!r)
			assert_true(symbols_count(s) > 0);
		symbols_destroy(s);
		free(exact);
	}
}

static void test_files_without_symbols(void **state)
{
	struct symbols *s = NULL;
	struct error e = {0};

	assert_int_equal(symbols_parse("empty", "", 0, &s, &e), -EINVAL);
	assert_non_null(strstr(e.text, "'empty' has no symbols; a System.map"));
	assert_int_equal(symbols_load("/nowhere/System.map", &s, &e), -ENOENT);
	assert_string_equal(e.text, "'/nowhere/System.map': No such file or directory");
	assert_int_equal(symbols_load("/", &s, &e), -EINVAL);
	assert_non_null(strstr(e.text, "no regular file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
		TEST(test_work_goes_to_its_place),  TEST(test_native_pays_no_exits),
		TEST(test_nothing_is_lost),	    TEST(test_regions),
		cmocka_unit_test(test_map),	    cmocka_unit_test(test_vmlinux),
		cmocka_unit_test(test_damaged_elf), cmocka_unit_test(test_files_without_symbols),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

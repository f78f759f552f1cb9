/*
 * A guest of a few bytes that keeps every part of a machine busy, for tests of saving and loading,
 * and what such tests do with it.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "paging/mmu.h"
#include "vm/vm.h"

#include <cmocka.h>

/*
 * Counts the PIT's interrupts (mode 2, every 1000 ticks) in [8000h] and prints a letter at each;
 * between them it counts in [8002h], and sleeps while that is odd. Sixteen bits real mode at 7c00:
 *
 *	cli; xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 7000h
 *	mov word [20h], handler; mov [22h], ax
 *	the PIC: ICW1..4, only IRQ 0; the PIT: 34h, count 1000
 *	sti
 * loop: inc word [8002h]; rdtsc; add [8004h], ax
 *	test byte [8002h], 1; jz loop; hlt; jmp loop
 * handler: push ax; push dx; inc word [8000h]; mov al, 20h; out 20h, al
 *	mov al, [8000h]; and al, 15; add al, 'a'; mov dx, 3f8h; out dx, al; pop dx; pop ax; iret
 */
static const uint8_t code[] = {
	0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x70,	  /* 7c00 */
	0xc7, 0x06, 0x20, 0x00, 0x4a, 0x7c, 0xa3, 0x22, 0x00,		  /* 7c0a */
	0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x08, 0xe6, 0x21, 0xb0, 0x04, 0xe6, /* 7c13 */
	0x21, 0xb0, 0x01, 0xe6, 0x21, 0xb0, 0xfe, 0xe6, 0x21,		  /* 7c1e */
	0xb0, 0x34, 0xe6, 0x43, 0xb0, 0xe8, 0xe6, 0x40, 0xb0, 0x03, 0xe6, /* 7c27 */
	0x40, 0xfb,							  /* 7c32 */
	0xff, 0x06, 0x02, 0x80, 0x0f, 0x31, 0x01, 0x06, 0x04, 0x80,	  /* 7c34: loop */
	0xf6, 0x06, 0x02, 0x80, 0x01, 0x74, 0xef, 0xf4, 0xeb, 0xec,	  /* 7c3e */
	0x90, 0x90,							  /* 7c48 */
	0x50, 0x52, 0xff, 0x06, 0x00, 0x80, 0xb0, 0x20, 0xe6, 0x20,	  /* 7c4a: handler */
	0xa0, 0x00, 0x80, 0x24, 0x0f, 0x04, 'a',  0xba, 0xf8, 0x03,	  /* 7c54 */
	0xee, 0x5a, 0x58, 0xcf,						  /* 7c5e */
};

static inline unsigned strategy_count(void)
{
	unsigned n = 0;
	while (mmu_strategy_name(n, NULL))
		n++;
	return n;
}

/* Of the catalogue, round and round. */
static inline const char *strategy(unsigned i)
{
	return mmu_strategy_name(i % strategy_count(), NULL);
}

struct guest {
	struct vm_config config;
	char file[32];
};

static inline int make_guest(void **state)
{
	struct guest *g = calloc(1, sizeof(*g));
	uint8_t image[512] = {0};
	memcpy(image, code, sizeof(code));
	image[510] = 0x55;
	image[511] = 0xaa;
	strcpy(g->file, "/tmp/gnomon-save-XXXXXX");
	int fd = mkstemp(g->file);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, image, sizeof(image)), sizeof(image));
	close(fd);
	vm_config_defaults(&g->config);
	g->config.kernel = g->file;
	g->config.kernel_format = BOOT_FORMAT_RAW;
	g->config.memory_bytes = 4 << 20;
	g->config.timeout_ms = 60000;
	*state = g;
	return 0;
}

static inline int drop_guest(void **state)
{
	struct guest *g = *state;
	unlink(g->file);
	free(g);
	return 0;
}

static inline struct vm *make(const struct vm_config *c)
{
	struct error e = {0};
	struct vm *vm = NULL;
	if (vm_create(&vm, c, &e))
		fail_msg("%s", e.text);
	return vm;
}

static inline void advance(struct vm *vm, uint64_t instructions)
{
	struct vm_outcome o;
	vm_run_for(vm, instructions, &o);
	if (o.end != VM_END_NONE)
		fail_msg("ended: %s", o.text);
}

static inline void hash(struct vm *vm, char text[33])
{
	struct error e = {0};
	assert_int_equal(vm_state_hash(vm, text, &e), 0);
}

/* A window of 4 KiB pages at 4 MiB in machine.h's long mode, to map and unmap as a test likes. */
#pragma once

#include "machine.h"

#define WINDOW 0x400000ull
#define WINDOW_TABLE (TABLES + 0x3000)
#define PAGE_PRESENT 7ull /* present, writable, user */

static inline void window_map(struct machine *m, unsigned page, uint64_t address, uint64_t flags)
{
	poke_value(m, WINDOW_TABLE + page * 8, address | flags, 8);
}

/* Eight pages of the window are the eight at DATA; the ninth is not there. */
static inline void enter_window(struct machine *m, unsigned cpl)
{
	enter_long(m, cpl);
	poke_value(m, TABLES + 0x2010, WINDOW_TABLE | PAGE_PRESENT, 8);
	for (unsigned page = 0; page < 8; page++)
		window_map(m, page, DATA + page * 0x1000, PAGE_PRESENT);
	window_map(m, 8, 0, 0);
}

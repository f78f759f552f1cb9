/*
 * Private to boot/: the processor states that boot protocols start a kernel in.
 */
#pragma once

#include "boot/load.h"

/* Protected mode, flat 4 GiB segments (CS 0x10, others 0x18), paging and interrupts off. GPRs are
 * 0. */
void entry_protected(struct boot_load *l, uint64_t eip);
/* 64-bit mode with the low 4 GiB mapped to themselves; same selectors. GPRs are 0. */
void entry_long(struct boot_load *l, uint64_t rip);
/* Real mode at 0000:ip, all segments 0, stack below ip. */
void entry_real(struct boot_load *l, uint16_t ip);

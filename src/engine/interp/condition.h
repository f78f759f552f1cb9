/* The sixteen conditions of Jcc, SETcc and CMOVcc (SDM 1 appendix B), on flags as vcpu_state keeps
 * them. */
#pragma once

#include "cpu/vcpu.h"

/* `code` is the low nibble of the opcode. With a constant code this is one or two instructions. */
static inline __attribute__((always_inline)) bool condition_holds(const struct vcpu_state *s,
								  unsigned code)
{
	unsigned low = s->flags_low;
	unsigned sign = low >> 7;
	bool holds = false;
	switch (code >> 1) {
	case 0: holds = s->flags_of; break;
	case 1: holds = low & 0x01; break;
	case 2: holds = low & 0x40; break;
	case 3: holds = low & 0x41; break;
	case 4: holds = sign; break;
	case 5: holds = low & 0x04; break;
	case 6: holds = sign != s->flags_of; break;
	default: holds = (low & 0x40) || sign != s->flags_of; break;
	}
	return holds != (code & 1);
}

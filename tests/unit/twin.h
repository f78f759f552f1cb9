/*
 * Two machines in the same state, to compare: the law that how a run is cut into stretches, what
 * the block cache remembers and on which engine a vcpu lives cannot be seen from inside.
 */
#pragma once

#include "machine.h"

/* Makes `to` continue where `from` stands, with nothing cached. */
static inline void machine_copy(struct machine *to, const struct machine *from)
{
	uint64_t bytes = from->memory->ram_bytes;

	for (uint64_t at = 0; at < bytes; at += PAGE_SIZE_BYTES) {
		const uint8_t *page = memory_host(from->memory, gpa(at), PAGE_SIZE_BYTES);

		if (memcmp(memory_host(to->memory, gpa(at), PAGE_SIZE_BYTES), page,
			   PAGE_SIZE_BYTES))
			poke(to, at, page, PAGE_SIZE_BYTES);
	}
	to->v.state = from->v.state;
	to->v.requests = from->v.requests;
	to->pending = from->pending;
	to->tpr = from->tpr;
	to->last_port_value = from->last_port_value;
	to->ledger = from->ledger;
	to->exit = from->exit;
	clock_set(&to->clock, from->clock.now_cycles);
	interp_ops.state_changed(to->engine, 0);
}

/* Where the two differ, as a word, or NULL. Look-ups (access.*, tlb.*, walk.*) are not compared: a
 * stretch that ends inside a block looks up the rest of the block again. */
static inline const char *machine_difference(struct machine *a, struct machine *b)
{
	struct vcpu_state x = a->v.state, y = b->v.state;

	x.gpr[16] = x.gpr[17] = y.gpr[16] = y.gpr[17] = 0;
	if (a->exit.reason != b->exit.reason)
		return "exit reason";
	if (a->clock.now_cycles != b->clock.now_cycles)
		return "time";
	if (memcmp(x.gpr, y.gpr, sizeof(x.gpr)))
		return "general registers";
	if (x.rip != y.rip)
		return "rip";
	if (memcmp(&x, &y, sizeof(x)))
		return "other state";
	if (memcmp(a->memory->ram, b->memory->ram, a->memory->ram_bytes))
		return "memory";
	for (unsigned e = 0; e < EVENT_COUNT; e++) {
		enum event_group group = event_group((enum event)e);
		bool is_lookup = (group == GROUP_WORK && e != EVENT_INSTRUCTION) ||
				 group == GROUP_TLB || group == GROUP_WALK;

		if (!is_lookup &&
		    memcmp(a->ledger.count[e], b->ledger.count[e], sizeof(a->ledger.count[e])))
			return event_name((enum event)e);
	}
	return NULL;
}

/* Handlers that step over one byte and go on, so that faults do not end a run. */
static inline void fill_skipping_handlers(struct machine *m, unsigned code_bits)
{
	static const uint8_t skip16[] = {0x55, 0x89, 0xe5, 0xff, 0x46, 0x02, 0x5d, 0xcf};
	static const uint8_t skip32[] = {0x83, 0xc4, 0x04, 0xff, 0x04, 0x24, 0xcf};
	static const uint8_t skip64[] = {0x48, 0x83, 0xc4, 0x08, 0x48,
					 0xff, 0x04, 0x24, 0x48, 0xcf};
	const uint32_t with_error = 1u << VECTOR_DF | 1u << VECTOR_TS | 1u << VECTOR_NP |
				    1u << VECTOR_SS | 1u << VECTOR_GP | 1u << VECTOR_PF |
				    1u << VECTOR_AC;

	for (unsigned vector = 0; vector < 32; vector++) {
		unsigned pops = with_error >> vector & 1;

		if (code_bits == 16)
			poke(m, handler(vector), skip16, sizeof(skip16));
		else if (code_bits == 32)
			poke(m, handler(vector), skip32 + (pops ? 0 : 3),
			     sizeof(skip32) - (pops ? 0 : 3));
		else
			poke(m, handler(vector), skip64 + (pops ? 0 : 4),
			     sizeof(skip64) - (pops ? 0 : 4));
	}
}

/* A hardware interrupt's handler: counts in memory (flat DS or DS 0) and returns. */
static inline void fill_counting_handler(struct machine *m, unsigned vector, unsigned code_bits)
{
	static const uint8_t count16[] = {0x2e, 0xff, 0x06, 0x00, 0x00, 0xcf};
	static const uint8_t count32[] = {0xff, 0x05, 0x00, 0x00, 0x06, 0x00, 0xcf};
	static const uint8_t count64[] = {0xff, 0x04, 0x25, 0x00, 0x00, 0x06, 0x00, 0x48, 0xcf};

	if (code_bits == 16)
		poke(m, handler(vector), count16, sizeof(count16));
	else if (code_bits == 32)
		poke(m, handler(vector), count32, sizeof(count32));
	else
		poke(m, handler(vector), count64, sizeof(count64));
}

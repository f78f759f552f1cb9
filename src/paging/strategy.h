/*
 * The family of paging strategies: what answers when the modelled TLBs miss.
 *
 * A strategy owns its tables (nested, shadow) and charges what its hardware and its VMM would do:
 * references of the hardware walk, exits, entries built. mmu.c owns the TLBs, calls the hooks in
 * order and checks the answers under --verify. Private to paging/.
 */
#pragma once

#include "paging/walk.h"

/* What the TLB will hold. */
struct translation {
	gpa_t gpa;	     /* of the byte asked for */
	uint8_t *host;	     /* the same byte; NULL: ask the memory, page by page */
	uint8_t page_shift;  /* of the translation: 12, 21, 22 or 30 */
	uint8_t guest_shift; /* of the guest's page, at least page_shift: INVLPG drops all of it */
	uint8_t flags;	     /* WALK_*, as the hardware's entry has them */
	bool is_uncached;    /* the processor cannot keep it: the next access comes here again */
};

struct strategy;

struct strategy_ops {
	/* `config` is checked and complete. -EINVAL, -ENOMEM. */
	int (*create)(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
		      struct error *e);
	void (*destroy)(struct strategy *s);
	/* A TLB miss: true and *out, or false and the error code that the guest must get. */
	bool (*fill)(struct strategy *s, gva_t address, enum access_kind kind, enum mmu_mode mode,
		     struct translation *out, uint32_t *error_code);
	/* The guest wrote CR3. Returns true if the TLB must go as a whole, false if it goes as the
	 * architecture says. */
	bool (*cr3_written)(struct strategy *s, bool no_flush);
	/* INVLPG, or INVPCID (type INVPCID_ADDRESS to INVPCID_ALL_BUT_GLOBAL). */
	void (*invalidate)(struct strategy *s, int type, unsigned pcid, gva_t address);
	/* Drop everything derived from guest tables and from control bits. */
	void (*reset)(struct strategy *s);
	/* CR0, CR4 or EFER changed, the mmu's context is the new one: what was derived under other
	 * controls must not answer. May be NULL: reset() is called. */
	void (*controls_changed)(struct strategy *s);
	/* Drop everything derived from the map of guest-physical memory. */
	void (*memory_changed)(struct strategy *s);
};

/* `type` of the invalidate hook. */
enum { INVLPG = -1, INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_ALL_BUT_GLOBAL };

/* First member of every strategy. */
struct strategy {
	const struct strategy_ops *ops;
	struct mmu *mmu; /* borrowed */
	/* Answers may be as old as the last invalidation: its tables outlive a TLB miss and follow
	 * the guest's only when told. */
	bool is_retaining;
	/* For --verify, of a strategy that does not follow each write at once: what the guest's
	 * table at `a` said when it was last looked at; NULL: what it says now. May be NULL. */
	const uint8_t *(*old_table)(const struct strategy *s, gpa_t a);
};

struct strategy_entry {
	const char *name;
	const char *text; /* one sentence of help */
	const struct strategy_ops *ops;
	bool is_virtualized;
	bool is_wp_forced; /* the processor runs with CR0.WP on, whatever the guest's is */
};

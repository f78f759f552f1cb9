/*
 * The shadow strategies: policies over the one shadow core.
 *
 * `shadow`: the virtual TLB. One shadow entry is built per hidden fault; a CR3 write empties
 * everything, whatever PCIDs and global pages would allow to keep; INVLPG drops a page. Guest
 * tables are not watched.
 *
 * `shadow-sync`: the same, but guest tables are write-protected, and a write to one exits, is done
 * by the VMM and drops what was derived. Nothing is gained: what it costs more than `shadow` is the
 * price of watching (Bae, Lange, Dinda, TR NWU-EECS-10-07, 3.2).
 *
 * `shadow-prefetch`: the same, and an exit that fills an entry fills the whole table that it is in
 * (2.3 there), as far as the guest has accessed the pages before.
 *
 * `shadow-cache`: shadows outlive CR3 writes (2.2 there), and a write to a table renews what was
 * derived; optionally last-level tables go out of sync.
 *
 * The VMM intercepts CR3 writes, INVLPG, INVPCID and page faults. An access that the shadow does
 * not grant is a page fault exit. If the guest's own tables do not grant it either it is a true
 * fault, given to the guest with the error code of the guest's walk; if the page is device memory
 * the fault is the device access, which the engine charges; if it is a write to a table in sync the
 * VMM does the write for the guest; else it is hidden: the VMM sets the guest's A and D, fills, and
 * the access starts again.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hard.h"
#include "cpu/vcpu.h"
#include "paging/catalogue.h"
#include "paging/shadow.h"

/* Under --verify the entries that an exit had to do with are audited when it ends, and one page
 * after so many exits; in hard mode that page after each, at first, and everything as often as can
 * be afforded. */
#define AUDIT_EVERY 64u
#define AUDIT_REACH 64u
#define HARD_AUDITS 65536u
#define HARD_WHOLE_AUDITS 16u

static struct shadow *core_of(struct strategy *s)
{
	return &((struct shadow_strategy *)s)->core;
}

static void policy_destroy(struct strategy *s)
{
	shadow_fini(core_of(s));
	free(s);
}

static struct shadow_context context_now(const struct shadow *s)
{
	const struct walk_context *c = &s->mmu->private->context;
	return (struct shadow_context){c->mode, c->nx_bit, c->frame_mask, c->large_levels};
}

/* The guest's controls, as far as shadow pages depend on them. */
void shadow_take_controls(struct shadow *s)
{
	s->context = context_now(s);
	const struct vcpu_state *v = &s->mmu->vcpu->state;
	bool is_wp = v->cr0 & CR0_WP;
	s->controls.bits = 0;
	s->controls.is_wp = is_wp;
	s->controls.is_smep = !is_wp && (v->cr4 & CR4_SMEP);
	s->controls.is_smap = !is_wp && (v->cr4 & CR4_SMAP);
}

static const uint8_t *old_table(const struct strategy *s, gpa_t a)
{
	return shadow_old_table(&((const struct shadow_strategy *)(const void *)s)->core, a);
}

static int policy_create(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
			 const struct strategy_ops *ops, struct shadow_policy policy,
			 struct error *e)
{
	struct shadow_strategy *p = calloc(1, sizeof(*p));
	if (!p)
		return error_set(e, -ENOMEM, "no host memory for the paging strategy");
	policy.is_pf_filtered = config->is_pf_filtered && policy.is_watching;
	p->base = (struct strategy){ops, mmu, .is_retaining = !policy.is_watching || policy.is_oos};
	if (policy.is_oos)
		p->base.old_table = old_table;
	int r = shadow_init(&p->core, mmu, config, &policy, e);
	if (r) {
		policy_destroy(&p->base);
		return r;
	}
	shadow_take_controls(&p->core);
	*out = &p->base;
	return 0;
}

static int plain_create(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
			struct error *e)
{
	struct shadow_policy policy = {.prefetch_count = 1};
	return policy_create(out, mmu, config, &shadow_ops, policy, e);
}

static int sync_create(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
		       struct error *e)
{
	struct shadow_policy policy = {.is_watching = true, .prefetch_count = 1};
	return policy_create(out, mmu, config, &shadow_sync_ops, policy, e);
}

static int prefetch_create(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
			   struct error *e)
{
	struct shadow_policy policy = {.is_watching = true,
				       .prefetch_count = config->prefetch_count
								 ? config->prefetch_count
								 : MMU_PREFETCH_TABLE};
	return policy_create(out, mmu, config, &shadow_prefetch_ops, policy, e);
}

static int cache_create(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
			struct error *e)
{
	struct shadow_policy policy = {
		.is_watching = true,
		.is_keeping = true,
		.is_updating = true,
		.is_zapping = true,
		.is_oos = config->is_oos,
		.is_cr3_exitless = config->is_cr3_exitless,
		.prefetch_count = config->prefetch_count ? config->prefetch_count : 1,
		.root_count = config->root_count,
	};
	return policy_create(out, mmu, config, &shadow_cache_ops, policy, e);
}

/* One of the pages used last, in turn, against the invariants. */
static bool audit_in_turn(struct shadow *s, char *why, size_t size)
{
	uint32_t page = s->newest;
	for (uint32_t n = s->audit_count++ % AUDIT_REACH; n && page != SHADOW_NONE; n--)
		page = s->pages[page].older;
	return page == SHADOW_NONE || shadow_audit_page(s, page, why, size);
}

/* After exit number `exit`. */
static void audit(struct shadow *s, uint64_t exit)
{
	struct mmu_private *p = s->mmu->private;
	bool is_whole = hard_is_due(exit, HARD_WHOLE_AUDITS);
	bool is_by_page = hard_is_due(exit, HARD_AUDITS) || (p->verify && exit % AUDIT_EVERY == 0);
	char why[200];
	if (likely(!is_whole && !is_by_page && !s->noted_count))
		return;
	is_whole |= s->noted_count > SHADOW_NOTED_MAX;
	bool is_right = is_whole ? shadow_audit(s, why, sizeof(why))
				 : shadow_audit_noted(s, why, sizeof(why)) &&
					   (!is_by_page || audit_in_turn(s, why, sizeof(why)));
	s->noted_count = 0;
	if (is_right)
		return;
	hard_audit(!"the shadow breaks its invariants");
	if (s->mmu->difference)
		return;
	snprintf(p->difference, sizeof(p->difference), "%s: the audit of its tables: %s",
		 p->entry->name, why);
	s->mmu->difference = p->difference;
}

void shadow_exit_begin(struct shadow *s)
{
	s->exit_cause = EVENT_COUNT;
	s->exit_start = ledger_exit_begin(s->mmu->ledger);
}

/* The VMM resumes the guest. */
void shadow_resume(struct shadow *s)
{
	if (s->is_flush_due && s->mmu->private->is_tagged)
		mmu_flush_tlb(s->mmu);
	s->is_flush_due = false;
	ledger_exit_end(s->mmu->ledger, s->exit_cause, s->exit_start);
	s->exit_start = 0;
	audit(s, s->exit_count++);
}

void shadow_charge_exit(struct shadow *s, enum event e)
{
	ledger_charge(s->mmu->ledger, e);
	s->exit_cause = e;
	mmu_note_exit(s->mmu);
}

bool shadow_grants(struct shadow *s, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   const struct shadow_hit *hit, struct translation *out)
{
	struct mmu *mmu = s->mmu;
	if (!hit->entry)
		return false;
	unsigned flags = shadow_flags(hit->entry);
	if (!mmu->private->context.is_global_on)
		flags &= ~WALK_G;
	if (!walk_permits(mmu->private->permit, flags, kind, mode))
		return false;
	if (s->policy.is_zapping) /* the processor set A in the entry: the VMM can know */
		shadow_note_use(s, hit->page);
	uint64_t offset = address.v & (BIT(hit->page_shift) - 1);
	*out = (struct translation){
		.host = hpa_host(mmu->memory, hpa((hit->entry & SHADOW_ADDRESS) + offset)),
		.page_shift = hit->page_shift,
		.guest_shift = (uint8_t)shadow_guest_shift(hit->entry, hit->page_shift),
		.flags = (uint8_t)flags,
	};
	return memory_gpa(mmu->memory, out->host, &out->gpa);
}

void shadow_emulate(const struct walk_result *r, struct translation *out)
{
	*out = (struct translation){
		.gpa = r->gpa,
		.page_shift = PAGE_SHIFT,
		.guest_shift = r->page_shift,
		.flags = r->flags,
		.is_uncached = true,
	};
}

static void fill_ram(struct shadow *s, gva_t address, enum access_kind kind,
		     const struct walk_result *r, unsigned flags, struct translation *out)
{
	shadow_reserve(s, SHADOW_FILL_PAGES);
	s->walk = s->mmu->is_observer ? r : NULL;
	enum shadow_outcome outcome = shadow_fill(s, address, r, flags, kind);
	shadow_charge_exit(s, outcome == SHADOW_FILLED ? EVENT_EXIT_PF_HIDDEN
						       : EVENT_EXIT_TABLE_WRITE);
	ledger_charge(s->mmu->ledger, EVENT_SHADOW_FILL);
	if (outcome == SHADOW_EMULATE)
		shadow_emulate(r, out);
	else if (s->policy.prefetch_count > 1)
		shadow_prefetch(s, address);
	s->walk = NULL;
}

/* The VMM's page-fault handler. WALK_OK with out->is_uncached: the access was done on the guest's
 * behalf; without: try again. */
static enum walk_outcome handle_fault(struct shadow *s, gva_t address, enum access_kind kind,
				      enum mmu_mode mode, const struct shadow_hit *hit,
				      struct walk_result *r, struct translation *out)
{
	struct mmu *mmu = s->mmu;
	const struct walk_context *c = &mmu->private->context;
	struct walk_source source = mmu_walk_source(mmu);
	*out = (struct translation){.is_uncached = false};
	if (walk_and_commit(c, &source, address, kind, mode, r, NULL) == WALK_FAULT) {
		if (!hit->is_known_absent)
			shadow_charge_exit(s, EVENT_EXIT_PF_TRUE);
		return WALK_FAULT;
	}
	bool is_forced = shadow_is_forced(c, r->flags, kind, mode);
	int flags = shadow_leaf_flags(s->controls, r->flags, is_forced);
	if (!memory_slot(mmu->memory, r->gpa)) {
		shadow_emulate(r, out);
	} else if (flags < 0) {
		shadow_charge_exit(s, EVENT_EXIT_PF_HIDDEN);
		shadow_emulate(r, out);
	} else {
		fill_ram(s, address, kind, r, (unsigned)flags, out);
	}
	return WALK_OK;
}

static bool policy_fill(struct strategy *strategy, gva_t address, enum access_kind kind,
			enum mmu_mode mode, struct translation *out, uint32_t *error_code)
{
	struct shadow *s = core_of(strategy);
	struct walk_result r;
	struct shadow_hit hit;
	if (s->context.mode == &paging_modes[PAGING_PAE])
		shadow_check_registers(s);
	for (;;) {
		hit = shadow_walk(s, address);
		if (shadow_grants(s, address, kind, mode, &hit, out))
			return true;
		shadow_exit_begin(s);
		enum walk_outcome outcome = handle_fault(s, address, kind, mode, &hit, &r, out);
		shadow_resume(s);
		if (outcome == WALK_FAULT) {
			*error_code = r.error_code;
			return false;
		}
		if (out->is_uncached)
			return true;
	}
}

static void drop_all(struct shadow *s)
{
	if (shadow_drop_all(s))
		ledger_charge(s->mmu->ledger, EVENT_SHADOW_FLUSH);
}

static bool emptying_cr3_written(struct strategy *strategy, bool no_flush)
{
	struct shadow *s = core_of(strategy);
	uint64_t start = ledger_exit_begin(s->mmu->ledger);
	ledger_charge(s->mmu->ledger, EVENT_EXIT_CR3_WRITE);
	drop_all(s);
	s->is_flush_due = false; /* the caller flushes */
	ledger_exit_end(s->mmu->ledger, EVENT_EXIT_CR3_WRITE, start);
	return true;
}

/* The root for the present CR3 and controls, if it is retained, in sync as far as it leads. */
void shadow_switch_root(struct shadow *s)
{
	shadow_set_root(s, shadow_find_root(s));
	shadow_sync_reachable(s, s->root);
}

static bool keeping_cr3_written(struct strategy *strategy, bool no_flush)
{
	struct shadow *s = core_of(strategy);
	struct mmu *mmu = s->mmu;
	uint64_t start = ledger_exit_begin(mmu->ledger);
	uint32_t root = shadow_find_root(s);
	bool is_exit = !s->policy.is_cr3_exitless || root == SHADOW_NONE ||
		       shadow_unsync_reachable(s, root);
	if (is_exit)
		ledger_charge(mmu->ledger, EVENT_EXIT_CR3_WRITE);
	if (root != SHADOW_NONE)
		ledger_charge(mmu->ledger, EVENT_SHADOW_ROOT_HIT);
	shadow_switch_root(s);
	bool is_whole = s->is_flush_due || (is_exit && !mmu->private->is_tagged);
	s->is_flush_due = false;
	ledger_exit_end(mmu->ledger, is_exit ? EVENT_EXIT_CR3_WRITE : EVENT_COUNT, start);
	return is_whole;
}

static void emptying_invalidate(struct strategy *strategy, int type, unsigned pcid, gva_t address)
{
	struct shadow *s = core_of(strategy);
	shadow_exit_begin(s);
	shadow_charge_exit(s, EVENT_EXIT_INVLPG);
	if (type != INVLPG && type != INVPCID_ADDRESS)
		drop_all(s);
	else if (!s->policy.is_watching)
		shadow_drop_page(s, address);
	if (!s->policy.is_watching)
		s->is_flush_due = false; /* the caller takes from the TLB what has to go */
	shadow_resume(s);
}

static void keeping_invalidate(struct strategy *strategy, int type, unsigned pcid, gva_t address)
{
	struct shadow *s = core_of(strategy);
	const struct vcpu_state *v = &s->mmu->vcpu->state;
	unsigned present = v->cr4 & CR4_PCIDE ? v->cr3 & 0xfff : 0;
	shadow_exit_begin(s);
	shadow_charge_exit(s, EVENT_EXIT_INVLPG);
	/* Other spaces are brought in sync when CR3 names them again. */
	bool is_present = type == INVLPG || type == INVPCID_ALL || type == INVPCID_ALL_BUT_GLOBAL ||
			  pcid == present;
	if (is_present && (type == INVLPG || type == INVPCID_ADDRESS))
		shadow_sync_address(s, address);
	else if (is_present)
		shadow_sync_reachable(s, s->root);
	shadow_resume(s);
}

void shadow_policy_reset(struct strategy *strategy)
{
	struct shadow *s = core_of(strategy);
	drop_all(s);
	shadow_take_controls(s);
	s->is_flush_due = false;
}

/* Shadow pages name WP, SMEP and SMAP in their role; all else that their entries depend on is one
 * for all of them. */
void shadow_keeping_controls_changed(struct strategy *strategy)
{
	struct shadow *s = core_of(strategy);
	struct shadow_context was = s->context, now = context_now(s);
	if (!now.mode->level_count || was.mode != now.mode || was.nx_bit != now.nx_bit ||
	    was.frame_mask != now.frame_mask || was.large_levels != now.large_levels) {
		shadow_policy_reset(strategy);
		return;
	}
	shadow_take_controls(s);
	shadow_switch_root(s);
	shadow_resume(s);
}

#define SHADOW_OPS(create_, cr3_, invalidate_, controls_)                                     \
	{                                                                                     \
		.create = create_, .destroy = policy_destroy, .fill = policy_fill,            \
		.cr3_written = cr3_, .invalidate = invalidate_, .reset = shadow_policy_reset, \
		.controls_changed = controls_, .memory_changed = shadow_policy_reset,         \
	}

const struct strategy_ops shadow_ops =
	SHADOW_OPS(plain_create, emptying_cr3_written, emptying_invalidate, NULL);
const struct strategy_ops shadow_sync_ops =
	SHADOW_OPS(sync_create, emptying_cr3_written, emptying_invalidate, NULL);
const struct strategy_ops shadow_prefetch_ops =
	SHADOW_OPS(prefetch_create, emptying_cr3_written, emptying_invalidate, NULL);
const struct strategy_ops shadow_cache_ops = SHADOW_OPS(
	cache_create, keeping_cr3_written, keeping_invalidate, shadow_keeping_controls_changed);

bool mmu_audit(const struct mmu *mmu, char *why, size_t size)
{
	const struct strategy *s = mmu->private->strategy;
	if (mmu->strategy->fill != policy_fill && mmu->strategy != &agile_ops)
		return true;
	return shadow_audit(&((const struct shadow_strategy *)(const void *)s)->core, why, size);
}

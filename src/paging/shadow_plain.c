/*
 * `shadow`: the virtual TLB. One shadow entry is built per hidden fault; a CR3 write empties
 * everything, whatever PCIDs and global pages would allow to keep; INVLPG drops a page. The VMM
 * intercepts CR3 writes, INVLPG and every page fault.
 *
 * An access that the shadow does not grant is a page fault exit. If the guest's own tables do not
 * grant it either it is a true fault, given to the guest with the error code of the guest's walk;
 * if the page is device memory the fault is the device access, which the engine charges; else it is
 * hidden: the VMM sets the guest's A and D, fills, and the access starts again.
 */
#include <errno.h>
#include <stdlib.h>

#include "paging/catalogue.h"
#include "paging/shadow.h"

struct shadow_plain {
	struct strategy base;
	struct shadow core;
};

static void plain_destroy(struct strategy *s)
{
	struct shadow_plain *p = (struct shadow_plain *)s;
	shadow_fini(&p->core);
	free(p);
}

static int plain_create(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
			struct error *e)
{
	struct shadow_plain *p = calloc(1, sizeof(*p));
	if (!p)
		return error_set(e, -ENOMEM, "no host memory for the paging strategy");
	p->base = (struct strategy){&shadow_ops, mmu};
	int r = shadow_init(&p->core, mmu, config, e);
	if (r) {
		plain_destroy(&p->base);
		return r;
	}
	*out = &p->base;
	return 0;
}

static void drop_all(struct shadow_plain *p)
{
	if (shadow_drop_all(&p->core))
		ledger_charge(p->base.mmu->ledger, EVENT_SHADOW_FLUSH);
}

static void charge_exit(struct shadow_plain *p, enum event e)
{
	ledger_charge(p->base.mmu->ledger, e);
	mmu_note_exit(p->base.mmu);
}

/* The hardware's attempt: true and *out if the shadow grants the access. */
static bool try_shadow(struct shadow_plain *p, gva_t address, enum access_kind kind,
		       enum mmu_mode mode, struct translation *out)
{
	struct mmu *mmu = p->base.mmu;
	struct shadow_hit hit = shadow_walk(&p->core, address);
	if (!hit.entry)
		return false;
	unsigned flags = shadow_flags(hit.entry);
	if (!walk_permits(mmu->private->permit, flags, kind, mode))
		return false;
	uint64_t offset = address.v & (BIT(hit.page_shift) - 1);
	*out = (struct translation){
		.host = hpa_host(mmu->memory, hpa((hit.entry & SHADOW_ADDRESS) + offset)),
		.page_shift = hit.page_shift,
		.guest_shift = (uint8_t)shadow_guest_shift(hit.entry, hit.page_shift),
		.flags = (uint8_t)flags,
	};
	return memory_gpa(mmu->memory, out->host, &out->gpa);
}

/* The VMM's page-fault handler. WALK_OK with out->is_uncached: the access was done on the guest's
 * behalf; without: try again. */
static enum walk_outcome handle_fault(struct shadow_plain *p, gva_t address, enum access_kind kind,
				      enum mmu_mode mode, struct walk_result *r,
				      struct translation *out)
{
	struct mmu *mmu = p->base.mmu;
	const struct walk_context *c = &mmu->private->context;
	struct walk_source source = mmu_walk_source(mmu);
	*out = (struct translation){.is_uncached = false};
	if (walk_and_commit(c, &source, address, kind, mode, r, NULL) == WALK_FAULT) {
		charge_exit(p, EVENT_EXIT_PF_TRUE);
		return WALK_FAULT;
	}
	bool is_ram = memory_slot(mmu->memory, r->gpa);
	int flags = shadow_leaf_flags(c, &mmu->vcpu->state, r->flags, kind, mode);
	if (is_ram)
		charge_exit(p, EVENT_EXIT_PF_HIDDEN);
	if (!is_ram || flags < 0) {
		*out = (struct translation){
			.gpa = r->gpa,
			.page_shift = PAGE_SHIFT,
			.guest_shift = r->page_shift,
			.flags = r->flags,
			.is_uncached = true,
		};
		return WALK_OK;
	}
	if (!shadow_fill(&p->core, address, r, (unsigned)flags)) {
		drop_all(p);
		mmu_flush_tlb(mmu);
		shadow_fill(&p->core, address, r, (unsigned)flags);
	}
	ledger_charge(mmu->ledger, EVENT_SHADOW_FILL);
	return WALK_OK;
}

static bool plain_fill(struct strategy *s, gva_t address, enum access_kind kind, enum mmu_mode mode,
		       struct translation *out, uint32_t *error_code)
{
	struct shadow_plain *p = (struct shadow_plain *)s;
	struct walk_result r;
	while (!try_shadow(p, address, kind, mode, out)) {
		if (handle_fault(p, address, kind, mode, &r, out) == WALK_FAULT) {
			*error_code = r.error_code;
			return false;
		}
		if (out->is_uncached)
			return true;
	}
	return true;
}

static bool plain_cr3_written(struct strategy *s, bool no_flush)
{
	struct shadow_plain *p = (struct shadow_plain *)s;
	ledger_charge(s->mmu->ledger, EVENT_EXIT_CR3_WRITE);
	drop_all(p);
	return true;
}

static void plain_invalidate(struct strategy *s, int type, unsigned pcid, gva_t address)
{
	struct shadow_plain *p = (struct shadow_plain *)s;
	charge_exit(p, EVENT_EXIT_INVLPG);
	if (type == INVLPG || type == INVPCID_ADDRESS)
		shadow_drop_page(&p->core, address);
	else
		drop_all(p);
}

static void plain_reset(struct strategy *s)
{
	drop_all((struct shadow_plain *)s);
}

const struct strategy_ops shadow_ops = {
	.create = plain_create,
	.destroy = plain_destroy,
	.fill = plain_fill,
	.cr3_written = plain_cr3_written,
	.invalidate = plain_invalidate,
	.reset = plain_reset,
	.memory_changed = plain_reset,
};

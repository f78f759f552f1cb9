/*
 * `native`: the guest's own walk, as on bare metal. What every other strategy is compared with.
 */
#include <errno.h>
#include <stdlib.h>

#include "paging/catalogue.h"
#include "paging/mmu_private.h"

static int native_create(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
			 struct error *e)
{
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return error_set(e, -ENOMEM, "no host memory for the paging strategy");
	**out = (struct strategy){&native_ops, mmu};
	return 0;
}

static void native_destroy(struct strategy *s)
{
	free(s);
}

static bool native_fill(struct strategy *s, gva_t address, enum access_kind kind,
			enum mmu_mode mode, struct translation *out, uint32_t *error_code)
{
	struct mmu *mmu = s->mmu;
	const struct walk_context *c = &mmu->private->context;
	struct walk_source source = mmu_walk_source(mmu);
	struct walk_result r;
	unsigned updates = 0;
	do {
		walk(c, &source, address, kind, mode, &r);
		mmu_charge_walk(mmu, address, &r);
	} while (r.outcome == WALK_OK && !walk_commit(c, &source, kind, &r, &updates));
	ledger_charge_many(mmu->ledger, EVENT_AD_UPDATE, updates);
	if (r.outcome == WALK_FAULT) {
		*error_code = r.error_code;
		return false;
	}
	*out = (struct translation){
		.gpa = r.gpa,
		.page_shift = r.page_shift,
		.guest_shift = r.page_shift,
		.flags = r.flags,
	};
	return true;
}

static bool native_cr3_written(struct strategy *s, bool no_flush)
{
	return false;
}

static void native_invalidate(struct strategy *s, int type, unsigned pcid, gva_t address)
{
}

static void native_nothing(struct strategy *s)
{
}

const struct strategy_ops native_ops = {
	.create = native_create,
	.destroy = native_destroy,
	.fill = native_fill,
	.cr3_written = native_cr3_written,
	.invalidate = native_invalidate,
	.reset = native_nothing,
	.memory_changed = native_nothing,
};

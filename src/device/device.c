/* Saving, loading and ending are the same for every device: one section each, its state as it lies
 * in memory. */
#include "device/device.h"

#include <stdio.h>

#include "state/state.h"

void device_init(struct device *d, const struct device_ops *ops, const char *name,
		 const char *instance, void *state, size_t state_bytes)
{
	d->ops = ops;
	d->state = state;
	d->state_bytes = state_bytes;
	snprintf(d->section, sizeof(d->section), instance ? "%s.%s" : "%s", name, instance);
}

void device_save(const struct device *d, struct state_writer *w)
{
	state_put(w, d->section, d->ops->version, d->state, d->state_bytes);
}

int device_load(struct device *d, struct state_reader *r, struct error *e)
{
	/* Timers of the old state must go; lines are not driven, for their receivers may be loaded
	 * already. */
	if (d->ops->fini)
		d->ops->fini(d);
	int result = state_get(r, d->section, d->ops->version, d->state, d->state_bytes, e);
	if (!result && d->ops->resume) {
		result = d->ops->resume(d, e);
		if (result)
			error_prefix(e, "saved state: section '%s'", d->section);
	}
	if (result)
		device_reset(d);
	return result;
}

void device_fini(struct device *d)
{
	if (d->ops && d->ops->fini)
		d->ops->fini(d);
	d->ops = NULL;
}

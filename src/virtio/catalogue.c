/* All virtio devices there are. A new one is a file and a line here. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/options.h"

/* A line each, so that two additions are two lines. */
/* clang-format off */
static const struct virtio_row *const rows[] = {
	&virtio_9p_row,
	&virtio_balloon_row,
	&virtio_blk_row,
	&virtio_console_row,
	&virtio_net_row,
	&virtio_rng_row,
	&virtio_vsock_row,
};
/* clang-format on */

const char *const virtio_transport_names[] = {"pci", "mmio", NULL};

const struct virtio_row *virtio_row(size_t i)
{
	return i < ARRAY_COUNT(rows) ? rows[i] : NULL;
}

const struct virtio_row *virtio_find(const char *name, size_t length)
{
	static const char prefix[] = "virtio-";
	static const char *const suffixes[] = {"", "-pci", "-device"};
	if (length > strlen(prefix) && !strncmp(name, prefix, strlen(prefix))) {
		name += strlen(prefix);
		length -= strlen(prefix);
	}
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		size_t n = strlen(rows[i]->name);
		for (size_t k = 0; k < ARRAY_COUNT(suffixes); k++)
			if (length == n + strlen(suffixes[k]) && !strncmp(name, rows[i]->name, n) &&
			    !strncmp(name + n, suffixes[k], length - n))
				return rows[i];
	}
	return NULL;
}

int virtio_options_parse(const char *text, const struct spec_row *device_rows, size_t count,
			 void *target, struct error *e)
{
	struct virtio_options *o = target;
	return spec_parse(text, device_rows, count, target, &o->copy, e);
}

int virtio_options_apply(struct virtio_device *d, const struct virtio_options *o, const char *text,
			 struct error *e)
{
	d->transport = (enum virtio_transport)o->transport;
	if (!o->packed)
		d->offered &= ~VIRTIO_F_PACKED;
	d->text = strdup(text);
	return d->text ? 0 : error_set(e, -ENOMEM, "out of memory");
}

void virtio_options_free(void *target)
{
	struct virtio_options *o = target;
	free(o->copy);
	o->copy = NULL;
}

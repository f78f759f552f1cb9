/* What the options of all virtio devices have in common. Private to virtio/. */
#pragma once

#include "base/spec.h"
#include "virtio/virtio.h"

/* First in the structure that a device's rows fill. */
struct virtio_options {
	int transport; /* enum virtio_transport */
	bool packed;   /* offer packed rings */
	char *copy;    /* what texts point into; virtio_options_free() */
};

extern const char *const virtio_transport_names[];

#define VIRTIO_OPTION_ROWS                                        \
	{.name = "transport",                                     \
	 .kind = SPEC_CHOICE,                                     \
	 .offset = offsetof(struct virtio_options, transport),    \
	 .choices = virtio_transport_names},                      \
	{                                                         \
		.name = "packed", .kind = SPEC_ON_OFF,            \
		.offset = offsetof(struct virtio_options, packed) \
	}
#define VIRTIO_OPTION_DEFAULTS \
	{                      \
		.packed = true \
	}

/* spec_parse() into a structure that begins with struct virtio_options. */
int virtio_options_parse(const char *text, const struct spec_row *rows, size_t count, void *target,
			 struct error *e);
void virtio_options_free(void *target);
/* Between virtio_init() and the end of create(): the common ones take effect, and `text` becomes
 * the device's. -ENOMEM. */
int virtio_options_apply(struct virtio_device *d, const struct virtio_options *o, const char *text,
			 struct error *e);

/* The catalogue's rows, beside their devices. */
extern const struct virtio_row virtio_balloon_row;
extern const struct virtio_row virtio_blk_row;
extern const struct virtio_row virtio_console_row;
extern const struct virtio_row virtio_net_row;
extern const struct virtio_row virtio_rng_row;
extern const struct virtio_row virtio_9p_row;
extern const struct virtio_row virtio_vsock_row;

/*
 * Virtio devices (VIRTIO 1.2), the folder's contract: queues (queue.h), the part that all devices
 * share (here), the two transports (pci.h, mmio.h) and the catalogue of devices.
 *
 * A kind of device is one const ops struct and one row of the catalogue. Its struct begins with a
 * struct virtio_device; create() makes it from an option's text, vm/ gives it a transport and its
 * wires. What a device keeps for the guest lies in a plain struct of its own (`own`), saved as a
 * section beside the core's, and nothing is in flight when sections are written: drain().
 *
 *	driver kicks -> transport -> virtio_kick() -> timer ... between two turns: ops->kicked()
 *	-> virtq_pop(), work, virtio_push(), virtio_signal() -> transport -> MSI or line
 *
 * A kick only arms a timer, so device memory is written to at the price of a note, no DMA happens
 * inside an instruction, and nothing a device does can call back into a device. Under the virtual
 * clock the timer is `latency_ns` away and a device finishes its work when it fires: the same in
 * every run. Under the real clock it is due at once, and a device may finish later, from poll() or
 * from a file that it watches.
 *
 * What a driver does that the specification forbids it is data: the device needs a reset
 * (virtio_fail()), and does nothing until it gets one.
 */
#pragma once

#include "bus/bus.h"
#include "clock/clock.h"
#include "device/device.h"
#include "virtio/queue.h"

#define VIRTIO_QUEUES_MAX 8
#define VIRTIO_NO_VECTOR 0xffff

/* Feature bits that are not one device's own. */
#define VIRTIO_F_INDIRECT (1ull << 28)
#define VIRTIO_F_EVENT_INDEX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_F_PACKED (1ull << 34)

#define VIRTIO_STATUS_ACKNOWLEDGE 1u
#define VIRTIO_STATUS_DRIVER 2u
#define VIRTIO_STATUS_DRIVER_OK 4u
#define VIRTIO_STATUS_FEATURES_OK 8u
#define VIRTIO_STATUS_NEEDS_RESET 64u
#define VIRTIO_STATUS_FAILED 128u

struct memory;
struct virtio_device;

enum virtio_transport { VIRTIO_PCI, VIRTIO_MMIO };

/* What a device may ask of the machine around it; one a machine, filled by vm/. */
struct virtio_host {
	struct memory *memory; /* borrowed */
	struct clock *clock;   /* borrowed; CLOCK_VIRTUAL: nothing may depend on the host */
	uint64_t seed;
	/* Calls `ready` between turns when `fd` is readable. A waker is one from which the guest
	 * may be woken; without any, a guest that sleeps without a timer has ended. */
	int (*watch)(void *opaque, int fd, void (*ready)(void *device, int fd), void *device);
	void (*set_waker)(void *opaque, int fd, bool is_waker);
	void (*unwatch)(void *opaque, int fd);
	struct byte_sink console; /* what the console device says */
	/* It takes input again: virtio_console_receive(). May be NULL. */
	void (*console_has_room)(void *opaque);
	void *opaque; /* borrowed */
};

struct virtio_ops {
	const char *name;    /* of the row and the section */
	uint16_t type;	     /* VIRTIO 1.2, chapter 5 */
	uint32_t class_code; /* PCI's, 24 bits */
	uint32_t version;    /* of the section `own` */
	uint64_t latency_ns; /* from kick to work, under the virtual clock */
	/* There may be chains in queue `index`. Between turns, DRIVER_OK only. */
	void (*kicked)(struct virtio_device *d, unsigned index);
	/* The driver wrote to the configuration bytes. May be NULL. */
	void (*config_written)(struct virtio_device *d, unsigned offset, unsigned size_bytes);
	/* DRIVER_OK: features and queues stand. May be NULL. */
	void (*started)(struct virtio_device *d);
	/* Own state and configuration to power-on; what is in flight must not touch memory after
	 * this. */
	void (*reset)(struct virtio_device *d);
	/* Own state was loaded, the core's is: -EINVAL if no run could have produced it. May be
	 * NULL. */
	int (*resume)(struct virtio_device *d, struct error *e);
	/* Returns when nothing is in flight any more. May be NULL. */
	void (*drain)(struct virtio_device *d);
	/* Something may have finished; called often while in_flight. May be NULL. */
	void (*poll)(struct virtio_device *d);
	/* Ends it: closes and frees. */
	void (*destroy)(struct virtio_device *d);
};

/* What the guest could find out about any device; plain data. */
struct virtio_state {
	uint64_t driver_features;
	uint64_t kick_deadline; /* while `kicked` */
	uint32_t kicked;	/* queues, a bit each */
	uint32_t config_generation;
	uint16_t config_vector;
	uint8_t status;
	uint8_t isr;
	uint8_t unused[4];
	struct virtq_state queues[VIRTIO_QUEUES_MAX];
};

/* How the device reaches its driver. */
struct virtio_wire {
	/* Queue `index` has something new; VIRTIO_CONFIG: the configuration or status has. */
	void (*interrupt)(void *opaque, int index);
	void *opaque; /* borrowed */
};
#define VIRTIO_CONFIG (-1)

struct virtio_device {
	struct device device; /* section "virtio.N" */
	struct device own;    /* section "NAME.N"; unused without state */
	struct device_ops own_ops;
	struct virtio_state state;
	const struct virtio_ops *ops;
	const struct virtio_host *host; /* borrowed */
	enum virtio_transport transport;
	uint64_t offered; /* features */
	struct virtq queues[VIRTIO_QUEUES_MAX];
	unsigned queue_count;
	uint8_t *config; /* borrowed: the device's own; little-endian as the driver reads it */
	unsigned config_bytes;
	void *own_state; /* borrowed: the device's own; NULL: none */
	size_t own_bytes;
	struct virtio_wire wire;
	struct timer timer;
	bool is_live;	       /* it is connected to a world where real time passes */
	unsigned in_flight;    /* work that finishes by itself; real clock only */
	char *text;	       /* the option, complete; owned */
	const char *unsavable; /* why no snapshot can hold it; NULL: one can */
	const char *problem;   /* why it needs a reset; for people */
	uint64_t fail_count;
};

/* ---- for devices ---- */

/* In create(): the rest of *d is zero. `offered` without the bits above, which are offered always.
 */
void virtio_init(struct virtio_device *d, const struct virtio_ops *ops,
		 const struct virtio_host *host, uint64_t offered);
void virtio_add_queue(struct virtio_device *d, uint16_t size);
void virtio_set_config(struct virtio_device *d, void *config, unsigned size_bytes);
void virtio_set_own_state(struct virtio_device *d, void *state, size_t size_bytes);

static inline bool virtio_has(const struct virtio_device *d, uint64_t feature)
{
	return (d->state.driver_features & feature) == feature;
}

static inline bool virtio_is_running(const struct virtio_device *d)
{
	return (d->state.status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) ==
	       VIRTIO_STATUS_DRIVER_OK;
}

/* The next chain of a queue; false if there is none, or the device needs a reset now. */
bool virtio_pop(struct virtio_device *d, unsigned queue, struct virtq_chain *c);
/* Gives it back. virtio_signal() follows, once for several. */
void virtio_push(struct virtio_device *d, unsigned queue, struct virtq_ticket t, uint64_t written);
void virtio_signal(struct virtio_device *d, unsigned queue);
/* As if the driver kicked again in `delay_ns`: something could not be done now. */
void virtio_kick_later(struct virtio_device *d, unsigned queue, uint64_t delay_ns);
/* The configuration changed by itself. */
void virtio_config_changed(struct virtio_device *d);
/* The driver did what it must not: DEVICE_NEEDS_RESET. `problem` is a constant. */
void virtio_fail(struct virtio_device *d, const char *problem);

/* ---- for transports ---- */

void virtio_write_status(struct virtio_device *d, uint8_t status);
uint32_t virtio_read_features(const struct virtio_device *d, uint32_t select);
void virtio_write_features(struct virtio_device *d, uint32_t select, uint32_t value);
uint32_t virtio_driver_features(const struct virtio_device *d, uint32_t select);
uint64_t virtio_read_config(const struct virtio_device *d, uint64_t offset, unsigned size_bytes);
void virtio_write_config(struct virtio_device *d, uint64_t offset, unsigned size_bytes,
			 uint64_t value);
/* NULL for a queue that is not there. */
struct virtq *virtio_queue(struct virtio_device *d, unsigned index);
void virtio_set_queue_size(struct virtio_device *d, unsigned index, uint16_t size);
enum virtio_ring { VIRTIO_RING_DESC, VIRTIO_RING_DRIVER, VIRTIO_RING_DEVICE };
/* One half of an address. */
void virtio_set_ring(struct virtio_device *d, unsigned index, enum virtio_ring ring, bool is_high,
		     uint32_t value);
void virtio_set_whole_ring(struct virtio_device *d, unsigned index, enum virtio_ring ring,
			   uint64_t value);
uint64_t virtio_ring(struct virtio_device *d, unsigned index, enum virtio_ring ring);
void virtio_enable_queue(struct virtio_device *d, unsigned index);
void virtio_disable_queue(struct virtio_device *d, unsigned index);
/* The driver kicked. */
void virtio_kick(struct virtio_device *d, unsigned index);

/* ---- for the machine ---- */

/* Names the sections; `wire` is the transport's. */
void virtio_attach(struct virtio_device *d, unsigned index, struct virtio_wire wire);
void virtio_drain(struct virtio_device *d);
void virtio_poll(struct virtio_device *d);
void virtio_destroy(struct virtio_device *d); /* virtio_destroy(NULL) is legal */

/* Input for a console device; returns how many bytes it took. */
size_t virtio_console_receive(struct virtio_device *d, const uint8_t *bytes, size_t count);

/* Balloon devices. Setting asks the driver for so many pages; asking takes what is known, and asks
 * the driver for newer statistics. Statistics are VIRTIO 1.2's 5.5.6.3, by tag; UINT64_MAX is
 * unknown. */
#define VIRTIO_BALLOON_STATS 10
struct virtio_balloon_info {
	uint64_t target_pages, actual_pages;
	bool has_stats;
	uint64_t stats[VIRTIO_BALLOON_STATS];
};
void virtio_balloon_set(struct virtio_device *d, uint64_t pages);
void virtio_balloon_ask(struct virtio_device *d, struct virtio_balloon_info *out);
/* NULL past the end. */
const char *virtio_balloon_stat_name(unsigned i);

struct virtio_row {
	const char *name;
	const char *argument; /* what follows the name; "" for nothing */
	const char *text;     /* help */
	/* Is `text` one that create() would understand? Opens nothing. */
	int (*check)(const char *text, struct error *e);
	/* `text` is what followed the name and its comma. The device's `text` is then complete: it
	 * makes the same device again from another folder. */
	int (*create)(struct virtio_device **out, const char *text, const struct virtio_host *host,
		      struct error *e);
};

/* The catalogue; NULL past the end. */
const struct virtio_row *virtio_row(size_t i);
/* "blk", and QEMU's "virtio-blk", "virtio-blk-pci", "virtio-blk-device"; NULL. */
const struct virtio_row *virtio_find(const char *name, size_t length);

/* The two address spaces (ports, device memory) as sorted tables of ranges, and the one path of
 * what nobody answers. */
#include "bus/bus.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"

/* A guest that pokes at nothing in a loop must not fill the host's disk through --unhandled=log. */
#define UNHANDLED_LOG_LINES_MAX 1000

void bus_init(struct bus *b)
{
	memset(b, 0, sizeof(*b));
}

/* The ranges are sorted by base and do not overlap. The index of the last range that starts at or
 * below `address`, or -1. */
static int range_index(const struct bus_range *ranges, unsigned count, uint64_t address)
{
	int low = 0, high = (int)count;
	while (low < high) {
		int middle = (low + high) / 2;
		if (ranges[middle].base <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low - 1;
}

static const struct bus_range *range_find(const struct bus_range *ranges, unsigned count,
					  uint64_t address)
{
	int i = range_index(ranges, count, address);
	return i >= 0 && address - ranges[i].base < ranges[i].size ? &ranges[i] : NULL;
}

static int range_add(struct bus_range *ranges, unsigned *count, struct bus_range r,
		     const char *space, struct error *e)
{
	if (!r.size || r.size - 1 > UINT64_MAX - r.base)
		return error_set(e, -EINVAL, "%s: an empty or wrapping %s range at %#llx", r.name,
				 space, (unsigned long long)r.base);
	int before = range_index(ranges, *count, r.base + (r.size - 1));
	if (before >= 0 && ranges[before].base + (ranges[before].size - 1) >= r.base)
		return error_set(e, -EEXIST, "%s: %s range %#llx+%#llx overlaps %s at %#llx",
				 r.name, space, (unsigned long long)r.base,
				 (unsigned long long)r.size, ranges[before].name,
				 (unsigned long long)ranges[before].base);
	if (*count == BUS_RANGES_MAX)
		return error_set(e, -ENOSPC, "%s: all %d %s ranges of the bus are used", r.name,
				 BUS_RANGES_MAX, space);
	unsigned at = (unsigned)(before + 1);
	memmove(&ranges[at + 1], &ranges[at], (*count - at) * sizeof(r));
	ranges[at] = r;
	(*count)++;
	return 0;
}

static void range_remove(struct bus_range *ranges, unsigned *count, uint64_t base)
{
	int i = range_index(ranges, *count, base);
	if (i < 0 || ranges[i].base != base)
		return;
	(*count)--;
	memmove(&ranges[i], &ranges[i + 1], (*count - (unsigned)i) * sizeof(ranges[0]));
}

int bus_map_ports(struct bus *b, uint16_t base, unsigned count, const struct bus_ops *ops,
		  void *opaque, const char *name, struct error *e)
{
	if (count > 0x10000u - base)
		return error_set(e, -EINVAL, "%s: ports %#x+%#x reach past 0xffff", name, base,
				 count);
	struct bus_range r = {base, count, ops, opaque, name};
	return range_add(b->ports, &b->port_range_count, r, "port", e);
}

int bus_map_mmio(struct bus *b, gpa_t base, uint64_t size_bytes, const struct bus_ops *ops,
		 void *opaque, const char *name, struct error *e)
{
	struct bus_range r = {base.v, size_bytes, ops, opaque, name};
	return range_add(b->mmio, &b->mmio_range_count, r, "MMIO", e);
}

void bus_unmap_ports(struct bus *b, uint16_t base)
{
	range_remove(b->ports, &b->port_range_count, base);
}

void bus_unmap_mmio(struct bus *b, gpa_t base)
{
	range_remove(b->mmio, &b->mmio_range_count, base.v);
}

/* One of the two address spaces, so that the splitting is written once. */
struct space {
	const struct bus_range *ranges;
	const unsigned *count; /* a device may map and unmap while it is written to */
	uint64_t last;	       /* the highest address there is */
	const char *name;
	uint64_t *unhandled_count;
};

static struct space port_space(struct bus *b)
{
	return (struct space){b->ports, &b->port_range_count, 0xffff, "port",
			      &b->unhandled_port_count};
}

static struct space mmio_space(struct bus *b)
{
	return (struct space){b->mmio, &b->mmio_range_count, UINT64_MAX, "address",
			      &b->unhandled_mmio_count};
}

/* The one path of accesses that nobody answers. */
static void note_unhandled(struct bus *b, const struct space *s, bool is_write, uint64_t address,
			   unsigned size_bytes, uint64_t value)
{
	char text[sizeof(b->stop_text)];
	(*s->unhandled_count)++;
	if (b->unhandled == UNHANDLED_IGNORE)
		return;
	if (is_write)
		snprintf(text, sizeof(text),
			 "%u-byte write of %#llx to %s %#llx, where no device is", size_bytes,
			 (unsigned long long)value, s->name, (unsigned long long)address);
	else
		snprintf(text, sizeof(text), "%u-byte read of %s %#llx, where no device is",
			 size_bytes, s->name, (unsigned long long)address);
	if (b->unhandled == UNHANDLED_STOP) {
		if (!b->stop_requested)
			memcpy(b->stop_text, text, sizeof(text));
		b->stop_requested = true;
	} else if (b->unhandled_port_count + b->unhandled_mmio_count <= UNHANDLED_LOG_LINES_MAX) {
		log_warn("%s", text);
	}
}

/* The range that holds the whole access, or NULL. */
static const struct bus_range *whole_range(const struct space *s, uint64_t address,
					   unsigned size_bytes)
{
	const struct bus_range *r = range_find(s->ranges, *s->count, address);
	return r && size_bytes <= r->size - (address - r->base) ? r : NULL;
}

static uint64_t space_read(struct bus *b, const struct space *s, unsigned vcpu, uint64_t address,
			   unsigned size_bytes, bool *handled)
{
	const struct bus_range *r = whole_range(s, address, size_bytes);
	if (handled)
		*handled = true;
	if (r)
		return r->ops->read(r->opaque,
				    (struct bus_access){address - r->base, size_bytes, vcpu}) &
		       mask_bytes(size_bytes);
	uint64_t value = mask_bytes(size_bytes);
	bool is_whole = true, is_any = false;
	for (unsigned i = 0; i < size_bytes; i++) {
		r = i <= s->last - address ? range_find(s->ranges, *s->count, address + i) : NULL;
		if (!r) {
			is_whole = false;
			continue;
		}
		uint64_t byte = r->ops->read(r->opaque,
					     (struct bus_access){address + i - r->base, 1, vcpu});
		value = (value & ~(0xffull << (8 * i))) | (byte & 0xff) << (8 * i);
		is_any = true;
	}
	if (!is_whole)
		note_unhandled(b, s, false, address, size_bytes, 0);
	if (handled)
		*handled = is_any;
	return value;
}

static bool space_write(struct bus *b, const struct space *s, unsigned vcpu, uint64_t address,
			unsigned size_bytes, uint64_t value)
{
	const struct bus_range *r = whole_range(s, address, size_bytes);
	value &= mask_bytes(size_bytes);
	if (r) {
		r->ops->write(r->opaque, (struct bus_access){address - r->base, size_bytes, vcpu},
			      value);
		return true;
	}
	bool is_whole = true, is_any = false;
	for (unsigned i = 0; i < size_bytes; i++) {
		r = i <= s->last - address ? range_find(s->ranges, *s->count, address + i) : NULL;
		if (!r) {
			is_whole = false;
			continue;
		}
		r->ops->write(r->opaque, (struct bus_access){address + i - r->base, 1, vcpu},
			      (value >> (8 * i)) & 0xff);
		is_any = true;
	}
	if (!is_whole)
		note_unhandled(b, s, true, address, size_bytes, value);
	return is_any;
}

uint64_t bus_port_read(struct bus *b, unsigned vcpu, uint16_t port, unsigned size_bytes,
		       bool *handled)
{
	struct space s = port_space(b);
	return space_read(b, &s, vcpu, port, size_bytes, handled);
}

bool bus_port_write(struct bus *b, unsigned vcpu, uint16_t port, unsigned size_bytes,
		    uint64_t value)
{
	struct space s = port_space(b);
	return space_write(b, &s, vcpu, port, size_bytes, value);
}

uint64_t bus_mmio_read(struct bus *b, unsigned vcpu, gpa_t a, unsigned size_bytes, bool *handled)
{
	struct space s = mmio_space(b);
	return space_read(b, &s, vcpu, a.v, size_bytes, handled);
}

bool bus_mmio_write(struct bus *b, unsigned vcpu, gpa_t a, unsigned size_bytes, uint64_t value)
{
	struct space s = mmio_space(b);
	return space_write(b, &s, vcpu, a.v, size_bytes, value);
}

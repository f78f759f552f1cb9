/* The table is bytes to the guest and messages to us; what was pending is sent as soon as nothing
 * masks it. */
#include "device/msix.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"

#define CAPABILITY_ID 0x11
#define CAPABILITY_BYTES 12
#define CONTROL_ENABLE 0x8000u
#define CONTROL_MASK_ALL 0x4000u
#define ENTRY_MASKED 1u

static uint16_t control(const struct msix *m)
{
	uint16_t v;
	memcpy(&v, &m->pci->config[m->capability + 2], sizeof(v));
	return v;
}

bool msix_is_enabled(const struct msix *m)
{
	return control(m) & CONTROL_ENABLE;
}

static bool is_masked(const struct msix *m, unsigned vector)
{
	return (control(m) & CONTROL_MASK_ALL) || (m->state.entries[vector].control & ENTRY_MASKED);
}

void msix_notify(struct msix *m, unsigned vector)
{
	if (vector >= m->vector_count || !msix_is_enabled(m))
		return;
	const struct msix_entry *entry = &m->state.entries[vector];
	if (is_masked(m, vector))
		m->state.pending |= BIT(vector);
	else
		bus_msi_send(m->bus, entry->address, entry->data);
}

static void send_pending(struct msix *m)
{
	for (unsigned i = 0; i < m->vector_count; i++) {
		if (!(m->state.pending & BIT(i)) || !msix_is_enabled(m) || is_masked(m, i))
			continue;
		m->state.pending &= ~BIT(i);
		msix_notify(m, i);
	}
}

void msix_config_written(struct msix *m)
{
	if (!msix_is_enabled(m))
		m->state.pending = 0;
	send_pending(m);
}

static uint64_t read_bytes(const void *from, size_t limit, uint64_t offset, unsigned size_bytes)
{
	uint64_t value = 0;
	if (offset < limit && size_bytes <= limit - offset)
		memcpy(&value, (const uint8_t *)from + offset, size_bytes);
	return value;
}

uint64_t msix_read_table(const struct msix *m, uint64_t offset, unsigned size_bytes)
{
	return read_bytes(m->state.entries, m->vector_count * sizeof(struct msix_entry), offset,
			  size_bytes);
}

uint64_t msix_read_pending(const struct msix *m, uint64_t offset, unsigned size_bytes)
{
	return read_bytes(&m->state.pending, sizeof(m->state.pending), offset, size_bytes);
}

void msix_write_table(struct msix *m, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	size_t limit = m->vector_count * sizeof(struct msix_entry);
	/* Other widths and unaligned ones are undefined by the standard. */
	if (offset >= limit || size_bytes < 4 || offset % size_bytes)
		return;
	memcpy((uint8_t *)m->state.entries + offset, &value, size_bytes);
	struct msix_entry *entry = &m->state.entries[offset / sizeof(struct msix_entry)];
	entry->address &= ~3ull;
	entry->control &= ENTRY_MASKED;
	send_pending(m);
}

static void msix_reset(struct device *d)
{
	struct msix *m = (struct msix *)d;
	m->state = (struct msix_state){0};
	for (unsigned i = 0; i < m->vector_count; i++)
		m->state.entries[i].control = ENTRY_MASKED;
}

static int msix_resume(struct device *d, struct error *e)
{
	const struct msix *m = (struct msix *)d;
	bool is_good = !(m->state.pending >> m->vector_count);
	for (unsigned i = 0; i < m->vector_count; i++)
		is_good &= !(m->state.entries[i].control & ~ENTRY_MASKED) &&
			   !(m->state.entries[i].address & 3);
	return is_good ? 0 : error_set(e, -EINVAL, "the MSI-X table is impossible");
}

static const struct device_ops msix_ops = {1, msix_reset, msix_resume, NULL};

void msix_init(struct msix *m, const char *instance, struct pci_device *pci, struct bus *bus,
	       unsigned vector_count, unsigned bar, uint32_t table_offset, uint32_t pending_offset)
{
	assert(vector_count && vector_count <= MSIX_VECTORS_MAX);
	*m = (struct msix){.pci = pci, .bus = bus, .vector_count = vector_count};
	device_init(&m->device, &msix_ops, "msix", instance, &m->state, sizeof(m->state));
	m->capability = pci_device_add_capability(pci, CAPABILITY_ID, CAPABILITY_BYTES);
	uint8_t *c = &pci->config[m->capability];
	uint32_t table = table_offset | bar, pending = pending_offset | bar;
	c[2] = (uint8_t)(vector_count - 1);
	memcpy(c + 4, &table, sizeof(table));
	memcpy(c + 8, &pending, sizeof(pending));
	pci->writable[m->capability + 3] = (CONTROL_ENABLE | CONTROL_MASK_ALL) >> 8;
	msix_reset(&m->device);
}

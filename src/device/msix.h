/*
 * MSI-X of a PCI function (PCI Local Bus 3.0, 6.8.2): a table of messages in a BAR, a capability
 * that switches it on, and pending bits for what is masked.
 *
 * The function's BAR hands accesses to the table and to the pending bits on to msix_read() and
 * msix_write(); its config_written() ends in msix_config_written().
 */
#pragma once

#include "device/pci.h"

#define MSIX_VECTORS_MAX 16
#define MSIX_TABLE_BYTES (16u * MSIX_VECTORS_MAX)

struct msix_entry {
	uint64_t address;
	uint32_t data;
	uint32_t control; /* bit 0: masked */
};

struct msix_state {
	struct msix_entry entries[MSIX_VECTORS_MAX];
	uint64_t pending; /* a bit a vector */
};

struct msix {
	struct device device;
	struct msix_state state;
	struct pci_device *pci; /* borrowed */
	struct bus *bus;	/* borrowed */
	unsigned vector_count;
	unsigned capability; /* its offset in configuration space */
};

/* Before the function is added: puts the capability there. The table lies at `table_offset` of BAR
 * `bar`, the pending bits at `pending_offset`. `instance` names the section. */
void msix_init(struct msix *m, const char *instance, struct pci_device *pci, struct bus *bus,
	       unsigned vector_count, unsigned bar, uint32_t table_offset, uint32_t pending_offset);

bool msix_is_enabled(const struct msix *m);
/* Sends the message, or remembers it while it is masked. Out of range: nothing. */
void msix_notify(struct msix *m, unsigned vector);

uint64_t msix_read_table(const struct msix *m, uint64_t offset, unsigned size_bytes);
void msix_write_table(struct msix *m, uint64_t offset, unsigned size_bytes, uint64_t value);
uint64_t msix_read_pending(const struct msix *m, uint64_t offset, unsigned size_bytes);
/* The guest wrote to configuration space. */
void msix_config_written(struct msix *m);

/* What queue.c, split.c and packed.c share. Private to virtio/. */
#pragma once

#include "virtio/queue.h"

#define DESC_BYTES 16
#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u

/* The ring is read while other processors may write it; each field is taken once. */
static inline uint16_t ring_load(const uint8_t *p)
{
	return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}

/* Writes to the ring are DMA like any other: who watches the page is told. */
void ring_store(struct virtq *q, gpa_t address, uint8_t *host, uint16_t value);
void ring_write(struct virtq *q, gpa_t address, uint8_t *host, const void *bytes, unsigned count);

/* Makes the queue broken; returns -EPROTO. */
int virtq_break(struct virtq *q, const char *problem);
/* Adds one segment, or says why the driver may not have it. NULL: fine. */
const char *chain_add(const struct virtq *q, struct virtq_chain *c, uint64_t address,
		      uint32_t size_bytes, bool is_writable);
/* The table that an indirect descriptor names, and its entries; NULL and *problem. */
const uint8_t *indirect_table(const struct virtq *q, uint64_t address, uint32_t size_bytes,
			      unsigned *count, const char **problem);

int split_pop(struct virtq *q, struct virtq_chain *c);
bool split_has_chain(const struct virtq *q);
void split_push(struct virtq *q, struct virtq_ticket t, uint32_t written);
bool split_wants_signal(struct virtq *q);

int packed_pop(struct virtq *q, struct virtq_chain *c);
bool packed_has_chain(const struct virtq *q);
void packed_push(struct virtq *q, struct virtq_ticket t, uint32_t written);
bool packed_wants_signal(struct virtq *q);

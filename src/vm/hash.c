/*
 * The state hash: 128 bits over everything the guest could observe. Vcpu states, devices, virtual
 * time, RAM, and what was printed. What only speeds things up (TLBs, cached blocks, shadow tables)
 * is no part of it, so runs of one guest under different strategies end with the same hash.
 *
 * RAM is hashed as (page number, contents) of every page that is not all zero: whether an untouched
 * page has host memory behind it makes no difference, and neither does how much of it there is
 * besides.
 */
#include <errno.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "state/state.h"
#include "vm/machine.h"

static bool is_zero_page(const uint8_t *page)
{
	uint64_t first;
	memcpy(&first, page, sizeof(first));
	return !first && !memcmp(page, page + 8, PAGE_SIZE_BYTES - 8);
}

static int put_memory(struct vm *vm, struct state_writer *w)
{
	XXH3_state_t *hash = XXH3_createState();
	if (!hash || XXH3_128bits_reset(hash) == XXH_ERROR) {
		XXH3_freeState(hash);
		return -ENOMEM;
	}
	for (unsigned k = 0; k < vm->memory->slot_count; k++) {
		const struct memslot *slot = &vm->memory->slots[k];
		for (uint64_t at = 0; at < slot->size_bytes; at += PAGE_SIZE_BYTES) {
			if (is_zero_page(slot->host + at))
				continue;
			uint64_t address = slot->base.v + at;
			XXH3_128bits_update(hash, &address, sizeof(address));
			XXH3_128bits_update(hash, slot->host + at, PAGE_SIZE_BYTES);
		}
	}
	XXH128_canonical_t digest;
	XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(hash));
	XXH3_freeState(hash);
	state_put(w, "ram", 1, digest.digest, sizeof(digest.digest));
	return 0;
}

static void put_vcpu(const struct vm *vm, unsigned i, struct state_writer *w)
{
	struct vcpu_state s;
	vm_canonical_vcpu(vm, i, &s);
	state_put(w, "vcpu", i, &s, sizeof(s));
}

static void put_console(const struct vm *vm, struct state_writer *w)
{
	struct {
		uint64_t byte_count;
		uint8_t digest[16];
	} c = {.byte_count = vm->console.state.byte_count};
	console_digest(&vm->console, c.digest);
	state_put(w, "console", 1, &c, sizeof(c));
}

int vm_state_hash(struct vm *vm, char text[33], struct error *e)
{
	struct state_writer *w;
	devices_drain(vm);
	if (state_hasher_create(&w))
		return error_set(e, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < vm->config.cpu_count; i++)
		put_vcpu(vm, i, w);
	board_save(vm, w);
	if (vm->clock.kind == CLOCK_VIRTUAL)
		state_put(w, "clock", 1, &vm->clock.now_cycles, sizeof(vm->clock.now_cycles));
	put_console(vm, w);
	int r = put_memory(vm, w);
	if (r)
		error_set(e, r, "out of memory");
	else
		state_hash_text(w, text);
	state_writer_destroy(w);
	return r;
}

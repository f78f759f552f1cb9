/* Guest memory as debuggers see it: page by page through the reference walk, without side effects
 * on TLBs, tables or counts. */
#include <string.h>

#include "cpu/vcpu.h"
#include "debug/monitor_private.h"
#include "memory/memory.h"
#include "paging/mmu.h"
#include "vm/vm.h"

static size_t piece(uint64_t address, size_t count)
{
	size_t room = PAGE_SIZE_BYTES - (address & PAGE_OFFSET_MASK);
	return count < room ? count : room;
}

bool debug_read_physical(struct vm *vm, uint64_t address, void *bytes, size_t count)
{
	return memory_read(vm_memory(vm), gpa(address), bytes, count) == 0;
}

bool debug_read_virtual(struct vm *vm, unsigned vcpu, uint64_t address, void *bytes, size_t count)
{
	uint8_t *to = bytes;
	while (count) {
		size_t n = piece(address, count);
		gpa_t physical;
		if (!mmu_peek(vm_mmu(vm, vcpu), gva(address), &physical) ||
		    !debug_read_physical(vm, physical.v, to, n))
			return false;
		address += n;
		to += n;
		count -= n;
	}
	return true;
}

bool debug_write_virtual(struct vm *vm, unsigned vcpu, uint64_t address, const void *bytes,
			 size_t count)
{
	gpa_t physical;
	for (size_t at = 0, n; at < count; at += n) {
		n = piece(address + at, count - at);
		if (!mmu_peek(vm_mmu(vm, vcpu), gva(address + at), &physical) ||
		    !memory_host(vm_memory(vm), physical, n))
			return false;
	}
	for (size_t at = 0, n; at < count; at += n) {
		n = piece(address + at, count - at);
		mmu_peek(vm_mmu(vm, vcpu), gva(address + at), &physical);
		memory_write(vm_memory(vm), physical, (const uint8_t *)bytes + at, n);
	}
	return true;
}

#include "vm/kvmclock.h"

#include <string.h>

#include "memory/memory.h"

#define ENABLE 1ull
#define FLAG_TSC_STABLE 1u

/*
 * What the guest reads:  ns = system_time + ((((tsc - tsc_timestamp) << tsc_shift) *
 * tsc_to_system_mul) >> 32) An odd version means that it is being written.
 */
struct time_page {
	uint32_t version;
	uint32_t unused;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags;
	uint8_t unused2[2];
};

struct wall_page {
	uint32_t version, seconds, nanoseconds;
};

/* mul / 2^32 * 2^shift = ns per cycle, with mul as large as 32 bits hold. */
static void scale(uint64_t hz, uint32_t *mul, int8_t *shift)
{
	__extension__ typedef unsigned __int128 u128;
	int s = 0;
	u128 m = ((u128)1000000000u << 32) / hz;
	while (m > UINT32_MAX) {
		s++;
		m = ((u128)1000000000u << 32) / ((u128)hz << s);
	}
	while (m <= UINT32_MAX / 2) {
		s--;
		m = ((u128)1000000000u << (32 - s)) / hz;
	}
	*mul = (uint32_t)m;
	*shift = (int8_t)s;
}

static void write_time(struct kvmclock *k, uint64_t address)
{
	struct clock *clock = k->vcpu->clock;
	struct time_page page = {.flags = k->is_stable ? FLAG_TSC_STABLE : 0};
	page.system_time = clock_ns_from_cycles(clock, clock_now(clock));
	page.tsc_timestamp = vcpu_tsc(k->vcpu);
	scale(clock->hz, &page.tsc_to_system_mul, &page.tsc_shift);
	page.version = k->state.version += 2;
	/* An address with no memory behind it is the guest's own loss. */
	memory_write(k->memory, gpa(address), &page, sizeof(page));
}

static void write_wall(struct kvmclock *k, uint64_t address)
{
	struct wall_page page = {
		.version = k->state.wall_version += 2,
		.seconds = (uint32_t)k->vcpu->clock->wall_start_s,
	};
	memory_write(k->memory, gpa(address), &page, sizeof(page));
}

static bool kvmclock_read(void *opaque, uint32_t index, uint64_t *value)
{
	const struct kvmclock *k = opaque;
	switch (index) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW: *value = k->state.wall_clock; return true;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW: *value = k->state.system_time; return true;
	default: return false;
	}
}

static bool kvmclock_write(void *opaque, uint32_t index, uint64_t value)
{
	struct kvmclock *k = opaque;
	switch (index) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		k->state.wall_clock = value;
		write_wall(k, value & ~3ull);
		return true;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		k->state.system_time = value;
		if (value & ENABLE)
			write_time(k, value & ~3ull);
		return true;
	default: return false;
	}
}

static const struct msr_ops msr_ops = {kvmclock_read, kvmclock_write};

static void kvmclock_reset(struct device *d)
{
	memset(d->state, 0, d->state_bytes);
}

static const struct device_ops device_ops = {.version = 1, .reset = kvmclock_reset};

void kvmclock_init(struct kvmclock *k, const char *instance, struct vcpu *v, struct memory *memory,
		   bool is_stable)
{
	memset(k, 0, sizeof(*k));
	k->vcpu = v;
	k->memory = memory;
	k->is_stable = is_stable;
	v->msr_ops = &msr_ops;
	v->msr_opaque = k;
	device_init(&k->device, &device_ops, "kvmclock", instance, &k->state, sizeof(k->state));
}

/*
 * What CPUID says of the machine below us: Intel SDM 2A CPUID, AMD APM 3 appendix E. A hypervisor
 * may have changed any of it; nothing here is taken for more than what was said.
 */
#include <cpuid.h>
#include <string.h>

#include "calibrate/private.h"

static bool cpuid(unsigned leaf, unsigned subleaf, unsigned r[4])
{
	return __get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]) != 0;
}

static void read_identity(struct host *h)
{
	unsigned r[4];

	if (cpuid(0, 0, r)) {
		memcpy(h->vendor, &r[1], 4);
		memcpy(h->vendor + 4, &r[3], 4);
		memcpy(h->vendor + 8, &r[2], 4);
	}
	if (cpuid(1, 0, r)) {
		h->family = (r[0] >> 8) & 15;
		h->model = (r[0] >> 4) & 15;
		h->stepping = r[0] & 15;
		if (h->family == 15 || h->family == 6)
			h->model |= ((r[0] >> 16) & 15) << 4;
		if (h->family == 15)
			h->family += (r[0] >> 20) & 255;
		h->is_virtualized = r[2] >> 31;
		h->has_vmx_or_svm = (r[2] >> 5) & 1;
	}
	if (cpuid(0x80000001, 0, r))
		h->has_vmx_or_svm |= (r[2] >> 2) & 1;
	for (unsigned i = 0; i < 3 && cpuid(0x80000002 + i, 0, r); i++)
		memcpy(h->brand + 16 * i, r, 16);
	if (h->is_virtualized) {
		__cpuid(0x40000000, r[0], r[1], r[2], r[3]);
		memcpy(h->hypervisor, &r[1], 4);
		memcpy(h->hypervisor + 4, &r[2], 4);
		memcpy(h->hypervisor + 8, &r[3], 4);
	}
}

/* Leaf 4 (Intel) and 8000001D (AMD) have the same form: one subleaf a cache. */
static void read_caches(struct host *h)
{
	unsigned r[4], leaf = !strcmp(h->vendor, "GenuineIntel") ? 4 : 0x8000001d;

	for (unsigned i = 0; i < 16 && cpuid(leaf, i, r) && (r[0] & 31); i++) {
		unsigned type = r[0] & 31, level = (r[0] >> 5) & 7;
		unsigned ways = (r[1] >> 22) + 1, partitions = ((r[1] >> 12) & 1023) + 1;
		unsigned line = (r[1] & 4095) + 1;
		uint64_t size = (uint64_t)ways * partitions * line * ((uint64_t)r[2] + 1);

		if (type == 2 || level < 1 || level > 3) /* 2: instructions */
			continue;
		h->cache[level - 1] = (struct host_cache){(unsigned)(size >> 10), ways};
	}
}

/* AMD's four bits of associativity, 80000006. */
static unsigned amd_ways(unsigned code)
{
	static const unsigned char ways[16] = {0,  1, 2,  3,  4,  6,  8,   0,
					       16, 0, 32, 48, 64, 96, 128, 0};

	return ways[code & 15];
}

static void read_amd_tlb(struct host *h)
{
	unsigned r[4];

	if (cpuid(0x80000005, 0, r)) {
		h->tlb1_entries = (r[1] >> 16) & 255;
		h->tlb1_ways = (r[1] >> 24) == 255 ? 0 : r[1] >> 24;
	}
	if (cpuid(0x80000006, 0, r)) {
		h->tlb2_entries = (r[1] >> 16) & 4095;
		h->tlb2_ways = amd_ways(r[1] >> 28);
	}
}

/* Leaf 0x18: one subleaf a structure; of those that hold 4 KB pages of data. */
static void read_intel_tlb(struct host *h)
{
	unsigned r[4], last;

	if (!cpuid(0x18, 0, r))
		return;
	last = r[0] < 32 ? r[0] : 32;
	for (unsigned i = 0; i <= last && cpuid(0x18, i, r); i++) {
		unsigned type = r[3] & 31, level = (r[3] >> 5) & 7, ways = r[1] >> 16;
		unsigned entries = ways * r[2];

		if (!(r[1] & 1) || !entries || type == 0 || type == 2) /* 2: instructions */
			continue;
		if (r[3] & (1u << 8)) /* fully associative */
			ways = 0;
		if (level == 1 && entries > h->tlb1_entries) {
			h->tlb1_entries = entries;
			h->tlb1_ways = ways;
		}
		if (level == 2) { /* two structures of it serve as one */
			h->tlb2_entries += entries;
			h->tlb2_ways = ways;
		}
	}
}

void host_read(struct host *h)
{
	memset(h, 0, sizeof(*h));
	read_identity(h);
	read_caches(h);
	if (!strcmp(h->vendor, "GenuineIntel"))
		read_intel_tlb(h);
	else
		read_amd_tlb(h);
}

static const char *nearest_intel(const struct host *h)
{
	if (h->family != 6)
		return h->model >= 6 ? "tulsa-7130m" : "p4-672";
	if (h->model >= 0x6a)
		return "icelake-sp";
	if (h->model >= 0x3c && h->model != 0x3e)
		return "skylake-sp"; /* Haswell and Broadwell, too */
	if (h->model >= 0x1e || h->model == 0x1a)
		return "nehalem-5570";
	return "harpertown-5472";
}

const char *calibrate_nearest_profile(const struct host *h)
{
	if (!strcmp(h->vendor, "GenuineIntel"))
		return nearest_intel(h);
	if (strcmp(h->vendor, "AuthenticAMD") && strcmp(h->vendor, "HygonGenuine"))
		return "skylake-sp";
	if (h->family >= 0x17)
		return "zen3-milan";
	return h->family >= 0x10 ? "k10-2350" : "k8-8212";
}

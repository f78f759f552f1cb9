/*
 * Address types and the few integer helpers that everything shares.
 *
 * A guest-virtual address (GVA: after segmentation, what the manual calls linear) and a
 * guest-physical address (GPA) are both 64-bit numbers and are never the same thing, so each is a
 * one-member struct that the compiler keeps apart. A host address is a pointer. Arithmetic happens
 * on `.v`, by name, where it can be seen.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
	uint64_t v;
} gva_t;

typedef struct {
	uint64_t v;
} gpa_t;

#define PAGE_SHIFT 12
#define PAGE_SIZE_BYTES 4096ull
#define PAGE_OFFSET_MASK 0xfffull

static inline gva_t gva(uint64_t v)
{
	return (gva_t){v};
}

static inline gpa_t gpa(uint64_t v)
{
	return (gpa_t){v};
}

/* The number of the 4 KiB guest-physical page (guest frame number) that holds `a`. */
static inline uint64_t gpa_gfn(gpa_t a)
{
	return a.v >> PAGE_SHIFT;
}

static inline gpa_t gpa_from_gfn(uint64_t gfn)
{
	return gpa(gfn << PAGE_SHIFT);
}

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

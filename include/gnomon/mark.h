/*
 * Marks that a guest program sets for Gnomon: they cut the region of interest out of a run.
 *
 *	#include <gnomon/mark.h>
 *
 *	set_up();
 *	gnomon_region_begin();
 *	work();
 *	gnomon_region_end();
 *
 * The protocol is one instruction, so it needs no driver, no privilege and no library: CPUID with
 *
 *	EAX = 474E4F4DH ("GNOM")	the leaf, in the range that no processor uses
 *	ECX = the mark			1 begins the region of interest, 2 ends it; other values
 *					are free for the program's own use and only logged
 *
 * Under Gnomon it answers EAX = 1, EBX = ECX = EDX = 0 and is charged to nobody: no CPUID exit is
 * counted. It works in every mode and at every privilege level. A second begin inside a region and
 * an end outside one do nothing; a run may have many regions, and the report covers their sum.
 * Regions are the whole machine's, not the process's: whatever runs between the marks is inside.
 *
 * Anywhere else the leaf does not exist, and CPUID answers with something harmless (zeroes, or what
 * its highest leaf holds), so marked programs need no second build. Elsewhere than on x86 the
 * functions do nothing. The header is C and C++, and stands alone.
 */
#ifndef GNOMON_MARK_H
#define GNOMON_MARK_H

#define GNOMON_MARK_LEAF 0x474e4f4dU
#define GNOMON_MARK_BEGIN 1U
#define GNOMON_MARK_END 2U

#if defined(__x86_64__) || defined(__i386__)

/* Sets a mark; not 0 if Gnomon saw it. No memory access moves across it. */
static __inline__ int gnomon_mark(unsigned mark)
{
	unsigned eax = GNOMON_MARK_LEAF, ebx, ecx = mark, edx;

	__asm__ __volatile__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx) : : "memory");
	return eax == 1 && !ebx && !ecx && !edx;
}

#else

static __inline__ int gnomon_mark(unsigned mark)
{
	(void)mark;
	return 0;
}

#endif

static __inline__ void gnomon_region_begin(void)
{
	(void)gnomon_mark(GNOMON_MARK_BEGIN);
}

static __inline__ void gnomon_region_end(void)
{
	(void)gnomon_mark(GNOMON_MARK_END);
}

#endif

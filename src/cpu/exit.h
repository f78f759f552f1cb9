/* Why an engine returned to the run loop. */
#pragma once

#include "base/types.h"

enum exit_reason {
	EXIT_BUDGET,   /* the cycles it was given are used up */
	EXIT_HALT,     /* HLT with nothing pending: sleep until the next event */
	EXIT_SHUTDOWN, /* triple fault */
	EXIT_STOP,     /* REQUEST_STOP was seen, or a device asked for it */
	EXIT_MARK, /* the guest program's mark: CPUID leaf MARK_LEAF from any ring; the value is in
		      `mark` */
	EXIT_BREAKPOINT, /* a debugger's breakpoint, before the instruction at state.rip */
	EXIT_STEPPED,	 /* a debugger's single step is done */
	EXIT_UNHANDLED,	 /* --unhandled=stop met something; `text` says what */
	EXIT_DIFFERENCE, /* --verify found a difference; `text` has both sides */
	EXIT_INTERNAL,	 /* our own fault; `text` says which */
	EXIT_HOST,	 /* the host cannot go on with this guest; `text` says why */
};

/* CPUID with EAX = 474E4F4DH ("GNOM") and the mark in ECX (include/gnomon/mark.h). */
#define MARK_LEAF 0x474e4f4du

struct vm_exit {
	enum exit_reason reason;
	uint32_t mark;
	const char *text; /* borrowed from the engine; may be NULL */
};

/* A guest that does not listen to its power button, and exits now and then: CPUID. */
#include "bare.inc"
test:
	say ready
1:	xor eax, eax
	cpuid
	jmp 1b
	.section .data
ready:	.asciz "ready\n"

/* EXPECT: 124 --timeout 1 */
/* KVM: protected mode, ports */
/* A loop with interrupts off, ended by the clock on the wall. */
#include "bare.inc"
test:
	cli
	jmp .

/* EXPECT: halted --timeout 5 */
/* KVM: protected mode, ports, HLT */
/* hlt with interrupts off: nothing can ever wake it. */
#include "bare.inc"
test:
	cli
1:	hlt
	jmp 1b

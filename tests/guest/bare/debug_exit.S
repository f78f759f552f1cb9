/* EXPECT: 43 "hello from nowhere" */
/* KVM: protected mode, ports */
/* isa-debug-exit with value 0x15, after a line on the console. */
#include "bare.inc"
test:
	say text
	debug_exit 0x15
text:
	.asciz "hello from nowhere\n"

/* EXPECT: 4 */
/* An exception without an IDT. */
#include "bare.inc"
test:
	lidt [none]
	int3
	debug_exit 1
none:
	.word 0
	.long 0

/* EXPECT: 4 */
/* A jump to where nothing is: all ones are no instruction, and there is no IDT. */
#include "bare.inc"
test:
	lidt [none]
	mov eax, 0xd0000000
	jmp eax
none:
	.word 0
	.long 0

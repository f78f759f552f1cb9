/* EXPECT: any --timeout 5 */
/* Executes device memory: what the registers hold decides; the machine must say how it ended. */
#include "bare.inc"
test:
	lidt [none]
	mov eax, 0xfee00000
	jmp eax
none:
	.word 0
	.long 0

/* EXPECT: 124 --max-instructions 200000 */
/* Resets itself for ever: the kernel must be loaded afresh each time, its data included. */
#include "bare.inc"
test:
	inc dword ptr [count]
	cmp dword ptr [count], 1
	jne 2f
	mov al, 0xfe
	out 0x64, al
1:	hlt
	jmp 1b
2:	debug_exit 9
	.section .data
count:	.long 0

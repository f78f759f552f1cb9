/* Each instruction is written before it runs, once, over 8 MiB, again and again: there is no code that lasts. */
#include "../bare/bare.inc"
	.set FIRST, 0x400000
	.set END, 0xc00000
test:
	say ready
	lea esi, [2f]
1:	mov edi, FIRST
3:	mov byte ptr [edi], 0xb8	/* mov eax, ecx's value */
	mov [edi + 1], ecx
	mov word ptr [edi + 5], 0xe6ff	/* jmp esi */
	jmp edi
2:	cmp eax, ecx
	jne wrong
	inc ecx
	add edi, 61
	cmp edi, END
	jb 3b
	jmp 1b
wrong:
	debug_exit 1
	.section .data
ready:	.asciz "ready\n"

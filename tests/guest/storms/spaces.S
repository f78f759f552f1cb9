/*
 * A thousand address spaces whose tables are each other, themselves, device memory and nothing, at random: a CR3 write and a few
 * accesses, which also write to those tables, for ever. Entry 0 is never written, so the first 4 MiB stay where they are.
 */
#include "../bare/bare.inc"
	.set FIRST, 0x400000
	.set SIZE, 0x400000
	.set DEVICE, 0xfee00001		/* read-only */
	.set NOWHERE, 0xf0000007

/* eax: the next random number */
	.macro random
	imul ebp, ebp, 1664525
	add ebp, 1013904223
	mov eax, ebp
	shr eax, 7
	.endm

/* eax: a random entry; edx is lost */
	.macro random_entry
	random
	xor edx, edx
	mov ecx, SIZE
	div ecx
	lea eax, [edx + FIRST]
	and eax, ~0xf78			/* a page's or a table's frame, P, RW, US and PS as they come */
	test edx, 0x700
	jz 8f
	or eax, 3
8:	mov ecx, edx
	and ecx, 0xf000
	jnz 9f
	mov eax, DEVICE
	test edx, 0x40
	jz 9f
	mov eax, NOWHERE
9:
	.endm

test:
	catch_exceptions
	mov ebp, 12345
	mov edi, FIRST
1:	random_entry
	test edi, 0xfff
	jnz 2f
	mov eax, 0x83
2:	mov [edi], eax
	add edi, 4
	cmp edi, FIRST + SIZE
	jb 1b
	mov eax, cr4
	or eax, 0x10
	mov cr4, eax
	mov eax, FIRST
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80010000
	mov cr0, eax
	say ready
space:
	random
	xor edx, edx
	mov ecx, SIZE
	div ecx
	lea eax, [edx + FIRST]
	and eax, ~0xfff
	mov cr3, eax
	mov esi, 16
access:
	lea esp, [stack_top]
	dec esi
	jz space
	random_entry
	mov ebx, eax
	random
	and eax, ~3
	or eax, 0x400004
	test esi, 1
	jz 3f
	mov [eax], ebx
	jmp access
3:	mov eax, [eax]
	jmp access
on_exception:
	jmp access
	exception_stubs
	.section .data
ready:	.asciz "ready\n"

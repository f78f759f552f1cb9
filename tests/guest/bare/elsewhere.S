/* EXPECT: 129 */
/*
 * The same pages at several addresses, hot at each: data relative to RIP, calls and what they push, faults and where they were, jumps
 * out of the page. Then the code is written through one address and runs at the others.
 */
#include "hostile.inc"

	.set PLACES, 8			/* above the first; each maps the first 2 MiB, a page further on than the one before */
	.set PLACE, 0x8000000000
	.set STEP, 0x401000
	.set TABLES, 0x1c0000		/* a PDPT, a directory, and a page table for each place */

	/* Runs `body` at each place, `rounds` times in a row. rbx is the place's address. */
	.macro everywhere rounds
	xor ebx, ebx
7:	mov ebp, \rounds
	lea r9, [body]
	add r9, rbx
8:	mov [bait], rsp
	sub qword ptr [bait], 8
	call r9
	dec ebp
	jnz 8b
	test rbx, rbx
	jnz 9f
	mov rbx, PLACE - STEP
9:	add rbx, STEP
	mov rax, PLACE + PLACES * STEP
	cmp rbx, rax
	jb 7b
	call show
	.endm

probes:
	lea rsp, [stack_top]
	mov qword ptr [TABLE + 8 * (HOLE >> 12)], PML4 + 7
	invlpg [HOLE]
	mov qword ptr [HOLE + 8], TABLES + 7
	mov qword ptr [TABLE + 8 * (HOLE >> 12)], 0
	lea rdi, [TABLES]
	mov ecx, 512 * (2 + PLACES)
	xor eax, eax
	rep stosq
	mov qword ptr [TABLES], TABLES + 0x1007
	mov eax, TABLES + 0x2007
	xor ecx, ecx
1:	mov ebx, ecx
	shl ebx, 4			/* two entries of the directory further on */
	mov [TABLES + 0x1000 + rbx], rax
	mov ebx, ecx
	imul ebx, ebx, 0x1008		/* a table, and an entry in it */
	lea rdi, [TABLES + 0x2000 + rbx]
	lea rsi, [TABLE]
	mov edx, 512 - PLACES
2:	mov rbx, [rsi]
	mov [rdi], rbx
	add rsi, 8
	add rdi, 8
	dec edx
	jnz 2b
	add eax, 0x1000
	inc ecx
	cmp ecx, PLACES
	jb 1b
	mov rax, cr3
	mov cr3, rax
	everywhere ROUNDS
	/* there and back: what was made for a place has become another's */
	mov r15d, 6
2:	everywhere 2
	dec r15d
	jnz 2b
	/* written as the third place has it; seldom, then so often that the page is compared instead of watched */
	mov r15d, 30
3:	movabs rdi, offset immediate + PLACE + 2 * STEP
	add [rdi], r15d
	everywhere 2
	everywhere 1
	dec r15d
	jnz 3b
	everywhere ROUNDS
	jmp finish

	.balign 4096
body:
	lea rax, [rip + variable]
	note rax
	add qword ptr [rip + variable], 3
	mov rdx, [rip + variable]
	note rdx
	movups xmm0, [rip + variable]
	paddq xmm0, xmm0
	movups [rip + variable + 16], xmm0
	note [rip + variable + 24]
	.byte 0xb8
immediate:
	.long 0x1000			/* mov eax, ... */
	note rax
	call inside
	note rax
	call outside
	note rax
	lea rax, [rip + outside]
	call rax
	note rax
	call [rip + pointer]
	note rax
	mov ecx, 5
1:	dec ecx
	jnz 1b
	test ebp, 1
	jz 2f
	jmp other_page
2:	lea r13, [rip + 3f]
	mov rax, [rip + HOLE]		/* no page */
3:	lea r13, [rip + 4f]
	xor ecx, ecx
	lea rsi, [rip + variable]
	mov rdi, [rsi]
	mov rdx, [rsi + 8]
	div ecx				/* #DE */
4:	lea r13, [rip + 5f]
	call [rip + HOLE]
5:	lea r13, [rip + 6f]
	ud2
6:	ret
inside:	mov rax, [rsp]
	ret

	.balign 4096
	.fill 40, 1, 0x90
outside:
	mov rax, [rsp]
	ret
other_page:
	note [rip + variable]
	jmp 2b

	.section .data
	.align 16
pointer:
	.quad outside
variable:
	.quad 1, 2, 3, 4
	.section .text

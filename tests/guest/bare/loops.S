/* EXPECT: 33 "LOOPS" --clock virtual --timeout 60 */
/*
 * Loops that an engine may run without asking for each access where it leads, and all that can befall them: pages that
 * end in nothing, crossed by single accesses or mapped twice, misaligned vectors, exits in the middle, code that they
 * write over, interrupts. What the registers, RIP and RFLAGS are when it happens goes into a checksum that is printed,
 * and which is the same in all runs. Each loop runs often enough to be warm before its last time.
 */
#include "long.inc"
	.set AREA, 0x400000   /* 16 pages; 8 is nowhere, 9 is page 1 again, 10 is read-only */
	.set PT, PML4 + 0x3000
	.set APIC, 0xfee00000
	.set TIMES, 80

	/* r13 = what has happened so far, with `value` */
	.macro mix value
	xor r13, \value
	imul r13, r13, 0x01000193
	rol r13, 23
	.endm

	/* The instructions up to `again` are run TIMES times, r8 counts down. */
	.macro times
	mov r8d, TIMES
99:
	.endm
	.macro again
	dec r8d
	jnz 99b
	.endm

test:
	make_tables 6
	mov dword ptr [PML4 + 0x2010], PT + 3
	xor ecx, ecx
1:	imul eax, ecx, 5 /* neighbours are none behind their addresses */
	and eax, 15
	shl eax, 12
	add eax, 0x300003
	mov [PT + ecx * 8], eax
	inc ecx
	cmp ecx, 16
	jne 1b
	mov dword ptr [PT + 8 * 8], 0
	mov dword ptr [PT + 9 * 8], 0x305003
	mov dword ptr [PT + 10 * 8], 0x302001
	/* the GiB with the APIC */
	mov dword ptr [PML4 + 0x1018], PML4 + 0x4003
	mov dword ptr [PML4 + 0x4000 + 503 * 8], 0xfee00083
	enter_long_mode cr4_bits=0x620
	gate 13, on_fault
	gate 14, on_fault
	gate 0x40, on_tick
	lidt [idt64_pointer]
	xor r13d, r13d

	/* No two places hold the same. */
	mov edi, 0x300000
1:	mov [rdi], rdi
	add rdi, 8
	cmp rdi, 0x310000
	jne 1b

	/* Stores that run into page 8: the fault, and what is written before it. */
	times
	lea r12, [10f]
	lea rdi, [AREA + 0x7000 - 0x100]
	mov ecx, r8d
1:	mov [rdi], rcx
	add rdi, 8
	inc rcx
	cmp rdi, AREA + 0x9000
	jne 1b
10:	mov rax, [AREA + 0x7ff8]
	mix rax
	again

	/* The same into page 10, which is read-only. */
	times
	lea r12, [10f]
	lea rdi, [AREA + 0xa000 - 0x80]
	mov ecx, r8d
1:	add [rdi], rcx
	lea rdi, [rdi + 4]
	inc rcx
	cmp rdi, AREA + 0xb000
	jne 1b
10:	mov rax, [AREA + 0x9ff8]
	mix rax
	again

	/* Code that the loop writes over, and that runs behind it. */
	mov byte ptr [AREA + 0xc8ff], 0xb8 /* mov eax, ... */
	mov dword ptr [AREA + 0xc900], 1
	mov byte ptr [AREA + 0xc904], 0xc3 /* ret */
	times
	lea rdi, [AREA + 0xb000]
	cmp r8d, 5
	ja 2f
	lea rdi, [AREA + 0xc000]
2:	mov ecx, 60
1:	xor eax, [rdi]
	mov [rdi], r8d
	add rdi, 64
	dec ecx
	jnz 1b
	mov rax, AREA + 0xc8ff
	call rax
	mix rax
	again

	/* Registers that move in the middle of it. */
	times
	lea rsi, [AREA + 0x1008]
	mov ecx, 300
1:	mov rax, [rsi]
	add rsi, 8
	xor rax, [rsi]
	sub rsi, -8
	lea rax, [rax + rcx * 2]
	mov [rsi + 0xff0], rax
	add r9, rax
	rol r9, 3
	dec rcx
	jnz 1b
	mix r9
	again

	/* Accesses that lie in two pages, by an odd step, forwards and backwards. */
	times
	lea rsi, [AREA + 5]
	xor edx, edx
	mov r11d, 400
1:	mov rax, [rsi]
	add rdx, rax
	add [rsi + 16], rdx
	add rsi, 40
	dec r11
	jnz 1b
	mov r14d, 500
2:	xor rdx, [rsi - 3]
	mov [rsi + r14 * 1 - 8], dx
	sub rsi, 24
	lea r14, [r14 - 1]
	test r14, r14
	jnz 2b
	mix rdx
	mix rsi
	again

	/* Pages 1 and 9 are one: what is stored through the one is read through the other. */
	times
	xor ecx, ecx
	lea r15, [AREA + 0x1000]
	mov [r15], r8
1:	mov rax, [r15 + rcx * 8]
	lea rax, [rax + rax * 2 + 1]
	mov [AREA + 0x9008 + rcx * 8], rax
	inc rcx
	cmp rcx, 500
	jb 1b
	mix rax
	again

	/* Left in the middle, with flags, and by a loop that jumps back. */
	times
	lea rsi, [AREA + 0x1000]
	mov r9d, r8d
	imul r9d, r9d, 5
	mov byte ptr [rsi + r9 + 9], 0xee
	xor ecx, ecx
1:	movzx eax, byte ptr [rsi]
	cmp al, 0xee
	je 2f
	add rcx, rax
	inc rsi
	jmp 1b
2:	pushfq
	pop rax
	mix rax
	mix rcx
	mix rsi
	mov byte ptr [rsi], 0x11
	again

	/* The carry of an iteration is the next one's. */
	times
	lea rsi, [AREA + 0x2000]
	mov ecx, 600
	clc
1:	mov rax, [rsi]
	adc rax, [AREA + 0x1040]
	mov [rsi], rax
	lea rsi, [rsi + 8]
	dec rcx
	jnz 1b
	setc al
	mix rax
	mix [rsi - 8]
	again

	/* Vectors that must be aligned, and at last are not. */
	times
	lea r12, [10f]
	lea rsi, [AREA + 0x2000]
	lea rdi, [AREA + 0x5000 - 16]
	cmp r8d, 3
	ja 3f
	inc rsi
3:	mov ecx, 300
1:	movups xmm0, [rdi]
	paddq xmm0, [rsi]
	movaps [rdi + 16], xmm0
	add rsi, 16
	add rdi, 16
	sub rcx, 1
	jne 1b
10:	movq rax, xmm0
	mix rax
	mix rcx
	again

	/* Interrupts anywhere in it. */
	mov al, 0xff
	out 0x21, al
	out 0xa1, al
	mov ebx, APIC
	mov dword ptr [rbx + 0xf0], 0x1ff
	mov dword ptr [rbx + 0x3e0], 0xb
	mov dword ptr [rbx + 0x320], 0x20040
	mov dword ptr [rbx + 0x380], 997
	sti
	times
	lea rsi, [AREA + 0x2000]
	xor eax, eax
	mov ecx, 700
1:	add rax, [rsi]
	rol rax, 7
	add rsi, 8
	dec rcx
	jnz 1b
	again
	cli
	mix rax

	/* Stores over the loop that makes them, of what is there. */
	times
	lea rdi, [written - 0x400]
	and rdi, -8
	lea rsi, [written]
	xor ecx, ecx
1:	mov rax, [rdi]
	mov [rdi], rax
	add rdi, 8
	inc rcx
	cmp rdi, rsi
	jb 1b
written:
	mix rcx
	mix rdi
	again

	/* A constant that the loop itself changes. */
	times
	xor ecx, ecx
	mov r9d, 48
1:	.byte 0x48, 0x83, 0xc1 /* add rcx, ... */
patched:
	.byte 1
	mov al, r9b
	and al, 3
	mov byte ptr [patched], al
	dec r9
	jnz 1b
	mix rcx
	again

	/* The checksum's digits, and the end. */
	mov ecx, 16
1:	rol r13, 4
	mov eax, r13d
	and eax, 15
	add eax, 'a'
	mov dx, COM1
	out dx, al
	dec ecx
	jnz 1b
	lea rsi, [text]
2:	mov al, [rsi]
	test al, al
	jz 3f
	out dx, al
	inc rsi
	jmp 2b
3:	mov al, 0x10
	out DEBUG_EXIT, al
	hlt
text:
	.asciz "LOOPS"

	/* On the stack: error code, RIP, CS, RFLAGS. Goes on at r12. */
on_fault:
	mix [rsp]
	mix [rsp + 8]
	mix [rsp + 24]
	mix rdi
	mix rsi
	mix rcx
	mov rax, cr2
	mix rax
	mov [rsp + 8], r12
	add rsp, 8
	iretq
on_tick:
	mix [rsp]
	mix [rsp + 16]
	mix rax
	mix rcx
	mix rsi
	mov dword ptr [rbx + 0xb0], 0
	iretq

/* EXPECT: 129 */
/* Wild control flow: branches to anywhere, into instructions, off a page's end; code that changes itself; broken returns. */
#include "hostile.inc"

/* rdi is each target in turn, ROUNDS times over. */
	.macro probe code
	mov ebp, ROUNDS
1:	xor ebx, ebx
2:	mov rdi, [targets + rbx * 8]
	mov eax, ebx
	mov [bait], rsp
	lea r13, [3f]
	\code
3:	mov rsp, [bait]
	note rax
	note [SCRATCH]
	inc ebx
	cmp ebx, TARGET_COUNT
	jb 2b
	dec ebp
	jnz 1b
	call show
	.endm

	.set CODE, BUFFER		/* code that is written at run time: the page before the hole */
	.set SCRATCH, 0x1e0000		/* a page without code */

	.section .data
	.align 8
targets:
	.quad HOLE, HOLE + 0xfff, 0x00007fffffffffff, 0x0000800000000000, 0xffff7fffffffffff, 0xffff800000000000
	.quad 0x8000000000000000, 0x8000000000000001, 0x0123456789abcdef, 0x0000555555554000, 0x00007ffff7dd0000, 0x0000010000000000
	.quad 0xffffffffffdffffe, 0x7fff0000, into, into + 1, into + 2, into + 5, into + 9, CODE + 0xffe, CODE + 0xffc, CODE
	.quad twice, back, -4096, -2
	.set TARGET_COUNT, (. - targets) / 8
slot:	.quad 0
	.section .text

/* Several streams in the same bytes; each ends at `back`. */
into:	.byte 0x48, 0xb8		/* mov rax, imm64 from here */
	.byte 0xff, 0xc0		/* +2: inc eax */
	.byte 0xeb, 0x04		/* jmp +4 */
	.byte 0xff, 0xc0, 0xff, 0xc0
	inc rax
back:	jmp r13
twice:	call 1f
1:	pop rax
	jmp r13

/* Copies the bytes between two labels to rdi. */
	.macro copy_code from, to
	lea rsi, [\from]
	mov ecx, offset \to - \from
	rep movsb
	.endm

probes:
	mov byte ptr [CODE], 0x90
	lea rdi, [CODE + 1]
	copy_code back, twice
	mov byte ptr [CODE + 0xffc], 0x90
	mov dword ptr [CODE + 0xffc], 0xc0ffc0ff	/* inc eax twice, and the page ends */
	/* at the end of the address space, and over it */
	mov rdi, -4096
	copy_code back, twice
	mov word ptr [-2], 0xc0ff
	xor edi, edi
	copy_code back, twice
	probe "jmp rdi"
	probe "call rdi"
	probe "push rdi; ret"
	probe "push rdi; ret 0xfff8"
	probe "mov [slot], rdi; jmp [slot]"
	probe "mov [slot], rdi; call [slot]"
	probe "lea rsp, [rsp - 3]; push rdi; ret"
	/* the stack is the read-only page, and the hole */
	probe "lea rsp, [READ_ONLY + 64]; call rdi"
	probe "lea rsp, [HOLE + 8]; call rdi"
	probe "lea rsp, [HOLE + 8]; ret"
	probe "lea rsp, [HOLE + 4]; mov [HOLE - 4], edi; ret"
	/* what a call leaves below its stack: nothing if it goes nowhere */
	probe "lea rsp, [SCRATCH + 8]; mov [SCRATCH], rbx; call rdi"
	probe "lea rsp, [SCRATCH + 8]; mov [SCRATCH], rbx; mov [slot], rdi; call [slot]"

/* An instruction that is cut off by the page's end, with every length of what is there. */
	mov ebp, ROUNDS
1:	mov ebx, 10
2:	lea rdi, [HOLE]
	sub rdi, rbx
	mov r9, rdi
	lea rsi, [whole]
	mov ecx, ebx
	rep movsb
	mov eax, ebx
	mov [bait], rsp
	lea r13, [3f]
	jmp r9
3:	note rax
	dec ebx
	jnz 2b
	dec ebp
	jnz 1b
	call show

/* Code that changes: the immediate, before it runs, a thousand times; then the instruction behind the store; then itself. */
	lea rdi, [CODE + 0x100]
	copy_code patient, patient_end
	mov ebp, 1000
1:	mov [CODE + 0x101], ebp
	mov r9d, CODE + 0x100
	call r9
	note rax
	mov r9d, CODE + 0x100 + (near_store - patient)
	mov edx, ebp
	call r9
	note rax
	xor byte ptr [CODE + 0x100 + (flip - patient) + 1], 0x28	/* add becomes sub and back */
	mov r9d, CODE + 0x100 + (flip - patient)
	mov eax, ebp
	call r9
	note rax
	dec ebp
	jnz 1b
	call show

/* The same page is data and code, both hot; and the two virtual addresses of one page. */
	mov rdi, -4096
	copy_code patient, patient_end
	mov ebp, 1000
1:	mov [-4095], ebp
	mov r9, -4096
	call r9
	note rax
	add qword ptr [-2048], rax
	dec ebp
	jnz 1b
	note [-2048]
	call show

/* Returns that are not where calls came from: deep recursion whose every third return address is changed, and a stack that is
   walked the wrong way. */
	mov ebp, 30
1:	lea rsp, [stack_top]
	mov ecx, 600
	call descend
	note rax
	dec ebp
	jnz 1b
	lea rsp, [stack_top]
	call show
	mov ebp, 500
1:	lea rsp, [stack_top]
	lea rax, [3f]
	push rax
	lea rax, [2f]
	push rax
	call 4f
2:	note 2
	ret
3:	note 3
	jmp 5f
4:	note 4
	test ebp, 1
	jz 6f
	add rsp, 8
6:	ret 
5:	dec ebp
	jnz 1b
	lea rsp, [stack_top]
	jmp finish

descend:
	dec ecx
	jz 1f
	call descend
	inc rax
	test eax, 3
	jnz 2f
	lea rdx, [2f]
	push rdx			/* a return to the next instruction */
	ret
1:	xor eax, eax
2:	ret

whole:	.byte 0x48, 0x81, 0xc0, 0x44, 0x33, 0x22, 0x11, 0x41, 0xff, 0xe5	/* add rax, 0x11223344; jmp r13 */

patient:
	mov eax, 0			/* the immediate is written from outside */
	ret
near_store:
	mov [rip + 1f - 4], edx
	mov eax, 0
1:	ret
flip:	add eax, 0x55
	ret
patient_end:

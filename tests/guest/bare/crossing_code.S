/* EXPECT: 129 */
/* Instructions that lie in two pages, hot: their second page is written, mapped to another, unmapped, and forbidden, and comes back. */
#include "hostile.inc"

	.set FIRST, 0x1e0000
	.set SECOND, 0x1e1000
	.set OTHER, 0x1e3000		/* another page with an end of the same instruction */
	.set LOOP, FIRST + 0xff0	/* where the code lies: the instruction begins 3 bytes before the end */

	.macro map page, entry
	mov eax, \entry
	mov [TABLE + 8 * (\page >> 12)], rax
	invlpg [\page]
	.endm

/* Runs it 100 times, through a call, a fall into it and a jump to it. */
	.macro hot
	mov [bait], rsp
	lea r13, [8f]
	mov ebp, 100
7:	xor eax, eax
	mov ecx, 3
	mov r9d, LOOP
	call r9
	note rax
	dec ebp
	jnz 7b
	jmp 9f
8:	note rax
9:	lea rsp, [stack_top]
	call show
	.endm

probes:
	lea rsp, [stack_top]
	lea rdi, [LOOP]
	lea rsi, [code]
	mov ecx, offset code_end - code
	rep movsb
	lea rdi, [OTHER]
	lea rsi, [crossing + 3]
	mov ecx, offset code_end - crossing - 3
	rep movsb
	mov byte ptr [OTHER], 0x77	/* add rax, 0x11223377 */
	hot
	/* the second page is written, through its own address and as another */
	mov byte ptr [SECOND], 0x45
	hot
	map HOLE, SECOND+7
	mov byte ptr [HOLE + 1], 0x34
	hot
	mov byte ptr [HOLE + 3], 0x12
	hot
	/* other lengths: what comes behind it is written in the second page */
	mov byte ptr [SECOND + 4], 0x90
	hot
	/* another page */
	map SECOND, OTHER+7
	hot
	map SECOND, SECOND+7
	hot
	/* no page, and one that comes back without a word, for what was absent needs no INVLPG */
	map SECOND, 0
	hot
	mov qword ptr [TABLE + 8 * (SECOND >> 12)], OTHER + 7
	hot
	/* another address space; then the same one */
	mov qword ptr [TABLE + 8 * (SECOND >> 12)], SECOND + 7
	mov rax, cr3
	mov cr3, rax
	hot
	/* the first page is another one */
	lea rsi, [FIRST]
	lea rdi, [OTHER - 0x1000]
	mov ecx, 0x1000
	rep movsb
	mov byte ptr [OTHER - 1], 0x99	/* the immediate's lowest byte lies in front */
	map FIRST, OTHER-0x1000+7
	hot
	map FIRST, FIRST+7
	hot
	/* not executable */
	mov ecx, 0xc0000080
	rdmsr
	or eax, 0x800
	wrmsr
	mov eax, SECOND + 7
	bts rax, 63
	mov [TABLE + 8 * (SECOND >> 12)], rax
	invlpg [SECOND]
	hot
	map SECOND, SECOND+7
	hot
	jmp finish

/* rax += 3 times the immediate */
code:
	jmp 1f
2:	dec ecx
	jz 3f
	jmp crossing
1:	nop
	.fill 13 - (. - code), 1, 0x90
crossing:
	.byte 0x48, 0x05, 0x44, 0x33, 0x22, 0x11	/* add rax, 0x11223344; three bytes in each page */
	nop
	jmp 2b
3:	ret
code_end:

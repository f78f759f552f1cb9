/* EXPECT: 129 */
/* Wild operands: holes, missing and read-only pages, the ends of the canonical halves, wrap-around, where hosts keep programs. */
#include "hostile.inc"

/* Executes `code` with rdi = each address and rax, xmm0 = values, ROUNDS times over; notes rax if there was no fault. */
	.macro probe_each count, code
	mov ebp, ROUNDS
1:	xor ebx, ebx
2:	mov rdi, [addresses + rbx * 8]
	movabs rax, 0x1122334455667788
	mov edx, 0x99aabbcc
	mov ecx, 5
	lea rsi, [BUFFER + 64]
	mov [bait], rsp
	lea r13, [3f]
	mov r14, rbp
	cmp ebx, ebp
	\code
	mov rsp, [bait]
	note rax
3:	mov rbp, r14
	cld
	inc ebx
	cmp ebx, \count
	jb 2b
	dec ebp
	jnz 1b
	call show
	.endm
	.macro probe code
	probe_each ADDRESS_COUNT, "\code"
	.endm

	.section .data
	.align 8
addresses:
	/* up to RUN_COUNT: those from which a run of any length stays in holes or within the buffer */
	.quad BUFFER, BUFFER + 64, BUFFER + 3, BUFFER + 0xff9, BUFFER + 0xffc, BUFFER + 0xfff, BUFFER + 0xfe1
	.quad HOLE, HOLE + 0xff0, BUFFER - 1, BUFFER - 4, BUFFER - 31, READ_ONLY + 128
	.quad 0x00007ffffffffff8, 0x00007ffffffffffd, 0x00007fffffffffff, 0x0000800000000000, 0xffff7fffffffffff
	.quad 0xffff7ffffffffff9, 0xffff800000000000, 0x8000000000000000, 0x7fffffffffffffff, 0x0123456789abcdef
	.quad 0x0000555555554000, 0x00007f0000000000, 0x00007ffff7dd0000, 0x00007ffd12345678, 0x0000000100000000
	.quad 0x0000010000000000, 0x000000007fff0000, 0x00000000fee00ffe - 0x10000
	.set RUN_COUNT, (. - addresses) / 8
	.quad 0xfee00020, 0xfee00ffe, 0xfffffffffffffff8, 0xfffffffffffffffd, 0xffffffffffffffff, 0xffffffffffe00000
	.quad 0xffffffffffdfffff, 0xffffffffffdffffc, 0xfffffffffffffff0
	.set ADDRESS_COUNT, (. - addresses) / 8
	.section .text

probes:
	/* reads */
	probe "mov al, [rdi]"
	probe "mov ax, [rdi]"
	probe "mov eax, [rdi]"
	probe "mov rax, [rdi]"
	probe "movzx eax, word ptr [rdi + 1]"
	probe "mov rax, [rdi + rcx * 8 - 40]"
	probe "mov eax, [edi + 2]"
	probe "add rax, [rdi]"
	probe "cmp [rdi], al"
	probe "test [rdi], edx"
	probe "imul rax, [rdi], 3"
	probe "movups xmm0, [rdi]; movq rax, xmm0"
	probe "movaps xmm0, [rdi]; movq rax, xmm0"
	probe "movq xmm0, [rdi]; movq rax, xmm0"
	probe "addsd xmm1, [rdi]; movmskpd eax, xmm1"
	probe "bt [rdi], rdx; setc al"
	probe "fld tbyte ptr [rdi]; fnstsw ax; fninit"
	probe "lea rax, [rdi + 8]"
	/* writes */
	probe "mov [rdi], al"
	probe "mov [rdi], ax"
	probe "mov [rdi], eax"
	probe "mov [rdi], rax"
	probe "mov dword ptr [rdi + 4], 0x12345678"
	probe "mov [rdi - 8], rax"
	probe "movups [rdi], xmm0"
	probe "fnstcw [rdi]"
	probe "setz [rdi]"
	/* both */
	probe "add [rdi], rax"
	probe "adc byte ptr [rdi], 7"
	probe "xchg [rdi], rax"
	probe "lock xadd [rdi], edx"
	probe "lock inc qword ptr [rdi]"
	probe "lock cmpxchg [rdi], rdx"
	probe "not word ptr [rdi]"
	probe "shl dword ptr [rdi], 3"
	probe "bts [rdi], ecx"
	probe "fxsave64 [rdi]"
	/* the stack anywhere */
	probe "mov rsp, rdi; push rax"
	probe "mov rsp, rdi; pop rax"
	probe "mov rsp, rdi; pushfq"
	probe "mov rsp, rdi; push [rsi]"
	probe "mov rsp, rdi; pop [rsi]"
	probe "mov rsp, rdi; call 4f; 4:"
	probe "mov rsp, rdi; enter 16, 0"
	probe "mov rbp, rdi; leave"
	/* through a segment's base */
	probe "mov r8, rcx; mov ecx, 0xc0000101; mov eax, edi; mov rdx, rdi; shr rdx, 32; wrmsr; mov rax, gs:[16]"
	probe "mov ecx, 0xc0000100; mov eax, edi; mov rdx, rdi; shr rdx, 32; wrmsr; mov rdx, -8; add fs:[rdx], ecx"
	/* runs: two elements, and as many as there are */
	probe "mov ecx, 2; rep movsq"
	probe "mov ecx, 3; xchg rdi, rsi; rep movsb; mov eax, [BUFFER + 64]"
	probe "mov ecx, 3; rep lodsd"
	probe_each RUN_COUNT, "mov rcx, -1; rep stosb"
	probe_each RUN_COUNT, "movabs rcx, 0x8000000000000000; rep movsb"
	probe_each RUN_COUNT, "mov rcx, -1; std; rep stosq"
	probe_each RUN_COUNT, "mov rcx, -1; xchg rsi, rdi; rep movsd"
	probe_each RUN_COUNT, "mov rcx, -1; repe cmpsb"
	probe_each RUN_COUNT, "mov rcx, -1; repne scasw"
	/* what is in the buffer now */
	xor ebx, ebx
1:	note [BUFFER + rbx * 8]
	inc ebx
	cmp ebx, 512
	jb 1b
	jmp finish

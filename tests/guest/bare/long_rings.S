/* EXPECT: 33 "SDCPK" */
/*
 * The ways between ring 3 and ring 0, often enough to be translated: system calls with the registers and flags that they
 * leave (S), one whose return sets TF (D), one whose return address is not canonical (C), page faults of ring 3 that map
 * the page, which the next system call takes away again (P), and page faults of ring 0 (K). Not for kvm: AMD's processors
 * notice the address only in ring 3.
 */
#include "long.inc"
	.set ROUNDS, 300
	.set USER_DATA, 0x1b
	.set USER_CODE, 0x23
	.set WINDOW, 0x400000
	.set SYSCALL_MASK, 0x4501 /* NT, DF, TF, CF */
	.macro show letter
	mov al, \letter
	mov dx, COM1
	out dx, al
	.endm
	.macro write_msr index, low, high=0
	mov ecx, \index
	mov eax, \low
	mov edx, \high
	wrmsr
	.endm
	.macro flags register
	pushfq
	pop \register
	.endm
test:
	make_tables
	or dword ptr [PML4], 4
	or dword ptr [PML4 + 0x1000], 4
	or dword ptr [PML4 + 0x2000], 4
	or dword ptr [PML4 + 0x2008], 4
	enter_long_mode efer_bits=0x101
	gate 1, on_debug
	gate 13, on_protection
	gate 14, on_page
	lidt [idt64_pointer]
	lea eax, [tss]
	mov [tss_descriptor + 2], ax
	shr eax, 16
	mov [tss_descriptor + 4], al
	mov [tss_descriptor + 7], ah
	lgdt [rings_gdt_pointer]
	mov eax, 0x28
	ltr ax
	write_msr 0xc0000081, 0, 0x00100008
	write_msr 0xc0000082, "OFFSET on_syscall"
	write_msr 0xc0000084, SYSCALL_MASK
	xor ebx, ebx /* system calls */
	xor r12d, r12d /* page faults of ring 3 */
	xor r13d, r13d /* what went another way */
	/* ring 0's faults, before there is a ring 3 */
1:	lea rbp, [2f]
	mov rsi, rsp
	mov al, [WINDOW + 8]
2:	cmp r14d, ROUNDS
	jb 1b
	push USER_DATA
	push OFFSET user_top
	push 2
	push USER_CODE
	push OFFSET user
	iretq
user:
	lea r15, [user_top]
	cmp rsp, r15
	jne wrong
3:	lea rbp, [5f]
	mov [WINDOW + 16], rbx /* not there */
5:	cmp [WINDOW + 16], rbx
	jne wrong
	lea r8d, [rbx - ROUNDS] /* ZF at the end, CF before it */
	cmp ebx, ROUNDS
	std
	flags r9
	lea r10, [4f]
	syscall
4:	mov r15d, ebx
	flags rdi
	cld
	and rdi, ~0x100
	cmp rdi, r9
	jne wrong
	cmp rcx, r10
	jne wrong
	cmp r15d, ROUNDS
	jbe 3b
	cmp r12d, ROUNDS + 1
	jne wrong
	mov eax, 1
	syscall
	jmp wrong

on_syscall:
	flags rdi
	cmp rcx, r10
	jne wrong_call
	mov rax, r9
	and rax, ~SYSCALL_MASK
	cmp rdi, rax
	jne wrong_call
	cmp r11, r9
	jne wrong_call
	lea rax, [user_top]
	cmp rsp, rax
	jne wrong_call
	mov qword ptr [PML4 + 0x2010], 0
	invlpg [WINDOW]
	inc ebx
	cmp ebx, 100
	je trace_return
	cmp ebx, 200
	je leave_wrongly
	sysretq
trace_return:
	or r11, 0x100
	sysretq
leave_wrongly:
	mov r10, 0x800000000000
	mov rcx, r10
wrong_return:
	sysretq
wrong_call: /* or the last one */
	cmp eax, 1
	jne wrong
	cmp ebx, ROUNDS + 1
	jne wrong
	cmp r13d, 2
	jne wrong
	lea rsp, [stack_top]
	show 'S'
	show 'D'
	show 'C'
	show 'P'
	show 'K'
	mov al, 0x10
	out DEBUG_EXIT, al
wrong:
	mov al, 0x41
	mov dx, DEBUG_EXIT
	out dx, al
	hlt
	jmp wrong

/* The first instruction after the return has run. */
on_debug:
	lea rax, [4b + 3]
	cmp [rsp], rax
	jne wrong
	cmp qword ptr [rsp + 8], USER_CODE
	jne wrong
	test dword ptr [rsp + 16], 0x100
	jz wrong
	and qword ptr [rsp + 16], ~0x100
	inc r13d
	mov rax, dr6
	test eax, 0x4000
	jz wrong
	iretq

/* SYSRET to nowhere is a fault of ring 0, on its stack, which is the user's here; it goes again with the right address. */
on_protection:
	cmp qword ptr [rsp + 16], 8
	jne wrong
	cmp qword ptr [rsp], 0
	jne wrong
	lea rax, [wrong_return]
	cmp [rsp + 8], rax
	jne wrong
	lea r10, [4b]
	mov rcx, r10
	add rsp, 8
	inc r13d
	iretq

on_page:
	cmp qword ptr [rsp + 16], USER_CODE
	jne on_page_of_kernel
	cmp qword ptr [rsp], 6 /* a write of ring 3 */
	jne wrong
	mov rax, cr2
	cmp rax, WINDOW + 16
	jne wrong
	cmp qword ptr [rsp + 32], OFFSET user_top
	jne wrong
	cmp qword ptr [rsp + 40], USER_DATA
	jne wrong
	lea rax, [tss_stack_top - 48]
	cmp rsp, rax
	jne wrong
	mov qword ptr [PML4 + 0x2010], WINDOW + 0x87
	inc r12d
	add rsp, 8
	iretq
on_page_of_kernel:
	cmp qword ptr [rsp], 0
	jne wrong
	cmp [rsp + 32], rsi
	jne wrong
	test rsp, 15
	jnz wrong
	mov [rsp + 8], rbp
	inc r14d
	add rsp, 8
	iretq

	.section .data
	.align 16
rings_gdt:
	.quad 0
	.quad 0x00af9b000000ffff
	.quad 0x00cf93000000ffff
	.quad 0x00cff3000000ffff
	.quad 0x00affb000000ffff
tss_descriptor:
	.quad 0x0000890000000067
	.quad 0
rings_gdt_pointer:
	.word 7 * 8 - 1
	.quad rings_gdt
	.align 16
tss:
	.long 0
	.quad tss_stack_top
	.fill 92, 1, 0
	.section .bss
	.align 16
	.fill 1024, 1, 0
tss_stack_top:
	.fill 1024, 1, 0
user_top:

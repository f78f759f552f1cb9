/* EXPECT: 129 "long" */
/* KVM: protected mode, ports, long mode, page faults */
/* Up to long mode: 4-level tables with 2 MiB pages, 64-bit registers, a page fault with its error code, a non-canonical address. */
#include "long.inc"
test:
	make_tables
	enter_long_mode efer_bits=0x900
	/* gates for #GP (13) and #PF (14) */
	gate 13, on_protection
	gate 14, on_page
	lidt [idt64_pointer]
	mov r15, 0
	/* not mapped: a write, so the error code is 2 */
	movabs rbx, 0x123456789000
	lea rbp, [1f]
	mov [rbx], rax
1:	cmp r15, 2
	jne wrong
	mov rax, cr2
	cmp rax, rbx
	jne wrong
	/* not canonical: #GP(0) */
	movabs rbx, 0x8000000000000000
	lea rbp, [2f]
	mov rax, [rbx]
2:	cmp r15, 0xd0
	jne wrong
	/* mapped late: present bit set, no flush needed */
	mov qword ptr [PML4 + 0x2010], 0x83
	mov rax, [0x400000 + 0x100000]
	lea rsi, [text]
3:	lodsb
	test al, al
	jz 4f
	mov dx, COM1
	out dx, al
	jmp 3b
4:	mov al, 0x40
	out DEBUG_EXIT, al
wrong:
	mov al, 0x41
	out DEBUG_EXIT, al
	hlt
	jmp wrong
on_page:
	pop r15
	mov [rsp], rbp
	iretq
on_protection:
	pop r15
	mov r15, 0xd0
	mov [rsp], rbp
	iretq
text:
	.asciz "long\n"

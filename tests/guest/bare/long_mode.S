/* EXPECT: 129 "long" */
/* KVM: protected mode, ports, long mode, page faults */
/* Up to long mode: 4-level tables with 2 MiB pages, 64-bit registers, a page fault with its error code, a non-canonical address. */
#include "bare.inc"
	.set PML4, 0x200000
test:
	mov edi, PML4
	mov ecx, 3 * 1024
	xor eax, eax
	rep stosd
	mov dword ptr [PML4], PML4 + 0x1003
	mov dword ptr [PML4 + 0x1000], PML4 + 0x2003
	mov dword ptr [PML4 + 0x2000], 0x83
	mov dword ptr [PML4 + 0x2008], 0x200083
	mov eax, cr4
	or eax, 0x20
	mov cr4, eax
	mov eax, PML4
	mov cr3, eax
	mov ecx, 0xc0000080
	rdmsr
	or eax, 0x900
	wrmsr
	mov eax, cr0
	or eax, 0x80010000
	mov cr0, eax
	lgdt [gdt_pointer]
	jmp 8:in_long_mode
	.align 8
gdt:
	.quad 0
	.quad 0x00af9a000000ffff
	.quad 0x00cf92000000ffff
gdt_pointer:
	.word 3 * 8 - 1
	.long gdt
	.code64
in_long_mode:
	mov eax, 0x10
	mov ds, eax
	mov es, eax
	mov ss, eax
	lea rsp, [stack_top]
	/* gates for #GP (13) and #PF (14) */
	lea rdi, [idt64 + 13 * 16]
	lea rax, [on_protection]
	call set_gate
	lea rdi, [idt64 + 14 * 16]
	lea rax, [on_page]
	call set_gate
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
set_gate:
	mov [rdi], ax
	mov word ptr [rdi + 2], 8
	mov word ptr [rdi + 4], 0x8e00
	shr rax, 16
	mov [rdi + 6], ax
	shr rax, 16
	mov [rdi + 8], eax
	mov dword ptr [rdi + 12], 0
	ret
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
	.section .data
	.align 16
idt64_pointer:
	.word 32 * 16 - 1
	.quad idt64
idt64:
	.fill 32 * 16, 1, 0
	.section .text

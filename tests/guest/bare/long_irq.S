/* EXPECT: 33 "TTTUNX" --timeout 60 */
/* KVM: protected mode, ports, long mode, MMIO, HLT, interrupts, MSRs */
/*
 * 64-bit code and what interrupts it: three ticks of the APIC's timer that wake it from HLT (T), #UD (U), an NMI it sends
 * itself (N), an interrupt through the x2APIC's registers (X).
 */
#include "bare.inc"
	.set PML4, 0x200000
	.set APIC, 0xfee00000
test:
	mov edi, PML4
	mov ecx, 6 * 1024
	xor eax, eax
	rep stosd
	mov dword ptr [PML4], PML4 + 0x1003
	/* the first GiB, and the one with the APIC */
	mov dword ptr [PML4 + 0x1000], PML4 + 0x2003
	mov dword ptr [PML4 + 0x1018], PML4 + 0x3003
	mov dword ptr [PML4 + 0x2000], 0x83
	mov dword ptr [PML4 + 0x2008], 0x200083
	mov dword ptr [PML4 + 0x3000 + 503 * 8], 0xfee00083
	mov eax, cr4
	or eax, 0x620
	mov cr4, eax
	mov eax, PML4
	mov cr3, eax
	mov ecx, 0xc0000080
	rdmsr
	or eax, 0x100
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
	.macro gate vector, label
	lea rdi, [idt64 + \vector * 16]
	lea rax, [\label]
	call set_gate
	.endm
	.macro print_al
	mov dx, COM1
	out dx, al
	.endm
in_long_mode:
	mov eax, 0x10
	mov ds, eax
	mov es, eax
	mov ss, eax
	lea rsp, [stack_top]
	gate 2, on_nmi
	gate 6, on_undefined
	gate 0x40, on_tick
	gate 0x41, on_x2apic
	lidt [idt64_pointer]
	/* PICs silent; the APIC on, its timer once, divided by 1 */
	mov al, 0xff
	out 0x21, al
	out 0xa1, al
	mov ebx, APIC
	mov dword ptr [rbx + 0xf0], 0x1ff
	mov dword ptr [rbx + 0x3e0], 0xb
	mov dword ptr [rbx + 0x320], 0x40
	xor r15d, r15d
1:	mov dword ptr [rbx + 0x380], 20000
2:	sti
	hlt
	cli
	inc r14d
	cmp r15d, r14d
	jb 2b
	mov al, 'T'
	print_al
	mov r14d, r15d
	cmp r15d, 3
	jb 1b
	ud2
	mov al, 'U'
	print_al
	mov dword ptr [rbx + 0x310], 0
	mov dword ptr [rbx + 0x300], 0x44400 /* NMI, to itself */
3:	cmp r13d, 1
	jne 3b
	mov al, 'N'
	print_al
	/* x2APIC mode, and SELF IPI */
	mov ecx, 0x1b
	rdmsr
	or eax, 0xc00
	wrmsr
	mov ecx, 0x83f
	mov eax, 0x41
	xor edx, edx
	wrmsr
	sti
	nop
4:	cmp r12d, 1
	jne 4b
	cli
	mov al, 'X'
	print_al
	mov al, 0x10
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
on_tick:
	inc r15d
	mov dword ptr [rbx + 0xb0], 0
	iretq
on_undefined:
	add qword ptr [rsp], 2
	iretq
on_nmi:
	inc r13d
	iretq
on_x2apic:
	inc r12d
	mov ecx, 0x80b
	xor eax, eax
	xor edx, edx
	wrmsr
	iretq
	.section .data
	.align 16
idt64_pointer:
	.word 0x42 * 16 - 1
	.quad idt64
idt64:
	.fill 0x42 * 16, 1, 0
	.section .text

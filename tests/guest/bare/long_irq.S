/* EXPECT: 33 "TTTUNX" --timeout 60 */
/* KVM: protected mode, ports, long mode, MMIO, HLT, interrupts, MSRs */
/*
 * 64-bit code and what interrupts it: three ticks of the APIC's timer that wake it from HLT (T), #UD (U), an NMI it sends
 * itself (N), an interrupt through the x2APIC's registers (X).
 */
#include "long.inc"
	.set APIC, 0xfee00000
	.macro print_al
	mov dx, COM1
	out dx, al
	.endm
test:
	make_tables 6
	/* the GiB with the APIC */
	mov dword ptr [PML4 + 0x1018], PML4 + 0x3003
	mov dword ptr [PML4 + 0x3000 + 503 * 8], 0xfee00083
	enter_long_mode cr4_bits=0x620
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

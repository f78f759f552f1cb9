/* EXPECT: 33 "AB" --timeout 60 */
/* KVM: protected mode, long mode, ports */
/* 64-bit code that waits for a second of the PM timer and then has its registers and an MSR as before: to be saved meanwhile. */
#include "../bare.inc"
	.set PML4, 0x200000
	.set PM_TIMER, 0x608
	.set PM_HZ, 3579545
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
in_long_mode:
	mov eax, 0x10
	mov ds, eax
	mov ss, eax
	lea rsp, [stack_top]
	mov al, 'A'
	mov dx, COM1
	out dx, al
	movabs r15, 0x1122334455667788
	mov ecx, 0xc0000102
	mov eax, 0x1000
	mov edx, 0x2000
	wrmsr
	mov dx, PM_TIMER
	in eax, dx
	mov ebx, eax
1:	in eax, dx
	sub eax, ebx
	and eax, 0xffffff
	inc qword ptr [0x300000]
	cmp eax, PM_HZ
	jb 1b
	movabs rax, 0x1122334455667788
	cmp rax, r15
	jne 2f
	mov ecx, 0xc0000102
	rdmsr
	cmp eax, 0x1000
	jne 2f
	cmp edx, 0x2000
	jne 2f
	mov al, 'B'
	mov dx, COM1
	out dx, al
	mov al, 0x10
	out DEBUG_EXIT, al
2:	mov al, 0x11
	out DEBUG_EXIT, al

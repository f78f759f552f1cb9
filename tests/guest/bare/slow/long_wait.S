/* EXPECT: 33 "AB" --timeout 60 */
/* KVM: protected mode, long mode, ports */
/* 64-bit code that waits for a second of the PM timer and then has its registers and an MSR as before: to be saved meanwhile. */
#include "../long.inc"
	.set PM_TIMER, 0x608
	.set PM_HZ, 3579545
test:
	make_tables
	enter_long_mode
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

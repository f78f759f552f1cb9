/* EXPECT: 33 "second" --cpus 2 --timeout 60 */
/* KVM: real mode, protected mode, ports, MMIO, HLT */
/* INIT and a start-up IPI: the second processor begins in real mode, says so through memory, and halts. */
#include "bare.inc"
	.set APIC, 0xfee00000
	.set AP_CODE, 0x8000
test:
	lea esi, [ap_start]
	mov edi, AP_CODE
	mov ecx, ap_end - ap_start
	rep movsb
	mov dword ptr [AP_CODE + 0x100], 0
	mov ebx, APIC
	mov dword ptr [ebx + 0xf0], 0x1ff
	mov dword ptr [ebx + 0x310], 1 << 24
	mov dword ptr [ebx + 0x300], 0x4500 /* INIT */
	mov dword ptr [ebx + 0x310], 1 << 24
	mov dword ptr [ebx + 0x300], 0x4600 | AP_CODE >> 12
1:	pause
	cmp dword ptr [AP_CODE + 0x100], 0x4150
	jne 1b
	say text
	debug_exit 0x10
text:
	.asciz "second\n"
	.code16
ap_start:
	mov ax, cs
	mov ds, ax
	mov dword ptr ds:[0x100], 0x4150
2:	hlt
	jmp 2b
ap_end:
	.code32

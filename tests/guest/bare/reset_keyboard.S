/* EXPECT: 5 --no-reboot */
/* KVM: protected mode, ports */
/* Reset through the keyboard controller. */
#include "bare.inc"
test:
	mov al, 0xfe
	out 0x64, al
1:	hlt
	jmp 1b

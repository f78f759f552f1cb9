/* EXPECT: 5 --no-reboot */
/* KVM: protected mode, ports */
/* Reset through the chipset's reset register. */
#include "bare.inc"
test:
	mov dx, 0xcf9
	mov al, 2
	out dx, al
	mov al, 6
	out dx, al
1:	hlt
	jmp 1b

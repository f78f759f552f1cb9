/* EXPECT: 0 */
/* KVM: protected mode, ports */
/* ACPI power-off through PM1a_CNT. */
#include "bare.inc"
test:
	mov dx, 0x604
	mov ax, (5 << 10) | (1 << 13)
	out dx, ax
1:	hlt
	jmp 1b

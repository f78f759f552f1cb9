/* A guest that listens to its power button: enables the fixed event, waits for its status bit and powers off. */
#include "bare.inc"
test:
	say ready
	mov dx, 0x602		/* PM1a_EN: PWRBTN_EN */
	mov ax, 0x100
	out dx, ax
1:	mov dx, 0x600		/* PM1a_STS */
	in ax, dx
	test ax, 0x100
	jz 1b
	say pressed
	mov dx, 0x604
	mov ax, (5 << 10) | (1 << 13)
	out dx, ax
	hlt
	.section .data
ready:	.asciz "ready\n"
pressed: .asciz "pressed\n"

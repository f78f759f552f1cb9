/* EXPECT: any --timeout 20 --no-reboot */
/* Random values into random ports, those that end the machine included. */
#include "bare.inc"
test:
	mov ebp, 99
	mov ecx, 2000000
1:	imul ebp, ebp, 1103515245
	add ebp, 12345
	mov edx, ebp
	shr edx, 16
	test ebp, 0x100
	jz 2f
	and edx, 0xfff
2:	mov eax, ebp
	shr eax, 2
	out dx, al
	in eax, dx
	loop 1b
	debug_exit 0x10

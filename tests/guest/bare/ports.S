/* EXPECT: 33 "all ports" --timeout 60 */
/* Random values into every port at every width, three times over, but for those that end the machine. */
#include "bare.inc"
test:
	mov ebp, 12345
	mov edi, 3
round:
	xor ecx, ecx
port:
	cmp ecx, 0x61
	jb 1f
	cmp ecx, 0x64
	jbe skip
1:	cmp ecx, 0x8f
	jb 2f
	cmp ecx, 0x92
	jbe skip
2:	cmp ecx, 0xf1
	jb 3f
	cmp ecx, 0xf7
	jbe skip
3:	cmp ecx, 0x600
	jb 4f
	cmp ecx, 0x610
	jb skip
4:	cmp ecx, 0xcf6
	jb 5f
	cmp ecx, 0xcf9
	jbe skip
5:	imul ebp, ebp, 1103515245
	add ebp, 12345
	mov edx, ecx
	mov eax, ebp
	shr eax, 3
	out dx, al
	in al, dx
	in ax, dx
	mov eax, ebp
	shr eax, 5
	out dx, ax
	mov eax, ebp
	out dx, eax
	in eax, dx
skip:
	inc ecx
	cmp ecx, 0x10000
	jb port
	dec edi
	jnz round
	/* A sane serial port again. */
	mov dx, COM1 + 3
	mov al, 3
	out dx, al
	mov dx, COM1 + 4
	xor al, al
	out dx, al
	say text
	debug_exit 0x10
text:
	.asciz "all ports\n"

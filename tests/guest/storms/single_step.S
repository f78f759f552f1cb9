/* #DB behind every instruction, for ever. */
#include "../bare/bare.inc"
test:
	catch_exceptions
	say ready
	pushfd
	or dword ptr [esp], 0x100
	popfd
1:	inc eax
	lea ebx, [eax + ecx]
	jmp 1b
on_exception:
	add esp, 8
	iretd
	exception_stubs
	.section .data
ready:	.asciz "ready\n"

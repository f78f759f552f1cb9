/* Says something for ever. */
#include "../bare/bare.inc"
test:
	say ready
1:	say text
	jmp 1b
	.section .data
ready:	.asciz "ready\n"
text:	.asciz "All work and no play makes Jack a dull boy, and nobody has to read it.\n"

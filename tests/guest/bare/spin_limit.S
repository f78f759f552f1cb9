/* EXPECT: 124 --max-instructions 3000000 */
/* The same, ended by the limit on instructions. */
#include "bare.inc"
test:
	cli
	jmp .

/* Two processes send one byte to and fro through pipes: two context switches a round. */
#include "suite.h"

#include <sys/wait.h>
#include <unistd.h>

static void echo_bytes(int in, int out)
{
	unsigned char byte;

	while (read(in, &byte, 1) == 1) {
		byte = (unsigned char)(byte * 5 + 1);
		if (write(out, &byte, 1) != 1)
			break;
	}
	_exit(0);
}

uint64_t ctxsw(unsigned scale)
{
	int to[2], from[2];
	unsigned char byte = 1;
	uint64_t sum = 0;
	pid_t child;

	if (pipe(to) || pipe(from))
		give_up("pipe");
	child = fork();
	if (child < 0)
		give_up("fork");
	if (!child) {
		close(to[1]);
		close(from[0]);
		echo_bytes(to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	measure_begin();
	for (size_t i = 0; i < 1000ul * scale; i++) {
		if (write(to[1], &byte, 1) != 1 || read(from[0], &byte, 1) != 1)
			give_up("pipe");
		sum = fold(sum, byte);
	}
	measure_end();
	close(to[1]);
	close(from[0]);
	waitpid(child, NULL, 0);
	return sum;
}

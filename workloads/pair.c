#include "pair.h"
#include "suite.h"

#include <sys/wait.h>
#include <unistd.h>

static void serve_turns(int in, int out, pair_turn_fn prepare, pair_turn_fn turn, void *opaque)
{
	unsigned char byte = 0;

	if (prepare)
		prepare(opaque);
	if (write(out, &byte, 1) != 1)
		_exit(1);
	while (read(in, &byte, 1) == 1) {
		turn(opaque);
		if (write(out, &byte, 1) != 1)
			break;
	}
	_exit(0);
}

void pair_start(struct pair *pair, pair_turn_fn prepare, pair_turn_fn turn, void *opaque)
{
	int to[2], from[2];
	unsigned char byte;

	if (pipe(to) || pipe(from))
		give_up("pipe");
	pair->child = fork();
	if (pair->child < 0)
		give_up("fork");
	if (!pair->child) {
		close(to[1]);
		close(from[0]);
		serve_turns(to[0], from[1], prepare, turn, opaque);
	}
	close(to[0]);
	close(from[1]);
	pair->to = to[1];
	pair->from = from[0];
	if (read(pair->from, &byte, 1) != 1)
		give_up("the second process");
}

void pair_turn(struct pair *pair)
{
	unsigned char byte = 0;

	if (write(pair->to, &byte, 1) != 1 || read(pair->from, &byte, 1) != 1)
		give_up("the second process");
}

void pair_end(struct pair *pair)
{
	int status;

	close(pair->to);
	close(pair->from);
	if (waitpid(pair->child, &status, 0) != pair->child || status)
		give_up("the second process");
}

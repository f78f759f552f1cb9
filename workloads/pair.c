#include "pair.h"
#include "suite.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define YIELDS_BETWEEN_LOOKS 4096u

enum { FIRST, SECOND, OVER };

struct pair_turns {
	uint32_t whose;
};

static void set_turn(struct pair_turns *turns, uint32_t whose)
{
	__atomic_store_n(&turns->whose, whose, __ATOMIC_RELEASE);
}

static uint32_t see_turn(const struct pair_turns *turns)
{
	return __atomic_load_n(&turns->whose, __ATOMIC_ACQUIRE);
}

/* The second process ends with its parent, even if that was killed. */
static void serve_turns(struct pair_turns *turns, pid_t parent, pair_turn_fn turn, void *opaque)
{
	for (uint32_t yields = 1;; yields++) {
		uint32_t whose = see_turn(turns);

		if (whose == OVER || (!(yields % YIELDS_BETWEEN_LOOKS) && getppid() != parent))
			_exit(0);
		if (whose == SECOND) {
			turn(opaque);
			set_turn(turns, FIRST);
		}
		sched_yield();
	}
}

static void await_turn(struct pair *pair)
{
	for (uint32_t yields = 1; see_turn(pair->turns) != FIRST; yields++) {
		sched_yield();
		if (!(yields % YIELDS_BETWEEN_LOOKS) && waitpid(pair->child, NULL, WNOHANG)) {
			errno = 0;
			give_up("the second process is gone");
		}
	}
}

void pair_start(struct pair *pair, pair_turn_fn prepare, pair_turn_fn turn, void *opaque)
{
	pid_t parent = getpid();

	pair->turns = shared_pages(sizeof(*pair->turns));
	set_turn(pair->turns, SECOND);
	pair->child = fork();
	if (pair->child < 0)
		give_up("fork");
	if (!pair->child) {
		if (prepare)
			prepare(opaque);
		set_turn(pair->turns, FIRST);
		serve_turns(pair->turns, parent, turn, opaque);
	}
	await_turn(pair);
}

void pair_turn(struct pair *pair)
{
	set_turn(pair->turns, SECOND);
	sched_yield();
	await_turn(pair);
}

void pair_end(struct pair *pair)
{
	int status;

	set_turn(pair->turns, OVER);
	if (waitpid(pair->child, &status, 0) != pair->child || status)
		give_up("the second process");
	munmap(pair->turns, sizeof(*pair->turns));
}

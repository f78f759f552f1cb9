/* What the processor and its kernel take for single events: locked instructions, CPUID, system
 * calls, faults, signals, switches. */
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calibrate/private.h"

static double lock_once(void *opaque)
{
	enum { count = 20000 };
	uint64_t word = 0, one = 1;
	double start = now_seconds();

	for (unsigned i = 0; i < count; i++)
		__asm__ volatile("lock xadd %0, %1" : "+r"(one), "+m"(word)::"cc");
	return (now_seconds() - start) / count;
}

static double cpuid_once(void *opaque)
{
	enum { count = 200 };
	unsigned a, b, c, d;
	double start = now_seconds();

	for (unsigned i = 0; i < count; i++)
		__cpuid(0, a, b, c, d);
	return (now_seconds() - start) / count;
}

static double syscall_once(void *opaque)
{
	enum { count = 2000 };
	double start = now_seconds();

	for (unsigned i = 0; i < count; i++)
		syscall(SYS_getppid);
	return (now_seconds() - start) / count;
}

static double fault_once(void *opaque)
{
	enum { count = 512 };
	size_t page = 4096;
	char *p = mmap(NULL, count * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	if (p == MAP_FAILED)
		return -1;
	madvise(p, count * page, MADV_NOHUGEPAGE);

	double start = now_seconds();
	for (unsigned i = 0; i < count; i++)
		((volatile char *)p)[i * page] = 1;
	double took = (now_seconds() - start) / count;

	munmap(p, count * page);
	return took;
}

static void ignore_signal(int number)
{
}

static double signal_once(void *opaque)
{
	enum { count = 500 };
	double start = now_seconds();

	for (unsigned i = 0; i < count; i++)
		raise(SIGURG);
	return (now_seconds() - start) / count;
}

/* Two pipes and a child that sends back whatever comes. */
struct echo {
	int to[2], from[2];
	pid_t child;
};

static double switch_once(void *opaque)
{
	enum { count = 300 };
	struct echo *c = opaque;
	char byte = 0;
	double start = now_seconds();

	for (unsigned i = 0; i < count; i++)
		if (write(c->to[1], &byte, 1) != 1 || read(c->from[0], &byte, 1) != 1)
			return -1;
	return (now_seconds() - start) / (2 * count);
}

static void echo_child(struct echo *c)
{
	char byte;

	close(c->to[1]);
	close(c->from[0]);
	while (read(c->to[0], &byte, 1) == 1 && write(c->from[1], &byte, 1) == 1)
		;
	_exit(0);
}

static void echo_stop(struct echo *c)
{
	close(c->to[1]);
	close(c->from[0]);
	if (c->child > 0)
		waitpid(c->child, NULL, 0);
}

static int echo_start(struct echo *c)
{
	int rc = 0;

	if (pipe(c->to))
		return -errno;
	if (pipe(c->from)) {
		rc = -errno;
		close(c->to[0]);
		close(c->to[1]);
		return rc;
	}
	c->child = fork();
	if (c->child < 0)
		rc = -errno;
	if (!c->child)
		echo_child(c);
	close(c->to[0]);
	close(c->from[1]);
	if (rc)
		echo_stop(c);
	return rc;
}

static void measure_switch(struct run *r)
{
	struct measure *m = &r->out->measure[MEASURE_SWITCH];
	struct echo c;
	int rc;

	run_next(r, MEASURE_SWITCH);
	rc = echo_start(&c);
	if (rc) {
		measure_refuse(m, "no second process: %s", strerror(-rc));
		return;
	}
	if (!sample(&(struct sampler){switch_once, &c, run_samples(r), 3}, m))
		measure_refuse(m, "the pipe to the second process broke");
	echo_stop(&c);
}

void measure_costs(struct run *r)
{
	static const struct {
		enum measure_id id;
		double (*once)(void *opaque);
	} list[] = {{MEASURE_LOCK, lock_once},
		    {MEASURE_CPUID, cpuid_once},
		    {MEASURE_SYSCALL, syscall_once},
		    {MEASURE_FAULT, fault_once},
		    {MEASURE_SIGNAL, signal_once}};
	struct sigaction act = {.sa_handler = ignore_signal}, before;

	sigaction(SIGURG, &act, &before);
	for (size_t i = 0; i < ARRAY_COUNT(list); i++) {
		struct measure *m = &r->out->measure[list[i].id];

		run_next(r, list[i].id);
		if (!sample(&(struct sampler){list[i].once, NULL, run_samples(r), 3}, m))
			measure_refuse(m, "%s", strerror(errno));
	}
	sigaction(SIGURG, &before, NULL);
	if (r->out->host.is_virtualized)
		snprintf(r->out->measure[MEASURE_CPUID].note,
			 sizeof(r->out->measure[MEASURE_CPUID].note),
			 "an exit to this machine's own hypervisor (%s)", r->out->host.hypervisor);
	measure_switch(r);
}

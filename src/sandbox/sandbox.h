/*
 * A process of ours that reads hostile bytes gives up what it does not need: the user's identity
 * if that is root, core files, new privileges, and every system call that is not on its list. What
 * is not allowed ends the process at once: whoever waits for it sees that it died.
 *
 * One call, when all is open and nothing hostile was read. All threads are bound by it.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

/* What a list may say beside single system calls. */
enum sandbox_grant {
	SANDBOX_OPEN_TO_READ = 1 << 0, /* openat() of what exists, to read it */
	SANDBOX_INTERNET = 1 << 1,     /* new sockets, of IPv4 and IPv6 only */
	SANDBOX_OPEN = 1 << 2,	       /* openat() of anything: landlock.h says of what */
	SANDBOX_THREADS = 1 << 3,      /* new threads, no new processes */
	/* ioctl() of /dev/kvm's files, terminals and block devices, but none that types for the
	 * person at the terminal. */
	SANDBOX_DEVICES = 1 << 4,
	SANDBOX_UNIX = 1 << 5, /* new unix sockets that connect */
};

/* What happens at a forbidden system call. */
enum sandbox_mode {
	SANDBOX_KILLS,
	SANDBOX_TELLS, /* SIGSYS; who handles it can say which call it was */
	SANDBOX_LOGS,  /* it is carried out, and the kernel's audit log has it */
};

struct sandbox {
	const char *name; /* for messages */
	/* System calls by name, NULL after the last, beside those that the C library cannot do
	 * without (memory that is not executable, time, locks, descriptors that are open). */
	const char *const *calls;
	unsigned grants;     /* enum sandbox_grant */
	bool keeps_identity; /* of root, if it is root: for a server of root's files */
	bool keeps_dumps;    /* core files and debuggers are as before */
	enum sandbox_mode mode;
};

/* 0, or -errno with the message: then nothing hostile may be read. */
int sandbox_enter(const struct sandbox *s, struct error *e);

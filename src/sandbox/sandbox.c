#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#define NOBODY 65534

/* What every program does sooner or later, and what harms nobody but itself. */
static const char *const common[] = {
	"read",
	"write",
	"readv",
	"writev",
	"pread64",
	"lseek",
	"close",
	"fstat",
	"poll",
	"ppoll",
	"brk",
	"munmap",
	"mremap",
	"madvise",
	"futex",
	"getrandom",
	"clock_gettime",
	"clock_nanosleep",
	"nanosleep",
	"gettimeofday",
	"time",
	"getpid",
	"gettid",
	"tgkill",
	"rt_sigreturn",
	"rt_sigprocmask",
	"rt_sigaction",
	"sigaltstack",
	"restart_syscall",
	"exit",
	"exit_group",
	"recvfrom",
	"sendto",
	"recvmsg",
	"sendmsg",
	"rseq",
	"sysinfo",
};

static int allow(scmp_filter_ctx f, const char *name)
{
	int call = seccomp_syscall_resolve_name(name);
	return call == __NR_SCMP_ERROR ? -EINVAL : seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 0);
}

static int allow_memory(scmp_filter_ctx f)
{
	const struct scmp_arg_cmp no_code = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
	int r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, no_code);
	return r ? r : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, no_code);
}

/* What clone3() is asked for lies in memory, where no filter looks: told that there is none, the C
 * library takes clone(). */
static int allow_threads(scmp_filter_ctx f)
{
	int r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				 SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	if (!r)
		r = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	return r;
}

/* The kernel looks at the low 32 bits of a request. */
static int allow_devices(scmp_filter_ctx f)
{
	static const unsigned requests[] = {TCGETS,   TCSETS,	TCSETSW,    TCSETSF,   TIOCGWINSZ,
					    TIOCGPTN, FIONREAD, BLKDISCARD, BLKZEROOUT};
	int r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				 SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, KVMIO << 8));
	for (size_t i = 0; !r && i < ARRAY_COUNT(requests); i++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				     SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, requests[i]));
	return r;
}

static int allow_grants(scmp_filter_ctx f, unsigned grants)
{
	static const int families[] = {AF_INET, AF_INET6};
	int r = 0;
	if (grants & SANDBOX_OPEN)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 0);
	if (!r && grants & SANDBOX_THREADS)
		r = allow_threads(f);
	if (!r && grants & SANDBOX_DEVICES)
		r = allow_devices(f);
	if (!r && grants & SANDBOX_OPEN_TO_READ)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ,
					     O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE, O_RDONLY));
	for (size_t i = 0; !r && grants & SANDBOX_INTERNET && i < ARRAY_COUNT(families); i++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i]));
	if (!r && grants & SANDBOX_UNIX)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				     SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	if (!r && grants & SANDBOX_UNIX)
		r = allow(f, "connect");
	return r;
}

static int filter(const struct sandbox *s)
{
	static const uint32_t actions[] = {
		[SANDBOX_KILLS] = SCMP_ACT_KILL_PROCESS,
		[SANDBOX_TELLS] = SCMP_ACT_TRAP,
		[SANDBOX_LOGS] = SCMP_ACT_LOG,
	};
	scmp_filter_ctx f = seccomp_init(actions[s->mode]);
	if (!f)
		return -ENOMEM;
	int r = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	for (size_t i = 0; !r && i < ARRAY_COUNT(common); i++)
		r = allow(f, common[i]);
	for (const char *const *call = s->calls; !r && *call; call++)
		r = allow(f, *call);
	if (!r)
		r = allow_memory(f);
	if (!r)
		r = allow_grants(f, s->grants);
	if (!r)
		r = seccomp_load(f);
	seccomp_release(f);
	return r;
}

/* With another identity the kernel forgets that the process is to die with its parent. */
static int drop_root(void)
{
	int with_parent = 0;
	if (geteuid() != 0)
		return 0;
	if (prctl(PR_GET_PDEATHSIG, &with_parent, 0, 0, 0) || setgroups(0, NULL) ||
	    setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY) ||
	    prctl(PR_SET_PDEATHSIG, with_parent, 0, 0, 0))
		return -errno;
	return 0;
}

int sandbox_enter(const struct sandbox *s, struct error *e)
{
	const struct rlimit none = {0, 0};
	int r = 0;
	if (!s->keeps_dumps &&
	    (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)))
		r = -errno;
	if (!r && !s->keeps_identity)
		r = drop_root();
	if (!r && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		r = -errno;
	/* Another identity makes it dumpable or not as the kernel sees fit. */
	if (!r && !s->keeps_dumps && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		r = -errno;
	if (!r)
		r = filter(s);
	return r ? error_set(e, r, "%s: cannot give up its privileges: %s", s->name, strerror(-r))
		 : 0;
}

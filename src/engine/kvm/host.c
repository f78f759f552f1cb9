#include "engine/kvm/host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One that nobody else here uses: the deadline is a thread's, and its signal never reaches a
 * handler. */
#define DEADLINE_SIGNAL (SIGRTMIN + 4)
#define CPUID_ENTRIES_MAX 256

static const struct {
	int number;
	const char *name;
} needed[] = {
	{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
	{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
	{KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
	{KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
	{KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
	{KVM_CAP_XCRS, "KVM_CAP_XCRS"},
	{KVM_CAP_SREGS2, "KVM_CAP_SREGS2"},
	{KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"},
	{KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
	{KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ"},
};

static int check_capabilities(int kvm, struct error *e)
{
	int version = ioctl(kvm, KVM_GET_API_VERSION, 0);

	if (version != KVM_API_VERSION)
		return error_set(e, -ENOSYS, "/dev/kvm speaks version %d, not %d", version,
				 KVM_API_VERSION);
	for (size_t i = 0; i < ARRAY_COUNT(needed); i++)
		if (ioctl(kvm, KVM_CHECK_EXTENSION, needed[i].number) <= 0)
			return error_set(e, -ENOSYS,
					 "/dev/kvm lacks %s; Linux 5.14 and later have it",
					 needed[i].name);
	return 0;
}

int kvm_host_open(int *fd, struct error *e)
{
	*fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (*fd < 0)
		return error_set(e, -errno, "cannot open /dev/kvm: %s", strerror(errno));
	int r = check_capabilities(*fd, e);
	if (r) {
		close(*fd);
		*fd = -1;
	}
	return r;
}

int kvm_host_create_vm(int kvm, int *fd, struct error *e)
{
	*fd = ioctl(kvm, KVM_CREATE_VM, 0);
	if (*fd < 0)
		return error_set(e, -errno, "KVM makes no machine: %s", strerror(errno));
	/* Intel's first VT-x keeps real mode's task segment there; others do not look. */
	ioctl(*fd, KVM_SET_TSS_ADDR, 0xfffbd000ul);
	return 0;
}

int kvm_cpu_open(struct kvm_cpu *c, int kvm, int vm, unsigned index, struct error *e)
{
	c->run = NULL;
	c->fd = ioctl(vm, KVM_CREATE_VCPU, (unsigned long)index);
	if (c->fd < 0)
		return error_set(e, -errno, "KVM makes no vcpu %u: %s", index, strerror(errno));
	int bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *run = bytes < (int)sizeof(*c->run) ? MAP_FAILED
						 : mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE,
							MAP_SHARED, c->fd, 0);
	if (run == MAP_FAILED) {
		int code = errno ? -errno : -EINVAL;
		kvm_cpu_close(c);
		return error_set(e, code, "KVM's vcpu %u cannot be mapped: %s", index,
				 strerror(-code));
	}
	c->run = run;
	c->run_bytes = (size_t)bytes;
	return 0;
}

void kvm_cpu_close(struct kvm_cpu *c)
{
	if (c->run)
		munmap(c->run, c->run_bytes);
	if (c->fd >= 0)
		close(c->fd);
	c->run = NULL;
	c->fd = -1;
}

int kvm_host_cpuid(int kvm, struct kvm_cpuid2 **out, struct error *e)
{
	struct kvm_cpuid2 *c =
		calloc(1, sizeof(*c) + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));

	if (!c)
		return error_set(e, -ENOMEM, "out of memory");
	c->nent = CPUID_ENTRIES_MAX;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c) < 0) {
		int code = -errno;
		free(c);
		return error_set(e, code, "KVM does not say which CPUID it can show: %s",
				 strerror(-code));
	}
	*out = c;
	return 0;
}

/* ---- the deadline ---- */

static pid_t this_thread(void)
{
	return (pid_t)syscall(SYS_gettid);
}

int kvm_deadline_open(struct kvm_deadline *d, struct error *e)
{
	if (d->is_open && d->thread == this_thread())
		return 0;
	kvm_deadline_close(d);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, DEADLINE_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	d->thread = this_thread();
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID,
				 .sigev_signo = DEADLINE_SIGNAL,
				 ._sigev_un._tid = d->thread};
	if (timer_create(CLOCK_MONOTONIC, &event, &d->timer))
		return error_set(e, -errno, "the host makes no timer: %s", strerror(errno));
	d->is_open = true;
	return 0;
}

void kvm_deadline_close(struct kvm_deadline *d)
{
	if (d->is_open)
		timer_delete(d->timer);
	if (d->is_open && d->thread == this_thread())
		kvm_deadline_clear(d);
	d->is_open = false;
}

int kvm_deadline_attach(const struct kvm_deadline *d, const struct kvm_cpu *c)
{
	/* struct kvm_signal_mask: the length, and the set right behind it. */
	struct __attribute__((packed)) {
		uint32_t length;
		uint64_t signals;
	} mask = {.length = sizeof(mask.signals)};
	sigset_t set;

	/* The mask of this thread, without the deadline's signal. */
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	for (int n = 1; n <= 64; n++)
		if (n != DEADLINE_SIGNAL && sigismember(&set, n) == 1)
			mask.signals |= 1ull << (n - 1);
	return ioctl(c->fd, KVM_SET_SIGNAL_MASK, &mask) < 0 ? -errno : 0;
}

void kvm_deadline_set(const struct kvm_deadline *d, uint64_t ns)
{
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)(ns / 1000000000u),
					       .tv_nsec = (long)(ns % 1000000000u)}};

	timer_settime(d->timer, 0, &when, NULL);
}

void kvm_deadline_clear(const struct kvm_deadline *d)
{
	static const struct timespec now = {0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, DEADLINE_SIGNAL);
	while (sigtimedwait(&set, NULL, &now) > 0)
		;
}

/*
 * What the kernel counts, and how the host translates guest addresses.
 *
 * KVM's binary statistics (KVM_GET_STATS_FD, Linux 5.14) describe themselves: a header, descriptors
 * with name, type and unit, and the values. A statistic is thus read without knowing it beforehand.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/kvm/private.h"

#define NAME_BYTES_MAX 256u
#define DESCRIPTORS_MAX 4096u

/* ---- the host's modules ---- */

/* 'Y', 'N', or 0 if there is no such parameter. */
static char parameter(const char *path)
{
	char value = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (read(fd, &value, 1) != 1)
		value = 0;
	close(fd);
	return value == '1' ? 'Y' : value == '0' ? 'N' : value;
}

enum kvm_paging kvm_host_paging(void)
{
	char ept = parameter("/sys/module/kvm_intel/parameters/ept");
	char npt = parameter("/sys/module/kvm_amd/parameters/npt");

	if (ept)
		return ept == 'Y' ? KVM_PAGING_EPT : KVM_PAGING_SHADOW;
	if (npt)
		return npt == 'Y' ? KVM_PAGING_NPT : KVM_PAGING_SHADOW;
	/* A software KVM runs guests without the processor's help, on tables of its own. */
	return access("/sys/module/kvm_pvm", F_OK) ? KVM_PAGING_UNKNOWN : KVM_PAGING_SHADOW;
}

const char *kvm_paging_name(enum kvm_paging p)
{
	static const char *const names[] = {"unknown", "ept", "npt", "shadow"};

	return names[p];
}

/* ---- statistics ---- */

struct statistics_file {
	int fd;
	struct kvm_stats_header header;
};

static int read_at(int fd, void *bytes, size_t count, uint64_t at)
{
	ssize_t n = pread(fd, bytes, count, (off_t)at);

	return n == (ssize_t)count ? 0 : n < 0 ? -errno : -EIO;
}

static int open_file(struct statistics_file *f, int owner)
{
	f->fd = ioctl(owner, KVM_GET_STATS_FD, NULL);
	if (f->fd < 0)
		return errno == ENOTTY || errno == EINVAL ? -EOPNOTSUPP : -errno;
	int r = read_at(f->fd, &f->header, sizeof(f->header), 0);
	bool is_sane = f->header.name_size <= NAME_BYTES_MAX &&
		       f->header.num_desc <= DESCRIPTORS_MAX;

	return r ? r : is_sane ? 0 : -EINVAL;
}

static void describe(const struct kvm_stats_desc *d, struct kvm_statistic *out)
{
	static const char *const types[] = {"cumulative", "instant", "peak", "linear-hist",
					    "log-hist"};
	static const char *const units[] = {"none", "bytes", "seconds", "cycles", "boolean"};
	unsigned type = d->flags & KVM_STATS_TYPE_MASK;
	unsigned unit = (d->flags & KVM_STATS_UNIT_MASK) >> KVM_STATS_UNIT_SHIFT;

	out->type = type < ARRAY_COUNT(types) ? types[type] : "unknown";
	out->unit = unit < ARRAY_COUNT(units) ? units[unit] : "unknown";
	out->base = (d->flags & KVM_STATS_BASE_MASK) == KVM_STATS_BASE_POW2 ? 2 : 10;
	out->exponent = d->exponent;
	/* The unit is that of a histogram's buckets; what is summed up are the samples in them. */
	if (type >= KVM_STATS_TYPE_LINEAR_HIST) {
		out->unit = units[0];
		out->exponent = 0;
	}
}

static int read_value(const struct statistics_file *f, const struct kvm_stats_desc *d,
		      uint64_t *sum)
{
	uint64_t values[64];

	*sum = 0;
	for (unsigned at = 0; at < d->size; at += ARRAY_COUNT(values)) {
		unsigned n = d->size - at < ARRAY_COUNT(values) ? d->size - at
								: ARRAY_COUNT(values);
		int r = read_at(f->fd, values, n * sizeof(*values),
				f->header.data_offset + d->offset + at * sizeof(*values));
		if (r)
			return r;
		for (unsigned i = 0; i < n; i++)
			*sum += values[i];
	}
	return 0;
}

/* Adds to the statistic of that name, or makes one; a peak is the largest. */
static void add(const struct kvm_statistic *one, struct kvm_statistic *out, unsigned *count)
{
	unsigned i = 0;

	while (i < *count && strcmp(out[i].name, one->name))
		i++;
	if (i == KVM_STATISTICS_MAX)
		return;
	if (i == *count)
		out[(*count)++] = *one;
	else if (strcmp(one->type, "peak"))
		out[i].value += one->value;
	else if (one->value > out[i].value)
		out[i].value = one->value;
}

static int read_all(const struct statistics_file *f, bool is_of_vm, struct kvm_statistic *out,
		    unsigned *count)
{
	size_t bytes = sizeof(struct kvm_stats_desc) + f->header.name_size;
	union {
		struct kvm_stats_desc d;
		char bytes[sizeof(struct kvm_stats_desc) + NAME_BYTES_MAX + 1];
	} entry;
	int r = 0;

	for (uint32_t i = 0; !r && i < f->header.num_desc; i++) {
		struct kvm_statistic one = {.is_of_vm = is_of_vm};
		memset(&entry, 0, sizeof(entry));
		r = read_at(f->fd, &entry, bytes, f->header.desc_offset + (uint64_t)i * bytes);
		if (!r)
			r = read_value(f, &entry.d, &one.value);
		if (r)
			break;
		describe(&entry.d, &one);
		snprintf(one.name, sizeof(one.name), "%.47s",
			 entry.bytes + sizeof(struct kvm_stats_desc));
		add(&one, out, count);
	}
	return r;
}

static int read_file(int owner, bool is_of_vm, struct kvm_statistic *out, unsigned *count)
{
	struct statistics_file f;
	int r = open_file(&f, owner);

	if (!r)
		r = read_all(&f, is_of_vm, out, count);
	if (f.fd >= 0)
		close(f.fd);
	return r;
}

int kvm_statistics_read(struct engine *engine, struct kvm_statistic out[KVM_STATISTICS_MAX],
			unsigned *count, struct error *e)
{
	const struct kvm_engine *k = (const struct kvm_engine *)engine;
	int r;

	*count = 0;
	r = read_file(k->vm, true, out, count);
	for (unsigned i = 0; !r && i < k->config.vcpu_count; i++)
		r = read_file(k->vcpus[i].cpu.fd, false, out, count);
	return r ? error_set(e, r, "this host's KVM tells no statistics: %s", strerror(-r)) : 0;
}

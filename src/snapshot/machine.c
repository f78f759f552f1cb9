/*
 * What a saved machine is built from, as JSON: schema "gnomon-machine", version 1. JSON because
 * people read it (gnomon snapshot inspect) and because each part may grow without moving the
 * others.
 *
 * Whatever a reader does not know is refused: a machine that lacks something which its guest has
 * seen is another machine.
 */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/format.h"

#define SCHEMA_NAME "gnomon-machine"
#define SCHEMA_VERSION 1
#define TSC_HZ_MAX 1000000000000ull

/* ---- writing; jansson takes NULL for a failed allocation and fails in the end ---- */

/* Where the file is found again from another folder. */
static json_t *file_name(const char *path)
{
	char absolute[PATH_MAX];
	return json_string(realpath(path, absolute) ? absolute : path);
}

static json_t *number(uint64_t v)
{
	return json_integer((json_int_t)v);
}

static json_t *model_json(const struct cpu_model *m)
{
	json_t *features = json_array();
	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		if (m->has[f])
			json_array_append_new(features,
					      json_string(cpu_feature_name((enum cpu_feature)f)));
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:b, s:o}", "name", m->name, "vendor",
			 m->vendor, "brand", m->brand, "signature", number(m->signature),
			 "physical_bits", number(m->physical_bits), "linear_bits",
			 number(m->linear_bits), "tsc_hz", number(m->tsc_hz), "kvm_leaves",
			 (int)m->kvm_leaves, "features", features);
}

static json_t *kernel_json(const struct vm_config *c)
{
	json_t *initrds = json_array();
	for (unsigned i = 0; i < c->initrd_count; i++)
		json_array_append_new(initrds, file_name(c->initrd[i]));
	return json_pack("{s:o, s:o, s:s, s:s}", "file", file_name(c->kernel), "initrds", initrds,
			 "append", c->append ? c->append : VM_DEFAULT_APPEND, "format",
			 boot_format_name(c->kernel_format));
}

static json_t *devices_json(const struct vm *vm)
{
	json_t *devices = json_array();
	for (unsigned i = 0; i < vm_device_count(vm); i++) {
		const char *text, *kind = vm_device(vm, i, &text);
		json_array_append_new(devices, json_pack("{s:s, s:s}", "kind", kind, "text", text));
	}
	return devices;
}

int snapshot_machine_write(struct vm *vm, const struct snapshot *base, char **text, struct error *e)
{
	const struct vm_config *c = vm_config(vm);
	struct clock *clock = vm_clock(vm);
	json_t *root =
		json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:s, s:o}", "schema", SCHEMA_NAME,
			  "version", SCHEMA_VERSION, "memory_bytes", number(c->memory_bytes),
			  "vcpus", number(c->cpu_count), "cpu", model_json(vm_model(vm)),
			  "instructions", number(vm_instructions_ever(vm)), "guest_ns",
			  number(clock_ns_from_cycles(clock, clock_now(clock))), "clock",
			  c->clock == CLOCK_REAL ? "real" : "virtual", "seed", number(c->seed));
	bool is_good = root != NULL;
	if (is_good && c->kernel)
		is_good = !json_object_set_new(root, "kernel", kernel_json(c));
	if (is_good && vm_device_count(vm))
		is_good = !json_object_set_new(root, "devices", devices_json(vm));
	if (is_good && base)
		is_good = !json_object_set_new(
			root, "base",
			json_pack("{s:o, s:s}", "file", file_name(base->path), "id", base->id));
	*text = is_good ? json_dumps(root, JSON_INDENT(1)) : NULL;
	json_decref(root);
	/* A command line that is no UTF-8 cannot be written either. */
	return *text ? 0
		     : error_set(e, -EINVAL,
				 "the machine cannot be described: no memory, or a file name or a "
				 "command line is not UTF-8");
}

/* ---- reading ---- */

static int unpack_error(struct error *e, const json_error_t *je)
{
	return error_set(e, -EINVAL, "the description of the machine: %s", je->text);
}

static int read_model(struct cpu_model *m, json_t *from, struct error *e)
{
	const char *name, *vendor, *brand;
	json_int_t signature, physical_bits, linear_bits, tsc_hz;
	int kvm_leaves;
	json_t *features, *feature;
	size_t i;
	json_error_t je;
	if (json_unpack_ex(from, &je, JSON_STRICT, "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:o}",
			   "name", &name, "vendor", &vendor, "brand", &brand, "signature",
			   &signature, "physical_bits", &physical_bits, "linear_bits", &linear_bits,
			   "tsc_hz", &tsc_hz, "kvm_leaves", &kvm_leaves, "features", &features))
		return unpack_error(e, &je);
	if (strlen(name) >= sizeof(m->name) || strlen(vendor) != sizeof(m->vendor) - 1 ||
	    strlen(brand) >= sizeof(m->brand) || signature < 0 || signature > UINT32_MAX ||
	    physical_bits < 36 || physical_bits > 52 || (linear_bits != 48 && linear_bits != 57) ||
	    tsc_hz < 1000 || (uint64_t)tsc_hz > TSC_HZ_MAX || !json_is_array(features))
		return error_set(e, -EINVAL, "the description of the machine: no such processor");
	strcpy(m->name, name);
	strcpy(m->vendor, vendor);
	strcpy(m->brand, brand);
	m->signature = (uint32_t)signature;
	m->physical_bits = (unsigned)physical_bits;
	m->linear_bits = (unsigned)linear_bits;
	m->tsc_hz = (uint64_t)tsc_hz;
	m->kvm_leaves = kvm_leaves;
	json_array_foreach(features, i, feature)
	{
		const char *text = json_is_string(feature) ? json_string_value(feature) : "?";
		enum cpu_feature f = cpu_feature_find(text);
		if (f == FEATURE_COUNT)
			return error_set(e, -EOPNOTSUPP,
					 "the guest uses the CPU feature '%.40s', which this "
					 "Gnomon does not know",
					 text);
		m->has[f] = true;
	}
	return 0;
}

static int read_kernel(struct snapshot_machine *m, json_t *from, struct error *e)
{
	const char *format;
	json_t *initrds, *initrd;
	size_t i;
	json_error_t je;
	if (json_unpack_ex(from, &je, JSON_STRICT, "{s:s, s:o, s:s, s:s}", "file", &m->kernel,
			   "initrds", &initrds, "append", &m->append, "format", &format))
		return unpack_error(e, &je);
	if (!json_is_array(initrds) || json_array_size(initrds) > VM_INITRD_MAX)
		return error_set(e, -EINVAL, "the description of the machine: initrds is no list");
	json_array_foreach(initrds, i, initrd)
	{
		if (!json_is_string(initrd))
			return error_set(e, -EINVAL,
					 "the description of the machine: an initrd has no name");
		m->initrds[m->initrd_count++] = json_string_value(initrd);
	}
	return boot_format_parse(format, &m->kernel_format, e);
}

static int read_devices(struct snapshot_machine *m, json_t *from, struct error *e)
{
	json_t *device;
	size_t i;
	json_error_t je;
	if (!json_is_array(from) || json_array_size(from) > VM_DEVICES_MAX)
		return error_set(e, -EINVAL, "the description of the machine: devices is no list");
	json_array_foreach(from, i, device)
	{
		struct vm_device *d = &m->devices[m->device_count];
		if (json_unpack_ex(device, &je, JSON_STRICT, "{s:s, s:s}", "kind", &d->kind, "text",
				   &d->text))
			return unpack_error(e, &je);
		m->device_count++;
	}
	return 0;
}

static int read_machine(struct snapshot_machine *m, json_t *root, struct error *e)
{
	const char *schema, *clock;
	int version;
	json_int_t memory_bytes, vcpus, instructions, guest_ns, seed;
	json_t *cpu, *kernel = NULL, *base = NULL, *devices = NULL;
	json_error_t je;
	if (json_unpack_ex(root, &je, JSON_STRICT,
			   "{s:s, s:i, s:I, s:I, s:o, s:I, s:I, s:s, s:I, s?o, s?o, s?o}", "schema",
			   &schema, "version", &version, "memory_bytes", &memory_bytes, "vcpus",
			   &vcpus, "cpu", &cpu, "instructions", &instructions, "guest_ns",
			   &guest_ns, "clock", &clock, "seed", &seed, "kernel", &kernel, "base",
			   &base, "devices", &devices))
		return unpack_error(e, &je);
	if (strcmp(schema, SCHEMA_NAME) || version != SCHEMA_VERSION)
		return error_set(e, -EINVAL,
				 "the description of the machine: '%.40s' version %d, expected "
				 "'" SCHEMA_NAME "' version %d",
				 schema, version, SCHEMA_VERSION);
	if (memory_bytes < (json_int_t)VM_MEMORY_MIN_BYTES || memory_bytes % PAGE_SIZE_BYTES ||
	    vcpus < 1 || vcpus > VM_CPUS_MAX || instructions < 0 || guest_ns < 0)
		return error_set(e, -EINVAL, "the description of the machine: no such machine");
	m->memory_bytes = (uint64_t)memory_bytes;
	m->vcpu_count = (unsigned)vcpus;
	m->instructions = (uint64_t)instructions;
	m->guest_ns = (uint64_t)guest_ns;
	m->seed = (uint64_t)seed;
	m->clock = strcmp(clock, "real") ? CLOCK_VIRTUAL : CLOCK_REAL;
	m->model.vcpu_count = m->vcpu_count;
	if (base && json_unpack_ex(base, &je, JSON_STRICT, "{s:s, s:s}", "file", &m->base_file,
				   "id", &m->base_id))
		return unpack_error(e, &je);
	int r = read_model(&m->model, cpu, e);
	if (!r && devices)
		r = read_devices(m, devices, e);
	return r || !kernel ? r : read_kernel(m, kernel, e);
}

int snapshot_machine_read(struct snapshot_machine *m, const char *text, size_t size_bytes,
			  struct error *e)
{
	json_error_t je;
	memset(m, 0, sizeof(*m));
	json_t *root = json_loadb(text, size_bytes, JSON_REJECT_DUPLICATES, &je);
	if (!root)
		return unpack_error(e, &je);
	m->json = root;
	return read_machine(m, root, e);
}

void snapshot_machine_drop(struct snapshot_machine *m)
{
	json_decref(m->json);
	m->json = NULL;
}

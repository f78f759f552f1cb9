/* What is in a snapshot, for people and for programs. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "snapshot/format.h"

#define SCHEMA_NAME "gnomon-snapshot"
#define SCHEMA_VERSION 1

static int describe_json(const struct snapshot *s, bool is_verified, FILE *f, struct error *e)
{
	json_t *sections = json_array();
	for (unsigned i = 0; i < PART_COUNT; i++) {
		const struct snapshot_section *part = &s->header.sections[i];
		json_array_append_new(sections,
				      json_pack("{s:s, s:I, s:I}", "name", part->name, "offset",
						(json_int_t)part->offset, "size_bytes",
						(json_int_t)part->size_bytes));
	}
	json_t *root = json_pack("{s:s, s:i, s:s, s:i, s:s, s:I, s:I, s:b, s:o, s:O}", "schema",
				 SCHEMA_NAME, "version", SCHEMA_VERSION, "file", s->path,
				 "format_version", (int)s->header.version, "id", s->id,
				 "file_bytes", (json_int_t)s->header.file_bytes, "disk_bytes",
				 (json_int_t)s->disk_bytes, "is_ram_verified", (int)is_verified,
				 "sections", sections, "machine", (json_t *)s->machine.json);
	int r = !root							       ? -ENOMEM
		: json_dumpf(root, f, JSON_INDENT(2)) || fputc('\n', f) == EOF ? -EIO
									       : 0;
	json_decref(root);
	return r ? error_set(e, r, "cannot describe '%s': %s", s->path, strerror(-r)) : 0;
}

static void describe_model(const struct cpu_model *m, FILE *f)
{
	fprintf(f, "  processor     %s, %.3f GHz%s\n", m->name, (double)m->tsc_hz / 1e9,
		m->kvm_leaves ? ", KVM's leaves" : "");
	fputs("  features     ", f);
	for (unsigned i = 0, column = 14; i < FEATURE_COUNT; i++) {
		const char *name = cpu_feature_name((enum cpu_feature)i);
		if (!m->has[i])
			continue;
		if (column + strlen(name) + 1 > 80) {
			fputs("\n               ", f);
			column = 15;
		}
		column += (unsigned)fprintf(f, " %s", name);
	}
	fputc('\n', f);
}

static void describe_text(const struct snapshot *s, bool is_verified, FILE *f)
{
	const struct snapshot_machine *m = &s->machine;
	const struct snapshot_section *part = s->header.sections;
	fprintf(f, "%s: snapshot %s, version %u of the format\n", s->path, s->id,
		s->header.version);
	fprintf(f, "  memory        %" PRIu64 " MiB, %" PRIu64 " KiB of the file on disk, %s\n",
		m->memory_bytes >> 20, s->disk_bytes >> 10,
		is_verified ? "every checksum fits" : "not read (--verify reads it)");
	fprintf(f, "  vcpus         %u\n", m->vcpu_count);
	describe_model(&m->model, f);
	fprintf(f, "  time          %.6f s, %s clock, after %" PRIu64 " instructions\n",
		(double)m->guest_ns / 1e9, m->clock == CLOCK_REAL ? "real" : "virtual",
		m->instructions);
	if (m->kernel)
		fprintf(f, "  a reset boots %s (%s)\n", m->kernel,
			boot_format_name(m->kernel_format));
	for (unsigned i = 0; i < m->initrd_count; i++)
		fprintf(f, "    with        %s\n", m->initrds[i]);
	if (m->kernel)
		fprintf(f, "    and         \"%s\"\n", m->append);
	for (unsigned i = 0; i < m->device_count; i++)
		fprintf(f, "  device        %s%s%s\n", m->devices[i].kind,
			*m->devices[i].text ? "," : "", m->devices[i].text);
	if (s->base)
		fprintf(f, "  difference    %" PRIu64 " pages from %s (%s)\n",
			part[PART_PAGES].size_bytes / 8, s->base->path, s->base->id);
	fputs("  section           offset        bytes\n", f);
	for (unsigned i = 0; i < PART_COUNT; i++)
		fprintf(f, "    %-9s %12" PRIu64 " %12" PRIu64 "\n", part[i].name, part[i].offset,
			part[i].size_bytes);
}

int snapshot_describe(const struct snapshot *s, bool is_verified, bool is_json, FILE *f,
		      struct error *e)
{
	if (is_json)
		return describe_json(s, is_verified, f, e);
	describe_text(s, is_verified, f);
	return ferror(f) ? error_set(e, -EIO, "cannot write what is in '%s'", s->path) : 0;
}

/* What the monitor's files share. */
#pragma once

#include "debug/monitor.h"

#define MONITOR_LINE_BYTES 256

struct monitor {
	struct vm *vm; /* borrowed */
	monitor_output_fn *output;
	void *opaque; /* borrowed */
	bool is_plain;
	unsigned vcpu; /* that commands without a number mean */
	char line[MONITOR_LINE_BYTES];
	size_t length;
	bool was_return; /* the last byte was CR: a LF after it is the same line's end */
};

struct monitor_command {
	const char *name;
	const char *arguments;
	const char *text;
	/* `rest` is what follows the name, without leading space. */
	void (*run)(struct monitor *m, const char *rest);
};

void monitor_print(struct monitor *m, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* An address as people write it: 0x1000, $rip, $rsp+0x20, $cr3; *rest is what follows. False, with
 * a message printed, if it is none. */
bool monitor_address(struct monitor *m, const char *text, uint64_t *out, const char **rest);

/* Copies guest memory without side effects; false if some of it is not there. */
bool debug_read_virtual(struct vm *vm, unsigned vcpu, uint64_t address, void *bytes, size_t count);
bool debug_read_physical(struct vm *vm, uint64_t address, void *bytes, size_t count);
/* Writes RAM behind a guest-virtual address; all or nothing. */
bool debug_write_virtual(struct vm *vm, unsigned vcpu, uint64_t address, const void *bytes,
			 size_t count);

/* monitor_info.c */
void monitor_info(struct monitor *m, const char *rest);
/* monitor_memory.c */
void monitor_examine(struct monitor *m, const char *rest);
void monitor_examine_physical(struct monitor *m, const char *rest);
void monitor_walk(struct monitor *m, const char *rest);
void monitor_mappings(struct monitor *m);

/* gdb's view of a vcpu's registers: numbered, with a description in XML. Private to debug/. */
#pragma once

#include "base/types.h"

struct vcpu;

#define GDB_REGISTER_BYTES_MAX 16

unsigned gdb_register_count(void);
/* Its size; 0 past the end. */
unsigned gdb_register_bytes(unsigned number);
void gdb_register_get(const struct vcpu *v, unsigned number, uint8_t bytes[GDB_REGISTER_BYTES_MAX]);
/* What cannot be set on its own (a selector without its descriptor) is left as it is. */
void gdb_register_set(struct vcpu *v, unsigned number, const uint8_t *bytes);

/* Writes target.xml, with a NUL; returns its length. `size_bytes` of GDB_XML_BYTES are enough. */
#define GDB_XML_BYTES 12288
size_t gdb_target_xml(char *out, size_t size_bytes);

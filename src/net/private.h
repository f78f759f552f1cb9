/* The backends of net.h, for its catalogue and for tests. */
#pragma once

#include "net/net.h"

extern const struct net_ops net_user_ops, net_tap_ops, net_switch_ops, net_loop_ops;

/* What sendmsg(), readv() and their like left in errno, as net_ops says it. */
int net_io_error(int error_number);

/* User networking by a program that is somewhere else: for tests. */
int net_open_user_program(struct net **out, const char *program, const char *spec, struct error *e);

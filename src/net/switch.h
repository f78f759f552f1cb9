/*
 * A switch of Ethernet for machines on one host: `gnomon switch`. Ports are connections to a unix
 * socket, in the protocol of stream.h, so QEMU's `-netdev stream` can be at it, too.
 *
 * It learns which addresses are behind which port from what they send, forwards to that port alone,
 * and sends to all others what is for everybody or for nobody it knows. A port that does not read
 * loses frames, its own only; one that breaks the protocol is closed. Nothing waits for anybody.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct net_switch;

#define NET_SWITCH_PORTS_MAX 256

struct net_switch_counts {
	uint64_t frames, floods, drops; /* in; of them sent to all; copies that a port lost */
	unsigned ports, ports_ever;
};

int net_switch_open(struct net_switch **out, const char *path, struct error *e);
void net_switch_close(struct net_switch *s); /* NULL is legal; removes the socket */
/* Waits for something to do, at most so long (-1: forever) and no longer than until `stop_fd` (-1:
 * none) is readable, and does it. False if `stop_fd` is. */
bool net_switch_turn(struct net_switch *s, int stop_fd, int timeout_ms);
struct net_switch_counts net_switch_counts(const struct net_switch *s);

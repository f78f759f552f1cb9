/*
 * Networks: where the Ethernet frames of a guest's card go, and come from.
 *
 * A backend is one file descriptor and four functions. It never waits: who sends to a peer that
 * does not read is told so, and decides what becomes of the frame. It does not know of guests: a
 * frame is bytes, from the destination's address to the last of the payload, without a checksum
 * behind it. What the other side sends is as hostile as what a guest sends.
 *
 *   user     the host's own connections, through TCP/IP in a process of its own (src/usernet)
 *   tap      a tap device of the host
 *   loop     what is sent comes back: for tests
 *   switch   a unix socket where a switch (gnomon switch, or whoever speaks its protocol) listens
 *
 * The specification is text, as --net takes it: see net_parse().
 */
#pragma once

#include <netinet/in.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/types.h"

#define NET_MAC_BYTES 6
#define NET_HEADER_BYTES 14
#define NET_MTU_MIN 576u
#define NET_MTU_MAX 65520u
#define NET_MTU_DEFAULT 1500u
/* User networking ends connections itself, so the host's links do not matter: large frames spare
 * the guest most of the work. */
#define NET_MTU_USER NET_MTU_MAX
/* With a VLAN tag. */
#define NET_FRAME_MAX (NET_HEADER_BYTES + 4 + NET_MTU_MAX)
#define NET_FORWARDS_MAX 64

#define NET_SPEC_MAX 4096

enum net_kind { NET_NONE, NET_USER, NET_TAP, NET_SWITCH, NET_LOOP };

/* A port of the host that leads to one of the guest. */
struct net_forward {
	bool is_udp;
	struct in_addr host, guest;
	uint16_t host_port, guest_port;
};

struct net_user_config {
	struct in_addr net, mask, host, dns, dhcp_start;
	char hostname[64]; /* what DHCP calls the guest; "": nothing */
	char tftp[256];	   /* folder that the TFTP server serves; "": none */
	char bootfile[128];
	bool is_restricted; /* nothing but forwards */
	bool has_no_ipv6, asks_for_ipv6;
	struct net_forward forwards[NET_FORWARDS_MAX];
	unsigned forward_count;
};

struct net_config {
	enum net_kind kind;
	uint8_t mac[NET_MAC_BYTES];
	bool has_mac;
	unsigned mtu;
	char ifname[16]; /* tap */
	char path[108];	 /* switch */
	struct net_user_config user;
};

/*
 * KIND[,KEY=VALUE]...
 *
 *   every kind   mac=52:54:00:12:34:56  mtu=1500 (user: 65520)
 *   user         net=10.0.2.0/24  host=10.0.2.2  dns=10.0.2.3  dhcpstart=10.0.2.15  restrict=on|off
 *                ipv6=on|off (on, unless restricted: libslirp knows no restrictions there)
 * hostname=NAME  tftp=FOLDER  bootfile=NAME hostfwd=tcp|udp:[ADDRESS]:PORT-[ADDRESS]:PORT, as often
 * as need be tap          ifname=NAME switch       path=SOCKET loop, none
 *
 * A forward without a host address listens on 127.0.0.1; without a guest address it leads to
 * dhcpstart. -EINVAL with what is wrong and what would be right.
 */
int net_parse(struct net_config *out, const char *spec, struct error *e);
/* "52:54:00:12:34:56"; false if it is no address of one card. */
bool net_parse_mac(const char *text, uint8_t mac[NET_MAC_BYTES]);
/* A card's address if nobody gave one: always the same, or at random if others are on its network
 * (is_shared). */
void net_default_mac(uint8_t mac[NET_MAC_BYTES], bool is_shared);

struct net;

struct net_ops {
	int (*open)(struct net **out, const char *spec, const struct net_config *c,
		    struct error *e);
	/* One frame. 0; -EAGAIN: the other side's queue is full; -EPIPE: there is no other side
	 * any more. Anything else is the frame's fault: it is lost. */
	int (*send)(struct net *n, const struct iovec *parts, unsigned part_count);
	/* What was taken and has not left yet goes as far as it can: 0 if all of it, -EAGAIN, or
	 * -EPIPE. May be NULL: nothing ever waits. */
	int (*flush)(struct net *n);
	/* The next frame's bytes; -EAGAIN: none now; -EPIPE as above. `room` is at least
	 * NET_FRAME_MAX. */
	ssize_t (*receive)(struct net *n, uint8_t *frame, size_t room);
	void (*close)(struct net *n);
};

struct net {
	const struct net_ops *ops;
	int fd; /* readable when receive() may have something */
};

/* `spec` is checked first. -ENODEV and the like with the message. NET_NONE opens nothing: *out is
 * NULL. */
int net_open(struct net **out, const char *spec, struct error *e);
void net_close(struct net *n); /* net_close(NULL) is legal */

static inline int net_send(struct net *n, const struct iovec *parts, unsigned part_count)
{
	return n->ops->send(n, parts, part_count);
}

static inline int net_flush(struct net *n)
{
	return n->ops->flush ? n->ops->flush(n) : 0;
}

static inline ssize_t net_receive(struct net *n, uint8_t *frame, size_t room)
{
	return n->ops->receive(n, frame, room);
}

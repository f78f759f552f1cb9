/* --net's text: a kind, then keys with values. One table says which keys there are, for which kinds
 * and how each is read. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/net.h"

static const char *const kinds[] = {[NET_NONE] = "none",
				    [NET_USER] = "user",
				    [NET_TAP] = "tap",
				    [NET_SWITCH] = "switch",
				    [NET_LOOP] = "loop"};

/* ---- values ---- */

bool net_parse_mac(const char *text, uint8_t mac[NET_MAC_BYTES])
{
	static const char digits[] = "0123456789abcdefABCDEF";
	for (unsigned i = 0; i < NET_MAC_BYTES; i++, text += 3) {
		const char end = i + 1 < NET_MAC_BYTES ? ':' : 0;
		if (!text[0] || !text[1] || !strchr(digits, text[0]) || !strchr(digits, text[1]) ||
		    text[2] != end)
			return false;
		mac[i] = (uint8_t)strtoul((char[]){text[0], text[1], 0}, NULL, 16);
	}
	static const uint8_t none[NET_MAC_BYTES];
	return !(mac[0] & 1) && memcmp(mac, none, sizeof(none)) != 0;
}

static int parse_port(const char *text, uint16_t *out, struct error *e)
{
	char *end;
	unsigned long n = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
	if (!n || *end || n > 65535)
		return error_set(e, -EINVAL, "'%s' is no port; one is 1 to 65535", text);
	*out = (uint16_t)n;
	return 0;
}

static int parse_address(const char *text, struct in_addr *out, struct error *e)
{
	if (inet_pton(AF_INET, text, out) != 1)
		return error_set(e, -EINVAL, "'%s' is no IPv4 address such as 10.0.2.15", text);
	return 0;
}

static int parse_flag(const char *text, bool *out, struct error *e)
{
	*out = !strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "y");
	if (!*out && strcmp(text, "off") && strcmp(text, "no") && strcmp(text, "n"))
		return error_set(e, -EINVAL, "'%s' is neither on nor off", text);
	return 0;
}

static int copy(char *out, size_t size, const char *text, struct error *e)
{
	if (!*text || strlen(text) >= size)
		return error_set(e, -EINVAL, "'%s': 1 to %zu characters are possible", text,
				 size - 1);
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

/* ---- keys ---- */

static int set_mac(struct net_config *c, char *value, struct error *e)
{
	if (!net_parse_mac(value, c->mac))
		return error_set(e, -EINVAL,
				 "'%s' is no address of a card, such as 52:54:00:12:34:56", value);
	c->has_mac = true;
	return 0;
}

static int set_mtu(struct net_config *c, char *value, struct error *e)
{
	char *end;
	unsigned long n = *value >= '0' && *value <= '9' ? strtoul(value, &end, 10) : 0;
	if (!n || *end || n < NET_MTU_MIN || n > NET_MTU_MAX)
		return error_set(e, -EINVAL, "'%s' is no number of bytes from %u to %u", value,
				 NET_MTU_MIN, NET_MTU_MAX);
	c->mtu = (unsigned)n;
	return 0;
}

static int set_ifname(struct net_config *c, char *value, struct error *e)
{
	return copy(c->ifname, sizeof(c->ifname), value, e);
}

static int set_path(struct net_config *c, char *value, struct error *e)
{
	return copy(c->path, sizeof(c->path), value, e);
}

/* 10.0.2.0/24, as QEMU also 10.0.2.0/255.255.255.0, or 10.0.2.0 alone with the mask of old. */
static int set_net(struct net_config *c, char *value, struct error *e)
{
	char *slash = strchr(value, '/');
	char *end;
	if (slash)
		*slash = 0;
	if (parse_address(value, &c->user.net, e))
		return -EINVAL;
	unsigned long bits = 24;
	if (slash && strchr(slash + 1, '.')) {
		struct in_addr mask;
		if (parse_address(slash + 1, &mask, e))
			return -EINVAL;
		uint32_t host_part = ~ntohl(mask.s_addr);
		if (host_part & (host_part + 1))
			return error_set(e, -EINVAL, "'%s' is no mask", slash + 1);
		bits = 32 - (unsigned)__builtin_popcount(host_part);
	} else if (slash) {
		bits = strtoul(slash + 1, &end, 10);
		if (end == slash + 1 || *end)
			bits = 0;
	}
	if (bits < 4 || bits > 29)
		return error_set(e, -EINVAL,
				 "a network is written 10.0.2.0/24 and has 4 to 29 bits");
	c->user.mask.s_addr = htonl(~0u << (32 - bits));
	if (c->user.net.s_addr & ~c->user.mask.s_addr)
		return error_set(e, -EINVAL, "'%s' has bits behind its mask of %lu", value, bits);
	return 0;
}

static int set_host(struct net_config *c, char *value, struct error *e)
{
	return parse_address(value, &c->user.host, e);
}

static int set_dns(struct net_config *c, char *value, struct error *e)
{
	return parse_address(value, &c->user.dns, e);
}

static int set_dhcp_start(struct net_config *c, char *value, struct error *e)
{
	return parse_address(value, &c->user.dhcp_start, e);
}

static int set_restrict(struct net_config *c, char *value, struct error *e)
{
	return parse_flag(value, &c->user.is_restricted, e);
}

static int set_ipv6(struct net_config *c, char *value, struct error *e)
{
	int r = parse_flag(value, &c->user.asks_for_ipv6, e);
	c->user.has_no_ipv6 = !c->user.asks_for_ipv6;
	return r;
}

static int set_hostname(struct net_config *c, char *value, struct error *e)
{
	return copy(c->user.hostname, sizeof(c->user.hostname), value, e);
}

static int set_tftp(struct net_config *c, char *value, struct error *e)
{
	return copy(c->user.tftp, sizeof(c->user.tftp), value, e);
}

static int set_bootfile(struct net_config *c, char *value, struct error *e)
{
	return copy(c->user.bootfile, sizeof(c->user.bootfile), value, e);
}

/* [ADDRESS]:PORT */
static int parse_end(char *text, struct in_addr *address, uint16_t *port, struct error *e)
{
	char *colon = strrchr(text, ':');
	if (!colon)
		return error_set(e, -EINVAL, "'%s': write [ADDRESS]:PORT", text);
	*colon = 0;
	int r = *text ? parse_address(text, address, e) : 0;
	return r ? r : parse_port(colon + 1, port, e);
}

static int set_forward(struct net_config *c, char *value, struct error *e)
{
	struct net_forward f = {.host = {htonl(INADDR_LOOPBACK)}};
	if (c->user.forward_count == NET_FORWARDS_MAX)
		return error_set(e, -EINVAL, "%d of them at most", NET_FORWARDS_MAX);
	char *dash = strchr(value, '-');
	f.is_udp = !strncmp(value, "udp:", 4);
	if (!dash || (!f.is_udp && strncmp(value, "tcp:", 4)))
		return error_set(e, -EINVAL,
				 "'%s': write tcp:[ADDRESS]:PORT-[ADDRESS]:PORT (or udp:), the "
				 "host's side first",
				 value);
	*dash = 0;
	value += 4;
	/* QEMU reads tcp:2222-:22, too. */
	if (!strchr(value, ':') && parse_port(value, &f.host_port, e))
		return -EINVAL;
	if (!f.host_port && parse_end(value, &f.host, &f.host_port, e))
		return -EINVAL;
	if (parse_end(dash + 1, &f.guest, &f.guest_port, e))
		return -EINVAL;
	c->user.forwards[c->user.forward_count++] = f;
	return 0;
}

#define FOR(kind) (1u << NET_##kind)
#define ALL (FOR(NONE) | FOR(USER) | FOR(TAP) | FOR(SWITCH) | FOR(LOOP))

static const struct key {
	const char *name;
	unsigned kinds;
	/* May write into `value`. */
	int (*set)(struct net_config *c, char *value, struct error *e);
} keys[] = {
	{"mac", ALL, set_mac},
	{"mtu", ALL, set_mtu},
	{"net", FOR(USER), set_net},
	{"host", FOR(USER), set_host},
	{"dns", FOR(USER), set_dns},
	{"dhcpstart", FOR(USER), set_dhcp_start},
	{"restrict", FOR(USER), set_restrict},
	{"ipv6", FOR(USER), set_ipv6},
	{"hostname", FOR(USER), set_hostname},
	{"tftp", FOR(USER), set_tftp},
	{"bootfile", FOR(USER), set_bootfile},
	{"hostfwd", FOR(USER), set_forward},
	{"ifname", FOR(TAP), set_ifname},
	{"path", FOR(SWITCH), set_path},
};

static int unknown_key(enum net_kind kind, const char *name, struct error *e)
{
	char legal[256] = "";
	for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
		size_t used = strlen(legal);
		if (keys[i].kinds & 1u << kind)
			snprintf(legal + used, sizeof(legal) - used, "%s%s", used ? ", " : "",
				 keys[i].name);
	}
	return error_set(e, -EINVAL, "'%s' has no key '%s'; it has %s", kinds[kind], name, legal);
}

static int set_key(struct net_config *c, char *word, struct error *e)
{
	char *value = strchr(word, '=');
	if (!value)
		return error_set(e, -EINVAL, "'%s': write KEY=VALUE", word);
	*value++ = 0;
	for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
		if (!strcmp(keys[i].name, word) && keys[i].kinds & 1u << c->kind)
			return keys[i].set(c, value, e) ? error_prefix(e, "%s", word) : 0;
	return unknown_key(c->kind, word, e);
}

/* ---- the whole ---- */

static bool is_inside(const struct net_user_config *u, struct in_addr a)
{
	return (a.s_addr & u->mask.s_addr) == u->net.s_addr && a.s_addr != u->net.s_addr &&
	       a.s_addr != (u->net.s_addr | ~u->mask.s_addr);
}

/* What was not said follows from the network; everybody lives in it. */
static int complete_user(struct net_user_config *u, struct error *e)
{
	const struct {
		const char *name;
		struct in_addr *address;
		uint32_t number;
	} hosts[] = {{"host", &u->host, 2}, {"dns", &u->dns, 3}, {"dhcpstart", &u->dhcp_start, 15}};
	if (!u->mask.s_addr) {
		inet_pton(AF_INET, "10.0.2.0", &u->net);
		u->mask.s_addr = htonl(0xffffff00);
	}
	uint32_t size = ~ntohl(u->mask.s_addr);
	for (size_t i = 0; i < ARRAY_COUNT(hosts); i++) {
		uint32_t number = hosts[i].number < size ? hosts[i].number : 4;
		if (!hosts[i].address->s_addr)
			hosts[i].address->s_addr = u->net.s_addr | htonl(number);
		if (!is_inside(u, *hosts[i].address))
			return error_set(e, -EINVAL, "%s: is not inside the guest's network",
					 hosts[i].name);
	}
	if (u->host.s_addr == u->dns.s_addr || u->host.s_addr == u->dhcp_start.s_addr ||
	    u->dns.s_addr == u->dhcp_start.s_addr)
		return error_set(e, -EINVAL, "host, dns and dhcpstart must differ");
	if (*u->bootfile && !*u->tftp)
		return error_set(e, -EINVAL, "bootfile: there is no tftp=FOLDER to take it from");
	if (u->is_restricted && u->asks_for_ipv6)
		return error_set(e, -EINVAL, "ipv6=on: restrict=on is for IPv4 only");
	if (u->is_restricted)
		u->has_no_ipv6 = true;
	for (unsigned i = 0; i < u->forward_count; i++) {
		struct net_forward *f = &u->forwards[i];
		if (!f->guest.s_addr)
			f->guest = u->dhcp_start;
		if (!is_inside(u, f->guest))
			return error_set(e, -EINVAL,
					 "hostfwd: the guest's address is not inside its network");
	}
	return 0;
}

static int complete(struct net_config *c, struct error *e)
{
	if (!c->mtu)
		c->mtu = c->kind == NET_USER ? NET_MTU_USER : NET_MTU_DEFAULT;
	if (c->kind == NET_TAP && !*c->ifname)
		return error_set(e, -EINVAL, "tap: ifname=NAME is missing");
	if (c->kind == NET_SWITCH && !*c->path)
		return error_set(e, -EINVAL, "switch: path=SOCKET is missing");
	return c->kind == NET_USER ? complete_user(&c->user, e) : 0;
}

int net_parse(struct net_config *c, const char *spec, struct error *e)
{
	char text[NET_SPEC_MAX];
	char *rest = text;
	*c = (struct net_config){0};
	if (strlen(spec) >= sizeof(text))
		return error_set(e, -EINVAL, "more than %zu characters", sizeof(text) - 1);
	memcpy(text, spec, strlen(spec) + 1);
	const char *kind = strsep(&rest, ",");
	for (c->kind = NET_NONE; c->kind < ARRAY_COUNT(kinds); c->kind++)
		if (!strcmp(kind, kinds[c->kind]))
			break;
	if (c->kind == ARRAY_COUNT(kinds))
		return error_set(
			e, -EINVAL,
			"'%s' is no kind of network; the kinds are user, tap, switch, loop, none",
			kind);
	while (rest) {
		int r = set_key(c, strsep(&rest, ","), e);
		if (r)
			return r;
	}
	return complete(c, e);
}

/* The catalogue of backends, and what they share. */
#include "net/net.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "net/private.h"

static const struct net_ops *const backends[] = {
	[NET_USER] = &net_user_ops,
	[NET_TAP] = &net_tap_ops,
	[NET_SWITCH] = &net_switch_ops,
	[NET_LOOP] = &net_loop_ops,
};

int net_open(struct net **out, const char *spec, struct error *e)
{
	struct net_config c;
	int r = net_parse(&c, spec, e);
	*out = NULL;
	if (r || c.kind == NET_NONE)
		return r;
	return backends[c.kind]->open(out, spec, &c, e);
}

void net_close(struct net *n)
{
	if (n)
		n->ops->close(n);
}

int net_io_error(int error_number)
{
	switch (error_number) {
	case EAGAIN:
	case ENOBUFS:
	case EINTR: return -EAGAIN;
	/* A frame that the other side does not take. */
	case EMSGSIZE:
	case EINVAL: return -error_number;
	/* A tap that is down loses what is sent; it may come up again. */
	case EIO: return -EIO;
	default: return -EPIPE;
	}
}

void net_default_mac(uint8_t mac[NET_MAC_BYTES], bool is_shared)
{
	static const uint8_t usual[NET_MAC_BYTES] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
	memcpy(mac, usual, sizeof(usual));
	if (is_shared)
		(void)!getrandom(mac + 3, NET_MAC_BYTES - 3, 0);
}

/* A tap device of the host: frames as they are, one read or write each. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/private.h"

static int tap_open(struct net **out, const char *spec, const struct net_config *c, struct error *e)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	struct net *n = calloc(1, sizeof(*n));
	(void)spec;
	if (!n)
		return error_set(e, -ENOMEM, "out of memory");
	memcpy(request.ifr_name, c->ifname, sizeof(c->ifname));
	n->ops = &net_tap_ops;
	n->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (n->fd >= 0 && !ioctl(n->fd, TUNSETIFF, &request)) {
		*out = n;
		return 0;
	}
	int r = error_set(e, -errno,
			  "cannot use tap device '%s': %s; root makes one for you with "
			  "'ip tuntap add %s mode tap user NAME', and --net user needs none",
			  c->ifname, strerror(errno), c->ifname);
	net_tap_ops.close(n);
	return r;
}

static int tap_send(struct net *n, const struct iovec *parts, unsigned part_count)
{
	return writev(n->fd, parts, (int)part_count) < 0 ? net_io_error(errno) : 0;
}

static ssize_t tap_receive(struct net *n, uint8_t *frame, size_t room)
{
	ssize_t got = read(n->fd, frame, room);
	if (got < 0 && errno == EIO) /* the interface is down */
		return -EAGAIN;
	return got < 0 ? net_io_error(errno) : got;
}

static void tap_close(struct net *n)
{
	if (n->fd >= 0)
		close(n->fd);
	free(n);
}

const struct net_ops net_tap_ops = {tap_open, tap_send, NULL, tap_receive, tap_close};

#include "cli/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

int notify_open(int *fd, struct error *e)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	*fd = -1;
	if (!path || !*path)
		return 0;
	size_t length = strlen(path);
	if ((*path != '/' && *path != '@') || length >= sizeof(a.sun_path))
		return error_set(e, -EINVAL, "$NOTIFY_SOCKET: '%.100s' is no socket", path);
	memcpy(a.sun_path, path, length);
	if (*path == '@') /* in the abstract name space */
		a.sun_path[0] = 0;
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	*fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (*fd >= 0 && !connect(*fd, (struct sockaddr *)&a, size))
		return 0;
	int r = -errno;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return error_set(e, r, "$NOTIFY_SOCKET: cannot reach '%.100s': %s", path, strerror(-r));
}

void notify_ready(int fd)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "READY=1\nMAINPID=%ld\n", (long)getpid());
	if (fd >= 0 && write(fd, text, (size_t)n) != n)
		log_warn("the service manager was not told: %s", strerror(errno));
}

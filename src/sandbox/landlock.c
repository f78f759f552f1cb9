#include "sandbox/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What headers of Debian 12 lack; the kernel says by its version what it knows. */
#define FS_REFER (1ull << 13)	 /* 2 */
#define FS_TRUNCATE (1ull << 14) /* 3 */
#define NET_BIND_TCP (1ull << 0) /* 4 */
#define NET_CONNECT_TCP (1ull << 1)
#define SCOPE_ABSTRACT_UNIX (1ull << 0) /* 6 */

#define FS_1 ((1ull << 13) - 1) /* of version 1 */
#define FS_CHANGE                                                       \
	(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | \
	 LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |    \
	 LANDLOCK_ACCESS_FS_REMOVE_FILE | FS_REFER | FS_TRUNCATE)

struct attributes {
	uint64_t fs, net, scoped;
};

static int allow(int ruleset, uint64_t handled, const struct landlock_place *p)
{
	static const uint64_t rights[] = {
		[LANDLOCK_READ] = LANDLOCK_ACCESS_FS_READ_FILE,
		[LANDLOCK_CHANGE] = FS_CHANGE,
		[LANDLOCK_REMOVE] = LANDLOCK_ACCESS_FS_REMOVE_FILE,
	};
	struct landlock_path_beneath_attr rule = {.allowed_access = rights[p->use] & handled};
	rule.parent_fd = open(p->path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return 0;
	long r = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	int code = r ? -errno : 0;
	close(rule.parent_fd);
	return code;
}

static int restrict_self(int ruleset)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_landlock_restrict_self, ruleset, 0))
		return -errno;
	return 0;
}

int landlock_enter(const struct landlock_place *places, size_t count, struct error *e)
{
	long version =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (version < 1)
		return -ENOSYS;
	struct attributes a = {.fs = FS_1};
	size_t size = sizeof(a.fs);
	if (version >= 2)
		a.fs |= FS_REFER;
	if (version >= 3)
		a.fs |= FS_TRUNCATE;
	if (version >= 4) {
		a.net = NET_BIND_TCP | NET_CONNECT_TCP;
		size = 2 * sizeof(a.fs);
	}
	if (version >= 6) {
		a.scoped = SCOPE_ABSTRACT_UNIX;
		size = sizeof(a);
	}
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &a, size, 0);
	if (ruleset < 0)
		return error_set(e, -errno, "no Landlock rules: %s", strerror(errno));
	int r = 0;
	for (size_t i = 0; !r && i < count; i++) {
		r = allow(ruleset, a.fs, &places[i]);
		if (r)
			error_set(e, r, "no Landlock rule for '%s': %s", places[i].path,
				  strerror(-r));
	}
	if (!r && (r = restrict_self(ruleset)))
		error_set(e, r, "cannot enter Landlock's rules: %s", strerror(-r));
	close(ruleset);
	return r;
}

/*
 * gnomon-share: the files of one folder for one guest, in a process of its own (sandbox/child.h).
 * Its arguments are the folder and "ro" or "rw"; a message is one of 9P (share/).
 *
 * It holds the folder to what share/ promises a second time, with Landlock where the host's kernel
 * has it: nothing outside the folder can be opened, made or removed, whatever goes wrong in here.
 * It keeps the identity of whoever started it: the files are his.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/child.h"
#include "sandbox/sandbox.h"
#include "share/share.h"

#define READ_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)

/* All rights that this version of Landlock knows; 0: there is none. */
static uint64_t known_rights(void)
{
	long version =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (version < 1)
		return 0;
	uint64_t last = version == 1 ? LANDLOCK_ACCESS_FS_MAKE_SYM : LANDLOCK_ACCESS_FS_REFER;
	return (last << 1) - 1;
}

static int confine(int root, bool is_read_only, struct error *e)
{
	uint64_t all = known_rights();
	struct landlock_ruleset_attr rules = {.handled_access_fs = all};
	struct landlock_path_beneath_attr beneath = {
		.allowed_access = is_read_only ? READ_RIGHTS : all & ~LANDLOCK_ACCESS_FS_EXECUTE,
		.parent_fd = root};
	if (!all)
		return 0;
	int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules), 0);
	if (fd < 0 || syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_landlock_restrict_self, fd, 0))
		return error_set(e, -errno, "cannot confine itself to the folder: %s",
				 strerror(errno));
	close(fd);
	return 0;
}

static int give_up_privileges(struct error *e)
{
	/* openat() to make files, too: Landlock and share/ say where. */
	static const char *const calls[] = {
		"openat",   "newfstatat", "statx",     "fstatfs",    "getdents64",
		"pwrite64", "fcntl",	  "fsync",     "fdatasync",  "ftruncate",
		"fchmodat", "fchownat",	  "utimensat", "unlinkat",   "renameat",
		"linkat",   "symlinkat",  "mkdirat",   "readlinkat", NULL,
	};
	const struct sandbox s = {
		.name = "the shared folder", .calls = calls, .keeps_identity = true};
	return sandbox_enter(&s, e);
}

static int start(struct share **s, const char *folder, bool is_read_only, struct error *e)
{
	struct rlimit files;
	int root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return error_set(e, -errno, "cannot open folder '%s': %s", folder, strerror(errno));
	/* A guest holds a descriptor for each file that it remembers. */
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	umask(0); /* the guest has its own */
	int r = share_create(s, root, is_read_only, e);
	if (!r)
		r = confine(root, is_read_only, e);
	return r ? r : give_up_privileges(e);
}

static void serve(struct share *s)
{
	static uint8_t in[SHARE_MESSAGE_MAX], out[SHARE_MESSAGE_MAX];
	for (;;) {
		ssize_t n = recv(CHILD_FD, in, sizeof(in), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		size_t bytes = share_answer(s, in, (size_t)n, out);
		if (bytes && send(CHILD_FD, out, bytes, MSG_NOSIGNAL) < 0)
			return;
	}
}

int main(int argc, char **argv)
{
	struct share *s = NULL;
	struct error e = {0};
	child_begin();
	int r = argc == 3 ? start(&s, argv[1], !strcmp(argv[2], "ro"), &e)
			  : error_set(&e, -EINVAL, "started by hand");
	if (!child_say_started(r, &e))
		return 1;
	serve(s);
	return 0;
}

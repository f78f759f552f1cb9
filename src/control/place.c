#include "control/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX ".sock"
#define LOCK_TRIES 16

int control_check_name(const char *name, struct error *e)
{
	static const char legal[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t length = strlen(name);
	if (!length || length >= CONTROL_NAME_BYTES || name[0] == '.' || name[0] == '-' ||
	    strspn(name, legal) != length)
		return error_set(
			e, -EINVAL,
			"'%.80s' is no name for a machine: 1 to %d letters, digits, '.', '_' "
			"and '-', a letter, digit or '_' first",
			name, CONTROL_NAME_BYTES - 1);
	return 0;
}

/* Whoever may write in the folder could put a socket of his own there. */
static int check_folder(const char *path, struct error *e)
{
	struct stat st;
	if (lstat(path, &st))
		return error_set(e, -errno, "'%s': %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		return error_set(e, -EACCES,
				 "'%s' is not a folder that belongs to this user alone; remove it, "
				 "or set XDG_RUNTIME_DIR",
				 path);
	return 0;
}

int control_folder(char path[CONTROL_PATH_BYTES], bool is_made, struct error *e)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int n;
	if (runtime && runtime[0] == '/')
		n = snprintf(path, CONTROL_PATH_BYTES, "%s/gnomon", runtime);
	else
		n = snprintf(path, CONTROL_PATH_BYTES, "/tmp/gnomon-%u", (unsigned)geteuid());
	if (n >= CONTROL_PATH_BYTES)
		return error_set(e, -ENAMETOOLONG, "XDG_RUNTIME_DIR is too long for sockets");
	if (is_made && mkdir(path, 0700) && errno != EEXIST)
		return error_set(e, -errno, "cannot make '%s': %s", path, strerror(errno));
	return check_folder(path, e);
}

int control_find(const char *machine, char path[CONTROL_PATH_BYTES], bool is_made, struct error *e)
{
	char folder[CONTROL_PATH_BYTES];
	int n;
	if (strchr(machine, '/')) {
		n = snprintf(path, CONTROL_PATH_BYTES, "%s", machine);
	} else {
		int r = control_check_name(machine, e);
		if (!r)
			r = control_folder(folder, is_made, e);
		if (r)
			return r;
		n = snprintf(path, CONTROL_PATH_BYTES, "%s/%s" SUFFIX, folder, machine);
	}
	if (n >= CONTROL_PATH_BYTES)
		return error_set(e, -ENAMETOOLONG,
				 "'%s': a socket's path has at most %d characters", machine,
				 CONTROL_PATH_BYTES - 1);
	return 0;
}

static int is_socket_name(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name), suffix = strlen(SUFFIX);
	return entry->d_name[0] != '.' && length > suffix &&
	       !strcmp(entry->d_name + length - suffix, SUFFIX);
}

int control_list(void (*found)(void *opaque, const char *name, const char *path), void *opaque,
		 struct error *e)
{
	char folder[CONTROL_PATH_BYTES];
	struct dirent **entries;
	struct error ignored = {0};
	int r = control_folder(folder, false, &ignored);
	if (r == -ENOENT)
		return 0;
	if (r)
		return error_set(e, r, "%s", ignored.text);
	int count = scandir(folder, &entries, is_socket_name, alphasort);
	if (count < 0)
		return error_set(e, -errno, "'%s': %s", folder, strerror(errno));
	for (int i = 0; i < count; i++) {
		char path[CONTROL_PATH_BYTES];
		char *name = entries[i]->d_name;
		int n = snprintf(path, sizeof(path), "%s/%s", folder, name);
		name[strlen(name) - strlen(SUFFIX)] = 0;
		if (n < (int)sizeof(path) && !control_check_name(name, NULL))
			found(opaque, name, path);
		free(entries[i]);
	}
	free(entries);
	return 0;
}

static void lock_path(char out[CONTROL_PATH_BYTES + 8], const char *path)
{
	snprintf(out, CONTROL_PATH_BYTES + 8, "%s.lock", path);
}

/* Whoever leaves removes the lock's file while he holds it. Locked late it may be a file without a
 * name, which keeps nobody out: then another try. */
static bool is_file_at(int fd, const char *path)
{
	struct stat held, there;
	return !fstat(fd, &held) && !lstat(path, &there) && held.st_ino == there.st_ino &&
	       held.st_dev == there.st_dev;
}

static int lock(const char *path, struct error *e)
{
	char name[CONTROL_PATH_BYTES + 8];
	lock_path(name, path);
	for (unsigned i = 0; i < LOCK_TRIES; i++) {
		int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return error_set(e, -errno, "cannot make '%s': %s", name, strerror(errno));
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			close(fd);
			return error_set(e, -EADDRINUSE,
					 "a machine is running there ('%s'); choose another --name",
					 path);
		}
		if (is_file_at(fd, name))
			return fd;
		close(fd);
	}
	return error_set(e, -EADDRINUSE, "'%s' does not stay in place", name);
}

int control_take_place(const char *path, struct error *e)
{
	struct stat st;
	int fd = lock(path, e);
	if (fd < 0)
		return fd;
	int r = 0;
	if (!lstat(path, &st) && !S_ISSOCK(st.st_mode))
		r = error_set(e, -EEXIST, "'%s' is there and is no socket", path);
	else if (unlink(path) && errno != ENOENT)
		r = error_set(e, -errno, "cannot remove the old socket '%s': %s", path,
			      strerror(errno));
	if (!r)
		return fd;
	char name[CONTROL_PATH_BYTES + 8];
	lock_path(name, path);
	unlink(name);
	close(fd);
	return r;
}

void control_leave_place(const char *path, int lock)
{
	char name[CONTROL_PATH_BYTES + 8];
	if (lock < 0)
		return;
	lock_path(name, path);
	unlink(path);
	unlink(name);
	close(lock);
}

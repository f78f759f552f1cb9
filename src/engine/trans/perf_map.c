/*
 * --perf-map: /tmp/perf-PID.map, where perf looks for the names of generated code. A block's name
 * is its guest address and who runs it, so that `perf report` shows which guest code takes the
 * time. When the code cache is emptied addresses come again; perf takes the last name.
 */
#include <errno.h>
#include <unistd.h>

#include "engine/trans/trans_private.h"

int perf_map_open(struct trans *trans, struct error *e)
{
	char path[40];
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	trans->perf_map = fopen(path, "we");
	if (!trans->perf_map)
		return error_set(e, -errno, "--perf-map: cannot write %s: %s", path,
				 strerror(errno));
	setlinebuf(trans->perf_map);
	fprintf(trans->perf_map, "%llx %zx gnomon-thunks\n",
		(unsigned long long)(uintptr_t)trans->running, (size_t)4096);
	return 0;
}

void perf_map_close(struct trans *trans)
{
	if (trans->perf_map)
		fclose(trans->perf_map);
	trans->perf_map = NULL;
}

void perf_map_add(struct trans *trans, const struct translation *x)
{
	if (!trans->perf_map)
		return;
	fprintf(trans->perf_map, "%llx %x %s:%llx\n", (unsigned long long)(uintptr_t)x->code,
		x->code_bytes, x->mode == MMU_USER ? "user" : "kernel", (unsigned long long)x->rip);
}

/* What a session does with snapshots: its machine may come from one (--restore), and may be saved
 * as one at the guest's mark or after so many instructions (--snapshot). */
#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/session.h"
#include "snapshot/snapshot.h"

int session_restore(struct session *s, struct error *e)
{
	if (!s->options.restore)
		return 0;
	int r = snapshot_open(&s->restored, s->options.restore, e);
	if (r)
		return error_prefix(e, "--restore");
	snapshot_configure(s->restored, &s->options.vm);
	return 0;
}

static void save(void *opaque)
{
	struct session *s = opaque;
	const struct run_options *o = &s->options;
	struct error e = {0};
	char text[sizeof(e.text)];
	if (snapshot_save(s->vm, o->snapshot, o->snapshot_base, &e)) {
		error_prefix(&e, "--snapshot");
		vm_end(s->vm, VM_END_ERROR, 0, e.text);
		return;
	}
	s->is_saved = true;
	snprintf(text, sizeof(text), "the machine was saved to '%s'", o->snapshot);
	if (!o->snapshot_continue)
		vm_end(s->vm, VM_END_SAVED, 0, text);
	else if (!o->is_quiet)
		fprintf(s->say, "gnomon: %s after %llu instructions\n", text,
			(unsigned long long)vm_instructions(s->vm));
}

static void marked(void *opaque, uint32_t mark)
{
	struct session *s = opaque;
	if (mark == VM_MARK_BEGIN && !s->is_snapshot_asked)
		s->is_snapshot_asked = !vm_call_at(s->vm, 0, save, s);
}

int session_arm_snapshot(struct session *s, struct error *e)
{
	const struct run_options *o = &s->options;
	int r = 0;
	if (!o->snapshot)
		return 0;
	/* The usual case: what was changed since the snapshot that the run began from. */
	if (o->restore && o->snapshot_base && !strcmp(o->restore, o->snapshot_base))
		r = snapshot_track(s->vm, o->restore, e);
	if (r)
		return r;
	if (o->snapshot_at)
		r = vm_call_at(s->vm, o->snapshot_at, save, s);
	else
		r = vm_observe(s->vm, (struct vm_observer){.marked = marked, .opaque = s});
	return r ? error_set(e, r, "--snapshot: too many look at the machine already") : 0;
}

int session_check_snapshot(struct session *s)
{
	struct error e = {0};
	if (!s->options.snapshot || s->is_saved)
		return EXIT_CODE_OK;
	if (s->options.snapshot_at)
		error_set(&e, -ENOENT,
			  "--snapshot: nothing was saved; the run ended before instruction %llu",
			  (unsigned long long)s->options.snapshot_at);
	else
		error_set(&e, -ENOENT,
			  "--snapshot: nothing was saved; the guest set no mark 1 (gnomon(1) says "
			  "how; or --snapshot-at N)");
	return session_fail(s, &e);
}

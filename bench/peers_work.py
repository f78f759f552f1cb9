"""What bench/peers runs: the workloads, and the one folder of files that the guests and the host run them from.

A workload is a shell script that works with relative paths in that folder, under the folder's own busybox, so that the
host executes the very files that the guest has: static binaries, or dynamic ones with the folder's own loader and
libraries. What it prints must not depend on the machine; its MD5 is the checksum that is compared. What it needs and is
not measured (input files, removal of big ones) is prepared before the clock runs.

Sizes are chosen so that natively a workload takes 0.05 to 1 second of the reference machine's (2.5 GHz Xeon) and no more
than about 20 in QEMU's TCG.
"""
import os
import pathlib
import shutil
import subprocess
import tempfile

from common import ROOT, Failure, run_script

LOADER = 'peers/lib/ld-linux-x86-64.so.2 --library-path peers/lib'

# Package, and what of it lands in peers/lib (libraries) or peers (programs).
PACKAGES = {
    'libc6': ['ld-linux-x86-64.so.2', 'libc.so.6', 'libm.so.6', 'libdl.so.2', 'libpthread.so.0'],
    'libsqlite3-0': ['libsqlite3.so.0'],
    'libreadline8': ['libreadline.so.8'],
    'libtinfo6': ['libtinfo.so.6'],
    'zlib1g': ['libz.so.1'],
    'tcc': ['tcc'],
    'sqlite3': ['sqlite3'],
}

SCALES = {  # of `suite NAME SCALE`
    'chase64_16K': 60, 'chase64_2M': 9, 'chase64_64M': 2, 'chase4K_1M': 6, 'chase4K_16M': 12, 'chase4K_256M': 2,
    'chaseTHP_64M': 1, 'gups': 2, 'triad': 600, 'strops': 400, 'intloop': 350, 'sha256': 400, 'interp': 600, 'fib': 100,
    'icall': 700, 'qsort': 110, 'fploop': 800, 'nbody': 240, 'x87': 60, 'syscall': 80, 'ctxsw': 6, 'forkexec': 30,
    'fork': 30, 'pgfault': 30, 'mprotect': 26, 'sigsegv': 35, 'devzero': 500, 'tmpfile': 220, 'stat': 22, 'smc': 100,
    'jit': 170, 'atomic': 200,
}

BINARY_8M = 'for i in 1 2 3 4; do cat bin/busybox; done | head -c 8000000 >tmp/data'

PROGRAMS = {  # name: (preparation, what is measured)
    'md5sum': ('dd if=/dev/zero of=tmp/zeros bs=1M count=64', 'md5sum tmp/zeros'),
    'gzip': (f'rm -f tmp/zeros; {BINARY_8M}', 'gzip -c tmp/data | md5sum'),
    'bzip2': (BINARY_8M, 'bzip2 -c tmp/data | md5sum'),
    'tcc': ('rm -f tmp/data', f'for i in 1 2 3 4 5 6 7 8 9 10; do {LOADER} peers/tcc -c peers/many.c -o tmp/many.o\n'
            'md5sum tmp/many.o; done'),
    'sqlite': (':', f'{LOADER} peers/sqlite3 :memory: <peers/q1.sql'),
    'shloop': (':', 'i=0; sum=0; while [ $i -lt 200000 ]; do sum=$((sum ^ i * 7)) i=$((i + 1)); done; echo $i $sum'),
    'shfork': (':', 'i=0; while [ $i -lt 400 ]; do bin/busybox true; i=$((i + 1)); done; echo $i'),
}

NAMES = list(SCALES) + list(PROGRAMS)

# A Q1 of TPC-H in shape: one pass over a table that groups, sums and averages.
Q1 = """\
create table line(flag text, status text, quantity integer, price real, discount real, tax real, day integer);
with recursive n(i) as (select 0 union all select i + 1 from n where i < 199999)
insert into line select substr('ANR', 1 + i * 7 % 3, 1), substr('FO', 1 + i * 13 % 2, 1), 1 + i * 31 % 50,
  900.0 + i * 37 % 10000, (i * 11 % 11) / 100.0, (i * 17 % 9) / 100.0, i * 101 % 2500 from n;
select flag, status, sum(quantity), round(sum(price), 2), round(sum(price * (1 - discount)), 2),
  round(sum(price * (1 - discount) * (1 + tax)), 2), round(avg(quantity), 4), round(avg(discount), 6), count(*)
  from line where day <= 2400 group by flag, status order by flag, status;
"""

FUNCTION = """\
struct node{k} {{ struct node{k} *next; int key; long value; }};
static long walk{k}(struct node{k} *n, int key, long start)
{{
	long sum = start;
	while (n) {{
		if (n->key == key + {k})
			sum += n->value * {k};
		else if (n->key > key)
			sum ^= n->value >> ({k} & 15);
		else
			return sum - {k};
		n = n->next;
	}}
	for (int i = 0; i < key; i++)
		sum = sum * 31 + (i & {k});
	return sum;
}}
long call{k}(int key) {{ struct node{k} a = {{0, key, {k}}}, b = {{&a, key + {k}, 7}}; return walk{k}(&b, key, {k}); }}
"""

# Started by /init. A name comes from the console; preparation follows, and READY; the next line starts the work, and
# END says that it is done. The guest is idle at both places, so the host can read its clocks at leisure.
AGENT = """\
while read -r name; do
	bin/busybox sh peers/$name.prepare >/dev/null 2>&1
	echo "PEERS-""READY"
	read -r line
	read -r begin line </proc/uptime
	bin/busybox sh peers/$name.work >tmp/out 2>tmp/errors
	status=$?
	read -r end line </proc/uptime
	echo "PEERS-""END"
	read -r line
	set -- $(md5sum <tmp/out)
	echo "PEERS-""RESULT $status $1 $begin $end"
	head -n 4 tmp/errors
	echo "PEERS-""MORE"
done
"""


def command_of(name):
    return f'bin/suite {name} {SCALES[name]}' if name in SCALES else PROGRAMS[name][1]


def preparation_of(name):
    return ':' if name in SCALES else PROGRAMS[name][0]


def cache_folder():
    return pathlib.Path(os.environ.get('GNOMON_CACHE', ROOT / 'build/guests'))


def take_packages(folder):
    """Fetches what PACKAGES names, once, and copies it into peers/."""
    for package, files in PACKAGES.items():
        unpacked = cache_folder() / 'peers' / package
        if not unpacked.exists():
            with tempfile.TemporaryDirectory(dir=ensured(cache_folder() / 'peers')) as part:
                run_script(ROOT / 'scripts/fetch-package', 'amd64', package, pathlib.Path(part) / package)
                (pathlib.Path(part) / package).rename(unpacked)
        for name in files:
            found = [p for p in sorted(unpacked.rglob(name)) if p.is_file()]
            if not found:
                raise Failure(f'no {name} in the package {package}; remove {unpacked} to fetch it again')
            target = folder / 'peers' / ('lib' if '.so' in name else '') / name
            shutil.copy(os.path.realpath(found[0]), target)
            target.chmod(0o755)


def ensured(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_files(folder, names):
    """What the guest gets besides busybox and the suite."""
    ensured(folder / 'peers/lib')
    if set(names) & {'tcc', 'sqlite'}:
        take_packages(folder)
    (folder / 'peers/many.c').write_text(''.join(FUNCTION.format(k=k) for k in range(1, 801)))
    (folder / 'peers/q1.sql').write_text(Q1)
    (folder / 'peers/agent').write_text(AGENT)
    for name in names:
        (folder / f'peers/{name}.work').write_text(command_of(name) + '\n')
        (folder / f'peers/{name}.prepare').write_text(preparation_of(name) + '\n')


def make_guest(folder, suite, names):
    """Writes `folder`/initramfs.cpio and unpacks it into `folder`/root, where the host runs the work."""
    make_files(ensured(folder / 'files'), names)
    archive = folder / 'initramfs.cpio'
    run_script(ROOT / 'scripts/make-initramfs', archive, '--add', suite, '--tree', folder / 'files')
    with open(archive, 'rb') as f:
        done = subprocess.run(['cpio', '-id', '--quiet', '--no-absolute-filenames'], stdin=f, cwd=ensured(folder / 'root'))
    if done.returncode:
        raise Failure('cpio cannot unpack the initramfs')
    return archive, folder / 'root'

"""What the runners of tests/guest and tests/cli share: one run of gnomon, judged; results as lines for ./bootstrap check.

A run never may end by a signal, by a sanitizer's report or not at all: that is a failure whatever else was expected.
"""
import json
import os
import pathlib
import re
import subprocess
import threading
import time

EXIT_OF_END = {
    'poweroff': 0, 'error': 1, 'usage': 2, 'panic': 3, 'triple': 4, 'reset': 5, 'halted': 6, 'limit': 124,
}
SANITIZER = re.compile(r'(ERROR: AddressSanitizer|runtime error:|LeakSanitizer)[^\n]*')
SANITIZER_ENV = {
    'ASAN_OPTIONS': 'detect_leaks=1:abort_on_error=0:exitcode=99',
    'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1:exitcode=99',
}


class Outcome:
    def __init__(self, code, out, err, seconds, timed_out, peak_mib):
        self.code, self.out, self.err = code, out, err
        self.seconds, self.timed_out, self.peak_mib = seconds, timed_out, peak_mib

    def both(self):
        return self.out + '\n' + self.err

    def broken(self):
        """Why this run is a failure whatever was expected of it; None if it is sound."""
        if self.timed_out:
            return f'hangs: killed after {self.seconds:.0f} s'
        if self.code < 0:
            return f'killed by signal {-self.code}'
        found = SANITIZER.search(self.both())
        if found:
            return found[0]
        return None


ASSEMBLING = threading.Lock()


def assemble(source, folder):
    """An ELF32 Multiboot image; assembled as 64-bit objects so that one file can hold code of every mode. One that is there
    already is taken: several tests at a time may want it."""
    base = folder / source.stem
    with ASSEMBLING:
        if not pathlib.Path(f'{base}.elf').exists():
            build(source, base)
    return pathlib.Path(f'{base}.elf')


def build(source, base):
    subprocess.run(['gcc', '-m64', '-c', '-Wa,--fatal-warnings', '-o', f'{base}.o', source], check=True)
    subprocess.run(['ld', '-m', 'elf_x86_64', '-N', '--no-warn-rwx-segments', '-Ttext=0x100000', '-e', 'start',
                    '-o', f'{base}.elf64', f'{base}.o'], check=True)
    subprocess.run(['objcopy', '-O', 'elf32-i386', f'{base}.elf64', f'{base}.elf.part'], check=True)
    os.replace(f'{base}.elf.part', f'{base}.elf')


class Process(subprocess.Popen):
    """One of which is known, when it has ended, how much memory was resident at most."""
    peak_mib = 0

    def _try_wait(self, wait_flags):
        try:
            pid, status, usage = os.wait4(self.pid, wait_flags)
        except ChildProcessError:
            return self.pid, 0
        self.peak_mib = usage.ru_maxrss / 1024
        return pid, status


def run(command, limit_seconds, stdin=b'', preexec_fn=None):
    env = dict(os.environ, **SANITIZER_ENV)
    start = time.monotonic()
    process = Process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                      preexec_fn=preexec_fn)
    timed_out = False
    try:
        out, err = process.communicate(stdin, timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        timed_out = True
    text = [b.decode('utf-8', 'replace').replace('\r', '') for b in (out, err)]
    return Outcome(process.returncode, text[0], text[1], time.monotonic() - start, timed_out, process.peak_mib)


class Kvm:
    """What this host's /dev/kvm can do, by gnomon's own self-test."""

    def __init__(self, gnomon):
        outcome = run([gnomon, 'exits', '--self-test', '--format', 'json'], 60)
        test = json.loads(outcome.out)['self_test']
        self.passed = {c['name'] for c in test['checks'] if c['passed']}
        self.is_fit = test['passed']
        self.why = ', '.join(c['name'] for c in test['checks'] if not c['passed']) or test['reason']

    def lacks(self, source):
        """Why an image cannot run here; None if it can. An image says what it needs in a line `KVM: long mode, HLT`; one that
        says nothing needs a KVM that can do everything."""
        found = re.search(r'^/\* KVM: (.*?) \*/', source.read_text(), re.M)
        if self.is_fit:
            return None
        if not self.passed or not found:
            return self.why
        missing = [need for need in found[1].split(', ') if need not in self.passed]
        return ', '.join(missing) if missing else None


class Report:
    """Prints results as they come, one whole line at a time."""

    def __init__(self):
        self.lock = threading.Lock()
        self.failed = 0
        self.lines = 0

    def exit_code(self, only=None):
        """Of a runner that ran what has `only` in its name: to have run nothing is no success."""
        if only and not self.lines:
            self.fail(only, '--only: no test has that in its name')
        return 1 if self.failed else 0

    def ok(self, name, seconds=None):
        self.line(f'ok {name}' + (f' ({seconds:.1f} s)' if seconds is not None else ''))

    def skip(self, name, why):
        self.line(f'skip {name}: {why}')

    def fail(self, name, why, outcome=None, lines=12):
        detail = []
        if outcome:
            tail = (outcome.out[-3000:].splitlines()[-lines:], outcome.err[-3000:].splitlines()[-lines:])
            detail = ['    stdout: ' + t for t in tail[0]] + ['    stderr: ' + t for t in tail[1]]
        self.failed += 1
        self.line('\n'.join([f'not ok {name}: {why}'] + detail))

    def line(self, text):
        with self.lock:
            self.lines += 1
            print(text, flush=True)


def in_parallel(jobs, work):
    """Runs the functions of `work` on `jobs` threads, in order of the list."""
    queue, lock = list(work), threading.Lock()

    def worker():
        while True:
            with lock:
                if not queue:
                    return
                job = queue.pop(0)
            job()

    threads = [threading.Thread(target=worker) for _ in range(jobs)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()

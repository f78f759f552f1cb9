"""A virtual machine that runs the workloads of bench/peers: what bench/peers and bench/hot share."""
import os
import pathlib
import re
import select
import subprocess
import tempfile
import time

from common import Failure

INIT_MARK = 'GNOMON-INIT'
COMMAND_LINE = 'console=ttyS0 quiet panic=-1 gnomon.run="bin/busybox sh peers/agent"'


def gnomon_command(program, kernel, archive, *more):
    return [program, 'run', '--kernel', kernel, '--initrd', archive, '--append', COMMAND_LINE, '--memory', '512M',
            '--clock', 'real', '--serial', 'stdio', *more]


def cpu_seconds_of(pid):
    """The CPU time of another process, all threads, in nanoseconds' resolution: Linux's clock for it, as
    clock_getcpuclockid() makes it."""
    return time.clock_gettime((~pid << 3) | 2)


class Guest:
    """One virtual machine that is up and takes workloads from its console."""

    def __init__(self, name, command, limit_seconds):
        self.name, self.limit = name, limit_seconds
        self.seen, self.at = '', 0
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors)

    def boot(self):
        """CPU seconds from the start of the program to /init's first line."""
        self.wait_for(INIT_MARK)
        return cpu_seconds_of(self.process.pid)

    def wait_for(self, mark):
        """Reads the console up to a line that begins with `mark` and returns that line."""
        end = time.monotonic() + self.limit
        pattern = re.compile(rf'{mark}([^\n]*)\n')
        while True:
            found = pattern.search(self.seen, self.at)
            if found:
                self.at = found.end()
                return found[1].strip()
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise Failure(f'no {mark} within {self.limit} s')
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise Failure(f'ended with exit code {self.process.wait()} before {mark}')
            self.seen += data.decode('utf-8', 'replace').replace('\r', '')

    def send(self, line):
        try:
            self.process.stdin.write(line.encode() + b'\n')
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # wait_for() says how it ended

    def run(self, name):
        self.send(name)
        self.wait_for('PEERS-READY')
        begin = cpu_seconds_of(self.process.pid)
        self.send('')
        self.wait_for('PEERS-END')
        seconds = cpu_seconds_of(self.process.pid) - begin
        self.send('')
        status, checksum, guest_begin, guest_end = self.wait_for('PEERS-RESULT').split()
        start = self.at
        self.wait_for('PEERS-MORE')
        if status != '0':
            raise Failure(f'in the guest {name} ended with {status}: {self.seen[start:self.at - 11].strip()}')
        return {'seconds': seconds, 'checksum': checksum, 'guest_seconds': float(guest_end) - float(guest_begin)}

    def peak_rss_mib(self):
        text = pathlib.Path(f'/proc/{self.process.pid}/status').read_text()
        return int(re.search(r'VmHWM:\s*(\d+)', text)[1]) / 1024

    def why(self):
        self.errors.seek(0)
        lines = self.errors.read().decode('utf-8', 'replace').splitlines() + self.seen.splitlines()
        return '\n'.join(f'    {line}' for line in lines[-12:])

    def stop(self):
        self.process.kill()
        self.process.wait()
        for f in (self.process.stdin, self.process.stdout, self.errors):
            try:
                f.close()
            except BrokenPipeError:
                pass

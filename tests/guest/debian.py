"""A Debian system in a machine: the image that scripts/make-debian-image makes, booted, and reached by ssh.

tests/guest/system and bench/system share it. Each machine works on a copy of the image (sparse, and shared with the original
where the host's file system can), so that none sees what another did.
"""
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(os.environ.get('GNOMON_CACHE', ROOT / 'build/guests'))


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def find_image():
    """The image's path without its suffix, made once; or None with the reason."""
    base = CACHE / 'debian/system'
    if not all(base.with_suffix(s).exists() for s in ('.img', '.vmlinuz', '.initrd.img', '.key')):
        done = subprocess.run([ROOT / 'scripts/make-debian-image', base.with_suffix('.img')], capture_output=True, text=True)
        if done.returncode:
            return None, (done.stderr.strip().splitlines() or ['make-debian-image failed'])[-1]
    return base, None


class Machine:
    """One that runs: `command` gets the image's parts and the port that leads to its sshd."""

    def __init__(self, name, base, folder, command, disk=None):
        self.name, self.base = name, base
        self.port = free_port()
        self.disk = disk or folder / f'{name}.img'
        if not disk:
            subprocess.run(['cp', '--sparse=always', '--reflink=auto', base.with_suffix('.img'), self.disk], check=True)
        self.console = ''
        self.start = time.monotonic()
        self.process = subprocess.Popen(command(self), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while chunk := os.read(self.process.stdout.fileno(), 1 << 16):
            self.console += chunk.decode('utf-8', 'replace').replace('\r', '')

    def wait_for(self, pattern, seconds):
        """True once the console shows it; False if it does not in time, or the machine ends before."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.console):
            if time.monotonic() > end or (self.process.poll() is not None and not self.reader.is_alive()):
                return False
            time.sleep(0.1)
        return True

    def ssh(self, command, seconds=120):
        """The finished process; its code is 255 when nobody answered."""
        arguments = ['ssh', '-q', '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'BatchMode=yes',
                     '-o', 'ConnectTimeout=30', '-i', self.base.with_suffix('.key'), '-p', str(self.port), 'root@127.0.0.1',
                     command]
        try:
            return subprocess.run(arguments, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as e:
            return subprocess.CompletedProcess(arguments, 255, (e.stdout or b'').decode(), f'no answer in {seconds} s')

    def wait_for_ssh(self, seconds):
        """True once sshd answers."""
        end = time.monotonic() + seconds
        while self.ssh('true').returncode == 255:
            if time.monotonic() > end or self.process.poll() is not None:
                return False
            time.sleep(1)
        return True

    def end(self, seconds=90):
        """Waits until it ends by itself; its exit code, None if it has to be killed."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self.reader.join(5)
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self.reader.join(5)

    def cpu_seconds(self):
        """User and system time of the process and those it started."""
        ticks = os.sysconf('SC_CLK_TCK')
        numbers = [self.process.pid]
        for task in pathlib.Path(f'/proc/{self.process.pid}/task').iterdir():
            numbers += (task / 'children').read_text().split()
        total = 0
        for number in numbers:
            fields = pathlib.Path(f'/proc/{number}/stat').read_text().rsplit(')', 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / ticks


def gnomon(program, engine, *extra):
    """The command of a machine in gnomon."""
    return lambda m: [program, 'run', '--engine', engine, '--clock', 'real', '--memory', '1G',
                      '--kernel', m.base.with_suffix('.vmlinuz'), '--initrd', m.base.with_suffix('.initrd.img'),
                      '--disk', m.disk, '--append', 'root=/dev/vda console=ttyS0',
                      '--net', f'user,hostfwd=tcp::{m.port}-:22', *extra]


def qemu(m):
    """The same machine in QEMU's TCG."""
    return ['qemu-system-x86_64', '-machine', 'q35', '-accel', 'tcg', '-cpu', 'max', '-m', '1G', '-nographic', '-no-reboot',
            '-kernel', m.base.with_suffix('.vmlinuz'), '-initrd', m.base.with_suffix('.initrd.img'),
            '-append', 'root=/dev/vda console=ttyS0', '-drive', f'file={m.disk},format=raw,if=virtio',
            '-netdev', f'user,id=n,hostfwd=tcp:127.0.0.1:{m.port}-:22', '-device', 'virtio-net-pci,netdev=n']

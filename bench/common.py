"""What the programs of bench/ share: where things are, packages that may be missing, running a script of the tree."""
import argparse
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Failure(Exception):
    """What ends a measurement or one machine's part in it, with its reason."""


def say(text):
    print(f'bench/{pathlib.Path(sys.argv[0]).name}: {text}', file=sys.stderr, flush=True)


def missing_packages(needs):
    """The packages of those (package, path or program) pairs that are not here."""
    def is_here(what):
        return what.exists() if isinstance(what, pathlib.Path) else shutil.which(what) is not None
    return [package for package, what in needs if not is_here(what)]


def first_line(command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return (done.stdout.strip().splitlines() or [''])[0]


def run_script(*command):
    """The output of a program of the tree, which must end well; its complaints go to our standard error."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failure(f'{pathlib.Path(command[0]).name} failed with {done.returncode}')
    return done.stdout.strip()


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is not at least 1')
    return value

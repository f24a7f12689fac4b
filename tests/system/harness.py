"""What the cases share: registration, checks, and the places of programs, stores and scratch files."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

import tiny_model

CASES = []  # (name, function), in the order in which they run


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def case(name):
    def register(function):
        CASES.append((name, function))
        return function

    return register


def check(condition, message):
    if not condition:
        raise Failure(message)


def check_equal(got, wanted, what):
    check(got == wanted, f"{what} is {got!r}, not {wanted!r}")


def wait_until(condition, seconds, what, pause=0.02):
    """The condition's first true value; Failure after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < end, f"{what}: not within {seconds} s")
        time.sleep(pause)


def patient(seconds):
    """A limit that the programs promise, longer on a machine that has more to do than it has cores for."""
    return seconds * max(1.0, min(4.0, os.getloadavg()[0] / os.cpu_count()))


class Context:
    def __init__(self, arguments):
        self.bin = pathlib.Path(arguments.bin).resolve()
        self.plugin = pathlib.Path(arguments.plugin).resolve() if arguments.plugin else None
        self.store = pathlib.Path(arguments.store).resolve() if arguments.store else None
        self.llama = pathlib.Path(arguments.llama).resolve()
        self.model = pathlib.Path(arguments.model).resolve() if arguments.model else None
        self.tests = pathlib.Path(arguments.tests).resolve() if arguments.tests else None
        self.verbose = arguments.verbose
        # Short: the path of a Unix socket has 107 bytes.
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="talaria-system-", dir="/tmp"))
        self.at_end = []  # functions
        self.shared = {}  # what several cases use, by name
        self._counter = 0

    def folder(self):
        """A fresh folder."""
        self._counter += 1
        path = self.scratch / str(self._counter)
        path.mkdir(mode=0o700)
        return path

    def program(self, name):
        return str(self.bin / name)

    def run(self, *command, timeout=120, **options):
        """A program to its end: (exit code, stdout, stderr)."""
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            **options,
        )
        return done.returncode, done.stdout, done.stderr

    @functools.cached_property
    def tiny(self):
        """(GGUF file, store) of the tiny model."""
        gguf, store = self.scratch / "tiny.gguf", self.scratch / "tiny.store"
        tiny_model.write(gguf)
        code, _, errors = self.run(self.program("talaria-cloud"), "provision", gguf, store)
        check(code == 0, f"provisioning the tiny model ended with {code}: {errors[-500:]}")
        return gguf, store

    def close(self):
        for function in reversed(self.at_end):
            function()
        shutil.rmtree(self.scratch, ignore_errors=True)


def run_cases(context, only):
    passed = failed = skipped = 0
    for name, function in CASES:
        if only and not re.search(only, name):
            continue
        began = time.monotonic()
        try:
            detail = function(context) or ""
            passed += 1
            print(f"passed  {name} ({time.monotonic() - began:.1f} s){': ' + detail if detail else ''}", flush=True)
        except Skip as e:
            skipped += 1
            print(f"skipped {name}: {e}", flush=True)
        except Exception as e:  # a case must not end the others
            failed += 1
            print(
                f"FAILED  {name} ({time.monotonic() - began:.1f} s): {e if isinstance(e, Failure) else repr(e)}",
                flush=True,
            )
            if not isinstance(e, Failure) or context.verbose:
                traceback.print_exc(file=sys.stdout)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 1 if failed else 0

#!/usr/bin/env python3
"""Tests marked SINGLE_THREADED, which are not run under the thread sanitizer, link nothing that could start a thread.

usage: single_threaded_test.py PROGRAM_WITH_THREADS PROGRAM...
"""

import re
import subprocess
import sys

STARTS_A_THREAD = re.compile(r"pthread_create|thrd_create|_M_start_thread")
# What may be linked at run time; anything else could start threads of its own.
LIBRARIES = re.compile(r"lib(c|m|stdc\+\+|gcc_s|crypto|ssl)\.so\.|ld-linux")


def reasons(program):
    undefined = subprocess.run(["nm", "-D", "-u", program], check=True, capture_output=True, text=True).stdout
    dynamic = subprocess.run(["readelf", "-d", program], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    return [line.strip() for line in undefined.splitlines() if STARTS_A_THREAD.search(line)] + [
        library for library in libraries if not LIBRARIES.match(library)
    ]


def main():
    control, programs = sys.argv[1], sys.argv[2:]
    failures = [f"{program} is SINGLE_THREADED in its CMakeLists.txt but links {reason}" for program in programs for reason in reasons(program)]
    if not reasons(control):
        failures.append(f"{control} seems to start no thread: this test would prove nothing")
    if not programs:
        failures.append("no program was given")
    for failure in failures:
        print("FAILED:", failure)
    print(f"{len(programs)} programs checked, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""What the types forbid does not compile: must_not_compile_test.py COMPILER SOURCE_DIR CASE.cc...

Every case is compiled twice: as it is, which must succeed (or the case would prove nothing), and with
TALARIA_FORBIDDEN defined, which must fail with the message that its line `// expects: REGEX` names.
"""
import re
import subprocess
import sys


def compile_case(compiler, source_dir, case, *flags):
    command = [compiler, "-std=c++20", "-fsyntax-only", "-I", source_dir, *flags, case]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def main(compiler, source_dir, *cases):
    failed = 0
    for case in cases:
        with open(case, encoding="utf-8") as file:
            expected = re.search(r"^// expects: (.+)$", file.read(), re.MULTILINE).group(1)
        allowed = compile_case(compiler, source_dir, case)
        forbidden = compile_case(compiler, source_dir, case, "-DTALARIA_FORBIDDEN")
        if allowed.returncode != 0:
            verdict = "the control does not compile:\n" + allowed.stderr
        elif forbidden.returncode == 0:
            verdict = "compiles"
        elif not re.search(expected, forbidden.stderr):
            verdict = f"fails for another reason than '{expected}':\n" + forbidden.stderr
        else:
            verdict = ""
        failed += verdict != ""
        print(f"{'FAILED' if verdict else 'ok    '} {case.rsplit('/', 1)[-1]} {verdict}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

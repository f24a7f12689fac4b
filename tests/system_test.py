#!/usr/bin/env python3
"""Tests the real processes together: talaria-cloud, talaria-cvm with llama-server as its child, and clients of its API.

Faults come from signals, from a proxy between CVM and cloud, and from damaged files.

usage: system_test.py --bin DIR --store STORE [--plugin FILE] [--tests DIR] [--only REGEX] [--list] [--verbose]

Prints one line a case, and at the end `N passed, M failed`. STORE is the demo model's (tests/system/store.py makes it);
most cases use a tiny random model of their own, whose set-up takes a second. Python 3.11 and util-linux, nothing else.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "system"))

import harness  # noqa: E402

# In the order in which they run: what uses the demo model's CVM comes first, and last what ends it.
import cases_answers  # noqa: E402,F401
import cases_cloud_lost  # noqa: E402,F401
import cases_lies  # noqa: E402,F401
import cases_attested  # noqa: E402,F401
import cases_fail_closed  # noqa: E402,F401
import cases_receipts  # noqa: E402,F401
import cases_strangers  # noqa: E402,F401
import cases_waiting  # noqa: E402,F401
import cases_secrecy  # noqa: E402,F401
import cases_secrecy_attested  # noqa: E402,F401
import cases_rows  # noqa: E402,F401
import cases_start  # noqa: E402,F401
import cases_store  # noqa: E402,F401
import cases_end  # noqa: E402,F401
from store import from_setup  # noqa: E402


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bin", required=True, help="the folder of the programs")
    parser.add_argument("--store", required=True, help="the demo model's store")
    parser.add_argument("--plugin", help="libggml-talaria.so; default: where talaria-cvm looks for it")
    parser.add_argument("--tests", help="the folder of the tests' own programs; without it, cases that need one are skipped")
    parser.add_argument("--only", help="cases whose name has this regular expression")
    parser.add_argument("--list", action="store_true", help="print the cases' names")
    parser.add_argument("--verbose", action="store_true", help="where a check failed, too")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(name for name, _ in harness.CASES))
        return 0
    arguments.model, arguments.llama = from_setup("--print-model"), from_setup("--print-llama-dir")
    context = harness.Context(arguments)
    try:
        return harness.run_cases(context, arguments.only)
    finally:
        context.close()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""talaria-bench as far as a tiny model goes: every row is there, on the channel that was asked for, and says which; compare's exit codes.
No time is judged.

usage: bench_test.py BIN_DIR

What is checked of the channel is what talaria-cloud says in its own log, not what talaria-bench claims.
"""

import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "system"))

import tiny_model  # noqa: E402
from harness import patient, wait_until  # noqa: E402

WRONG_USAGE = 2
ROWS = {"decode", "prompt", "decode, burst", "prompt, burst", "first token"}


def check(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


class Bench:
    def __init__(self, folder):
        self.program, self.folder = pathlib.Path(sys.argv[1]).resolve() / "talaria-bench", folder
        self.model = folder / "tiny.gguf"
        tiny_model.write(self.model)

    def run(self, *arguments):
        command = [str(part) for part in (self.program, *arguments)]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)

    def end_to_end(self, name, *arguments):
        """(table, JSON, the cloud's log)"""
        work, out = self.folder / name, self.folder / f"{name}.json"
        done = self.run("end-to-end", "--model", self.model, "--store", self.folder / "store", "--pairs", 1, "--pool-batches", 1,
                        "--prompt", 64, "--work", work, "--json", out, *arguments)
        check(done.returncode == 0, f"{name} ended with {done.returncode}: {done.stderr[-800:]}")
        return done.stdout, json.loads(out.read_text()), (work / "cloud.log").read_text()


def attested_and_streams(bench):
    table, result, log = bench.end_to_end("default", "--streams", 2)
    streams = {"2 parallel streams", "2 streams' prompts"}
    check(set(result["workloads"]) == ROWS | streams, f"the rows are {sorted(result['workloads'])}")
    check((result["channel"], result["plaintext"], result["tee"]) == ("unix", False, "simulated"), "the default channel is not the product's")
    check("TLS 1.3, attested" in table and "PLAINTEXT" not in table, "the table does not say that its channel is attested")
    check("CVMs pin this key" in log and "PLAINTEXT" not in log, "the cloud did not serve attested TLS")
    for name, row in result["workloads"].items():
        check(row["ratio"]["median"] > 0 and row["cvm_cpu_ratio"]["median"] > 0, f"{name} measured nothing: {row}")
        check(row["round_trips_per_token"] > 0, f"{name} did not go through the cloud: {row}")
        check("spread" in row["ratio"] and "spread" in row["cvm_cpu_ratio"], f"{name} has no spread")
        check(f"\n{name} " in table, f"{name} is not in the table")
    # Two streams' tokens share their calls, so there are fewer calls than a token has alone.
    alone, together = (result["workloads"][name]["round_trips_per_token"] for name in ("decode", "2 parallel streams"))
    check(together < 0.75 * alone, f"a token of two streams has {together} calls, one alone {alone}")


def plaintext_is_marked(bench):
    table, result, log = bench.end_to_end("plaintext", "--streams", 0, "--channel", "tcp", "--plaintext")
    check(set(result["workloads"]) == ROWS, f"the rows are {sorted(result['workloads'])}")
    check((result["channel"], result["plaintext"]) == ("tcp", True), "the JSON does not say that it is plaintext")
    check("PLAINTEXT: for analysis" in table, "the table does not say that it is plaintext")
    check("PLAINTEXT" in log and "127.0.0.1:" in log, "the cloud did not serve plaintext on TCP")


def wrong_usage(bench):
    for arguments, word in ((("end-to-end", "--channel", "ring"), "ring"), (("layer", "--shape", "9b"), "9b"), (("end-to-end", "--streams", "65"), "65"),
                            (("goals", "--only", "speed"), "speed")):
        done = bench.run(*arguments)
        check(done.returncode == WRONG_USAGE, f"{arguments} ended with {done.returncode}")
        check(word in done.stderr and arguments[1] in done.stderr, f"{arguments} said {done.stderr!r}")


def goals(bench):
    """Each row that a tiny model has, by exit code, JSON and table; what was not asked for is not measured."""
    out = bench.folder / "goals.json"
    done = bench.run("goals", "--quick", "--model", bench.model, "--store", bench.folder / "store", "--pool-batches", 1, "--json", out,
                     "--only", "decode", "cpu", "streams", "online", "provision", "setup", "memory", "--without", "cpu/prompt")
    rows = json.loads(out.read_text())["goals"]
    check(set(rows) == {"decode/same-host", "decode/unix", "decode/tcp", "streams", "cpu/decode", "online", "provision", "setup", "memory"},
          f"the rows are {sorted(rows)}: {done.stderr[-800:]}")
    for name, row in rows.items():
        numbers = [value["median"] for value in row.values() if isinstance(value, dict)]
        check(len(numbers) == 1 and numbers[0] > 0, f"{name} measured nothing: {row} {done.stderr[-800:]}")
        reached = numbers[0] >= row["reach"] if row["better"] == "higher" else numbers[0] <= row["reach"]
        check((row["verdict"] == "NOT REACHED") == (not reached), f"{name} is judged wrongly: {row}")
        check(f"\n{name} " in done.stdout, f"{name} is not in the table")
    # Two layers of (128 + 384) + (128 + 128) + (128 + 512) + (256 + 128), and the head's 128 + 320.
    check("4032 elements a token" in rows["online"]["detail"], f"other elements: {rows['online']}")
    missed = any(row["verdict"] == "NOT REACHED" for row in rows.values())
    check(done.returncode == (1 if missed else 0), f"goals ended with {done.returncode}: {done.stdout} {done.stderr[-800:]}")
    again = bench.run("compare", out, out)
    check(again.returncode == 2 and "goals/decode/unix/ratio" in again.stdout, f"compare: {again.stdout} {again.stderr}")


def compared(bench):
    """What compare says of real files, by its exit code. Seven pairs are claimed, not run: the rule is tested in bench/compare_test.cc."""
    one = bench.folder / "plaintext.json"
    result = json.loads(one.read_text()) | {"pairs": 7}
    files = {}
    for name, factor, channel in (("same", 1, "tcp"), ("worse", 0.8, "tcp"), ("other", 1, "unix")):
        changed = json.loads(json.dumps(result)) | {"channel": channel}
        ratio = changed["workloads"]["decode"]["ratio"]
        changed["workloads"]["decode"]["ratio"] = {key: value * factor for key, value in ratio.items()}
        files[name] = bench.folder / f"{name}.json"
        files[name].write_text(json.dumps(changed))
    for before, after, code, word in (("same", "same", 0, "No regression"), ("same", "worse", 1, "WORSE"), ("worse", "same", 0, "better"),
                                      ("same", "other", 2, "channel: tcp and unix")):
        done = bench.run("compare", files[before], files[after])
        check(done.returncode == code and word in done.stdout + done.stderr, f"compare {before} {after}: {done.returncode}, {done.stdout} {done.stderr}")
    (bench.folder / "no.json").write_text("{}")
    for second in (one, bench.folder / "no.json", bench.folder / "absent.json"):
        check(bench.run("compare", one, second).returncode == 2, f"compare with {second.name} did not end with 2")
    again = bench.run("compare", one, "--json", "--store", bench.folder / "store")
    check(again.returncode == 2 and not json.loads(again.stdout)["judged"], f"measuring again: {again.stdout} {again.stderr}")
    check("--plaintext" in again.stderr and len(json.loads(again.stdout)["changes"]) > 20, "it did not measure the same again")


def analysis(bench):
    out = bench.folder / "scaling.json"
    done = bench.run("scaling", "--quick", "--runs", 1, "--only", "wire", "--json", out)
    check(done.returncode == 0 and "6 bytes an element" in done.stdout, f"scaling: {done.stderr}")
    check(json.loads(out.read_text())["scaling"]["wire"]["4096"]["up_bytes"]["median"] == 21 + 6 * 4096, "the wire's bytes are wrong")
    for arguments, word in ((("scaling", "--only", "heat"), "heat"), (("plan", "--shape", "9b"), "9b"), (("plan",), "--shape")):
        done = bench.run(*arguments)
        check(done.returncode == WRONG_USAGE and word in done.stderr, f"{arguments} ended with {done.returncode}: {done.stderr!r}")


def descendants(pid):
    """{pid: name}"""
    parents = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = entry.read_text().split(" (", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, fields = rest.rsplit(") ", 1)
        parents[int(number)] = (int(fields.split()[1]), name)
    found, new = {}, {pid}
    while new:
        new = {child for child, (parent, _) in parents.items() if parent in new}
        found |= {child: parents[child][1] for child in new}
    return found


def ends_with_its_children(bench):
    """However talaria-bench ends, nothing that it started runs on. Orphans become this process's children, so none is overlooked."""
    pr_set_child_subreaper = 36
    check(ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1) == 0, "prctl")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        work = bench.folder / number.name
        command = [bench.program, "end-to-end", "--model", bench.model, "--store", bench.folder / "store", "--pool-batches", "1", "--work", work,
                   "--pairs", "1000"]
        errors = bench.folder / f"{number.name}.err"
        # Where the tests run in the background, SIGINT is ignored.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(errors, "wb"),
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

        def in_the_cvm():
            check(process.poll() is None, f"it ended with {process.returncode}: {errors.read_text()[-800:]}")
            inside = [descendants(pid) for pid, name in descendants(process.pid).items() if name == "talaria-cvm-lab"]
            return any("llama-bench" in names.values() for names in inside)

        wait_until(in_the_cvm, patient(60), "llama-bench runs in the CVM")
        check("talaria-cloud" in descendants(process.pid).values(), "there is no cloud")
        process.send_signal(number)
        check(process.wait(patient(30)) == -number, f"{number.name} ended it with {process.returncode}")

        def nobody_left():
            while descendants(os.getpid()):
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return False
            return True

        try:
            wait_until(nobody_left, patient(30), f"nothing runs on after {number.name}")
        finally:
            for pid in descendants(os.getpid()):
                os.kill(pid, signal.SIGKILL)


def main():
    with tempfile.TemporaryDirectory(prefix="talaria-bench-test-", dir="/tmp") as folder:
        bench = Bench(pathlib.Path(folder))
        for part in (wrong_usage, attested_and_streams, plaintext_is_marked, goals, compared, analysis,
                     ends_with_its_children):
            part(bench)
            print(f"passed {part.__name__}", flush=True)


if __name__ == "__main__":
    main()

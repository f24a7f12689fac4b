#!/usr/bin/env python3
"""32 connections to one cloud: 28 that replay recorded masked rows with known answers, 4 real CVMs, and clients that misbehave beside them.

usage: connections_test.py BIN_DIR

Every answer is right and nobody who behaves is thrown out. Times are printed, never judged.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "system"))
sys.dont_write_bytecode = True
import tiny_model  # noqa: E402

CONNECTIONS, CVMS, SECONDS, TIMEOUT = 32, 4, 2, 240


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


def measure(bin_dir, folder, *arguments):
    command = [bin_dir / "talaria-bench", "connections", "--store", folder / "store", "--json", folder / "result.json", "--work", folder / "work",
               "--connections", str(CONNECTIONS), "--seconds", str(SECONDS), *arguments]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT)
    print(run.stdout)
    check(run.returncode == 0, f"talaria-bench: {run.returncode}: {run.stderr[-2000:]}")
    result = json.loads((folder / "result.json").read_text())
    # What was replayed is what a cloud recorded of a CVM: a prompt and an answer, every group of them.
    calls = [json.loads(line) for line in (folder / "work/recorded/cloud/calls.jsonl").read_text().splitlines()]
    check(result["recorded_rows"] == sum(call["rows"] for call in calls) > 0, f"recorded rows: {result['recorded_rows']}")
    check({call["group"] for call in calls} == set(range(1 + max(call["group"] for call in calls))), "a group was not recorded")
    check({call["connection"] for call in calls} and min(call["rows"] for call in calls) == 1 < max(call["rows"] for call in calls), "calls")
    return result["parts"]


def check_part(name, part, cvms):
    replayed, cloud = part["replayed"], part["cloud"]
    check(replayed["calls"] > 0 and replayed["wrong"] == 0 and replayed["lost_connections"] == [], f"{name}: {replayed}")
    check(part["cvm_answers"] >= cvms and part["cvm_wrong"] == 0 and part["cvm_failed"] == [], f"{name}: {part}")
    check(cloud["requests"] >= replayed["calls"] and cloud["products"] > 0, f"{name}: the cloud says {cloud}")


def main():
    bin_dir = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tiny_model.write(folder / "tiny.gguf")
        subprocess.run([bin_dir / "talaria-cloud", "provision", folder / "tiny.gguf", folder / "store"], check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        parts = measure(bin_dir, folder, "--cvms", str(CVMS), "--misbehave")
        check(list(parts) == sorted(["one", "many", "with-cvms", "misbehaviour"]), f"parts: {list(parts)}")
        for name, part in parts.items():
            check_part(name, part, part["cvms"])
        check(parts["misbehaviour"]["replaying"] == CONNECTIONS - CVMS and parts["misbehaviour"]["cvms"] == CVMS, "connections")
        # They did misbehave.
        for what, count in parts["misbehaviour"]["misbehaviour"].items():
            check(count > 0, f"{what}: {count}")
        # Requests met in products, and with a window, too.
        many = parts["many"]["cloud"]
        check(many["products"] < many["requests"], f"nothing was merged: {many}")
        window = measure(bin_dir, folder, "--batch-window-us", "300")["many"]
        check_part("window", window, 0)
    print("every answer was right")


main()

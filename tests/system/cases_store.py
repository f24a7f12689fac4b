"""Provisioning that fails or is interrupted leaves nothing; damaged stores and models are refused."""

import os
import pathlib
import random
import re
import shutil
import signal
import struct
import time

from harness import case, check, check_equal, patient, wait_until
from processes import Cloud, Cvm, Process, await_gone, descendants, identity_of
from proxy import Proxy

WRONG_USAGE, REFUSED, NO_RESOURCES, SESSION_ENDED, STOPPED = 2, 3, 4, 6, 130


def handles_signals(process):
    """Whether the program's own handlers of SIGINT and SIGTERM are there."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)
    return all(caught >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM))


@case("provisioning stopped by SIGINT, SIGTERM or SIGKILL leaves no store; a later run removes what SIGKILL left")
def interrupted(context):
    source = random.Random(7)
    left = 0
    # In the beginning, where llama.cpp reads the graph, and while the store is written.
    for number, writing in [(n, w) for w in (False, True) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)]:
        folder = context.folder()
        parent = folder / "stores"
        parent.mkdir()
        store = parent / "store"
        run = Process(
            [context.program("talaria-cloud"), "provision", context.model, store], folder / "out", folder / "err"
        )
        try:
            wait_until(lambda: not run.running() or handles_signals(run), 30, "provisioning begins")
            if writing:
                wait_until(lambda: not run.running() or os.listdir(parent), 60, "writing begins")
            time.sleep(source.uniform(0, 1))
            check(run.running(), f"it was over before the signal: {run.errors()[-300:]}")
            children = descendants(run.pid)
            run.send(number)
            check_equal(
                run.wait(patient(10)),
                -number if number == signal.SIGKILL else STOPPED,
                f"the exit code after signal {number}",
            )
            await_gone(children)
        finally:
            run.end()
        check(not store.exists(), f"signal {number} left a store")
        names = os.listdir(parent)
        if number != signal.SIGKILL:
            check_equal(names, [], f"what signal {number} left")
            continue
        check(all(re.fullmatch(r"store\.partial-\d+", name) for name in names), f"SIGKILL left {names}")
        left += len(names)
        code, _, errors = context.run(context.program("talaria-cloud"), "provision", context.tiny[0], store)
        check_equal(code, 0, f"the exit code of the run after SIGKILL ({errors[-300:]})")
        check_equal(os.listdir(parent), ["store"], "the folder after it")
        check_equal(identity_of(store), identity_of(context.tiny[1]), "the identity")
    return f"SIGKILL left {left} partial folders"


@case("a full disk, or a limit on file sizes, ends provisioning with code 4 and leaves nothing")
def full_disk(context):
    for limit in (100_000, 400_000, 20_000_000):
        parent = context.folder()
        code, _, errors = context.run(
            "prlimit",
            f"--fsize={limit}",
            context.program("talaria-cloud"),
            "provision",
            context.tiny[0],
            parent / "store",
        )
        check_equal(code, NO_RESOURCES, f"the exit code with files of {limit} bytes at most ({errors[-300:]})")
        check_equal(os.listdir(parent), [], "what is left")
    # A disk of its own, in a mount namespace that ends with the command.
    disk = context.folder()
    script = (
        f"mount -t tmpfs -o size=24m none {disk} || exit 99; "
        f"{context.program('talaria-cloud')} provision {context.tiny[0]} {disk}/store; code=$?; ls -A {disk}; exit $code"
    )
    options = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    code, out, errors = context.run("unshare", *options, "sh", "-c", script)
    if code in (1, 99) and "talaria-cloud" not in errors:
        return "(no mount namespace here, so without a full disk)"
    check_equal(code, NO_RESOURCES, f"the exit code on a full disk ({errors[-300:]})")
    check_equal(out, "", "what is left on the full disk")
    check(re.search(r"needs \d+ MB .* has \d+ MB free", errors), f"no numbers in: {errors[-300:]}")
    return errors.strip().splitlines()[-1].partition("error: ")[2]


def flip(name, place):
    """place: a fraction of the file, or an offset."""

    def damage(store):
        with open(store / name, "r+b") as file:
            size = os.path.getsize(store / name)
            at = int(size * place) if isinstance(place, float) else place
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    return damage


def truncate(name):
    return lambda store: os.truncate(store / name, os.path.getsize(store / name) - 1)


def append(name):
    def damage(store):
        with open(store / name, "ab") as file:
            file.write(b"\n")

    return damage


def remove(name):
    return lambda store: os.unlink(store / name)


FILES = ["hints.bin", "weights.gguf", "scales.bin", "skeleton.gguf"]
DAMAGES = [
    (name, f"{what} {name}", damage(name))
    for name in FILES
    for what, damage in (("truncated", truncate), ("longer", append), ("missing", remove))
]
DAMAGES += [(name, f"one bit of {name}", flip(name, 0.5)) for name in FILES if name != "skeleton.gguf"]
DAMAGES += [
    ("skeleton.gguf", "one bit of skeleton.gguf's head", flip("skeleton.gguf", 100)),
    ("weights.gguf", "one bit of weights.gguf's head", flip("weights.gguf", 100)),
    ("skeleton.gguf", "a hole that is not empty", flip("skeleton.gguf", 0.6)),
    ("manifest", "truncated manifest.json", truncate("manifest.json")),
    ("manifest", "longer manifest.json", append("manifest.json")),
]

NOT_SENT = ["a hole that is not empty", "one bit of weights.gguf's head"]  # so a CVM cannot be harmed by them


@case("a damaged store: verify refuses it with code 3 and names the file; serve refuses it or the CVM does")
def damaged_stores(context):
    refused_by_serve = 0
    for file, what, damage in DAMAGES:
        folder = context.folder()
        store = folder / "store"
        context.run("cp", "-r", "--sparse=always", context.tiny[1], store)
        identity = identity_of(store)
        damage(store)
        code, _, errors = context.run(context.program("talaria-cloud"), "verify", store)
        check(code == REFUSED and file in errors, f"verify, {what}: {code}, {errors[-300:]}")
        cloud = Cloud(context, store, folder)
        proxy = None
        try:
            wait_until(lambda: cloud.socket.exists() or not cloud.running(), 30, "the cloud starts or ends")
            if cloud.running():
                proxy = Proxy(folder / "proxy.sock", cloud.socket)
                cvm = Cvm(context, folder, proxy.endpoint, identity)
                try:
                    if what in NOT_SENT:
                        cvm.await_ready()
                    else:
                        check_equal(cvm.wait(patient(20)), SESSION_ENDED, f"{what}: the CVM's exit code")
                finally:
                    cvm.end()
            else:
                refused_by_serve += 1
                check(
                    cloud.wait() == REFUSED and file in cloud.errors(),
                    f"serve, {what}: {cloud.wait()}, {cloud.errors()[-300:]}",
                )
        finally:
            cloud.end()
            if proxy:
                proxy.close()
        shutil.rmtree(folder)
    folder = context.folder()
    for what, store in (("an empty folder", folder), ("no folder", folder / "nowhere")):
        for command in (
            ["verify", store],
            ["serve", store, "--listen", f"unix:{folder}/s", "--insecure-simulated-tee", "--insecure-plaintext"],
        ):
            code, _, errors = context.run(context.program("talaria-cloud"), *command)
            check(code in (WRONG_USAGE, REFUSED) and str(store) in errors, f"{command[0]} of {what}: {code}, {errors}")
    return f"{len(DAMAGES)} damages, {refused_by_serve} refused by serve"


@case("garbage, truncated and impossible GGUF files are refused with code 3, and nothing is left")
def bad_models(context):
    good = context.tiny[0].read_bytes()
    source = random.Random(3)
    data = good.index(b"blk.1.ffn_down.weight")
    nan = bytearray(good)
    nan[-1000:-996] = struct.pack("<f", float("nan"))
    bad = {
        "empty": b"",
        "text": b"This is not a model.\n" * 100,
        "noise": source.randbytes(100_000),
        "magic and noise": good[:8] + source.randbytes(100_000),
        "another version": good[:4] + struct.pack("<I", 99) + good[8:],
        "2^60 tensors": good[:8] + struct.pack("<Q", 2**60) + good[16:],
        "2^60 keys": good[:16] + struct.pack("<Q", 2**60) + good[24:],
        "head cut": good[:300],
        "names cut": good[: data + 5],
        "data cut in half": good[: len(good) // 2],
        "last byte cut": good[:-1],
        "a tensor of 2^40 columns": good[: data + 25] + struct.pack("<Q", 2**40) + good[data + 33 :],
        "not a number": bytes(nan),
    }
    for what, content in bad.items():
        folder = context.folder()
        (folder / "bad.gguf").write_bytes(content)
        code, _, errors = context.run(
            context.program("talaria-cloud"), "provision", folder / "bad.gguf", folder / "store"
        )
        check(code == REFUSED, f"{what}: {code}, {errors[-300:]}")
        check(" error: " in errors, f"{what}: nothing was said")
        check_equal(os.listdir(folder), ["bad.gguf"], f"{what}: the folder")
    for what, command in (
        ("no model", [context.scratch / "nowhere.gguf", context.scratch / "new"]),
        ("a store that exists", [context.tiny[0], context.tiny[1]]),
        ("no parent", [context.tiny[0], context.scratch / "nowhere/store"]),
    ):
        code, _, errors = context.run(context.program("talaria-cloud"), "provision", *command)
        check(code == WRONG_USAGE, f"{what}: {code}, {errors[-300:]}")
    return f"{len(bad)} files"

#!/usr/bin/env python3
"""scripts/test-gpu as somebody with a GPU meets it, on a machine without one.

usage: gpu_bundle_test.py SCRIPT FAKE_LIBRARY

A bundle is small, runs elsewhere with an empty environment, passes its self-check, and says with exit code 5 that there is no GPU.
With the library over a fake CUDA runtime in the place of the real one, every step of the GPU's part but the figures runs too, on one
GPU and on two.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

MOST_BYTES = 30e6
PASSED, USAGE, UNAVAILABLE = 0, 2, 5


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


def run(*command, environment=None):
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, env=environment)
    return done.returncode, done.stdout + done.stderr


def main():
    script, fake = sys.argv[1:3]
    empty = {"PATH": "/usr/bin:/bin"}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        code, said = run(script, "--bundle", folder / "made", "--parts", environment=dict(os.environ))
        check(code == PASSED, said)
        code, said = run(script, "--bundle", folder / "made", environment=dict(os.environ))
        check(code == USAGE and "is not empty" in said, said)
        size = sum(f.stat().st_size for f in (folder / "made").rglob("*"))
        check(size < MOST_BYTES, f"{size} bytes")
        check((folder / "made/tiny.gguf").stat().st_size < 30e6, "the model is too large")
        # From its parts, at another place.
        parts = sorted(folder.glob("made.tar.gz.*"))
        check(parts and all(p.stat().st_size <= 50_000_000 for p in parts), "parts of 50 MB")
        (folder / "there").mkdir()
        subprocess.run(["tar", "xzC", folder / "there"], input=b"".join(p.read_bytes() for p in parts), check=True)
        shutil.rmtree(folder / "made")
        bundle = folder / "there/made"
        code, said = run(bundle / "test-gpu", "--cpu", environment=empty)
        check(code == PASSED and "PASS serve --device cpu" in said, said)
        print(f"{size / 1e6:.0f} MB in {len(parts)} parts; the processor's part passed")
        if not pathlib.Path("/dev/nvidiactl").exists():
            code, said = run(bundle / "test-gpu", "--quick", environment=empty)
            check(code == UNAVAILABLE and "no GPU can be used on this machine" in said, said)
        shutil.copy(fake, bundle / "lib/libtalaria-cuda.so")
        code, said = run(bundle / "test-gpu", "--quick", "--streams", "2", environment=empty)
        check(code == PASSED, said)
        steps = ("suite of every device, cuda+cuda", "the stores of both devices are the same bytes", "serve --device cuda, streams: 2, the same logits",
                 "connections --device cuda")
        for line in ("suite of every device, cuda\n", *steps):
            check("PASS " + line in said, said)
        two = {**empty, "TALARIA_FAKE_CUDA": "gpus=2"}
        code, said = run(bundle / "test-gpu", "--quick", "--streams", "2", environment=two)
        check(code == PASSED and "PASS suite of every device, cuda:all" in said and "PASS serve --device cuda:all, streams: 2" in said, said)
        wrong = {**empty, "TALARIA_FAKE_CUDA": "wrong"}
        code, said = run(bundle / "test-gpu", "--quick", "--streams", "1", environment=wrong)
        check(code == 1 and "FAIL suite of every device, cuda" in said, said)
    print("passed")


if __name__ == "__main__":
    main()

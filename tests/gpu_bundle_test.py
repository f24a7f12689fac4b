#!/usr/bin/env python3
"""scripts/test-gpu as somebody with a GPU meets it, on a machine without one.

usage: gpu_bundle_test.py SCRIPT FAKE_LIBRARY

A bundle is small, runs elsewhere with an empty environment, passes its self-check, and says with exit code 5 that there is no GPU.
With the library over a fake CUDA runtime in the place of the real one, every step of the GPU's part runs too, on one GPU of two and on both, with
a model of the user's beside the small one; of the figures those of a tiny matrix. A GPU that never answers costs its own steps alone.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "system"))
sys.dont_write_bytecode = True
import tiny_model  # noqa: E402

MOST_BYTES = 30e6
PASSED, FAILED, USAGE, UNAVAILABLE = 0, 1, 2, 5


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
        model = folder / "other.gguf"
        tiny_model.write(model)
        for bad in (["--model", folder / "none.gguf"], ["--model"], ["--minutes", "soon"], ["--streams", "all"], ["--parts"], ["--nonsense"]):
            code, said = run(script, *bad, environment=dict(os.environ))
            check(code == USAGE and "test-gpu: " in said, f"{bad}: {code} {said}")
        code, said = run(script, "--bundle", folder / "made", "--parts", "--model", model, environment=dict(os.environ))
        check(code == PASSED, said)
        code, said = run(script, "--bundle", folder / "made", environment=dict(os.environ))
        check(code == USAGE and "is not empty" in said, said)
        size = sum(f.stat().st_size for f in (folder / "made").rglob("*") if f.parent.name != "models")
        check(size < MOST_BYTES, f"{size} bytes")
        check((folder / "made/models/other.gguf").read_bytes() == model.read_bytes(), "the model is in the bundle")
        # From its parts, at another place; the model comes by itself.
        parts = sorted(folder.glob("made.tar.gz.*"))
        check(parts and all(p.stat().st_size <= 50_000_000 for p in parts), "parts of 50 MB")
        (folder / "there").mkdir()
        subprocess.run(["tar", "xzC", folder / "there"], input=b"".join(p.read_bytes() for p in parts), check=True)
        shutil.rmtree(folder / "made")
        bundle = folder / "there/made"
        check(list((bundle / "models").iterdir()) == [], "no model is in the bundle's own parts")
        (bundle / "models/other.gguf").write_bytes(b"".join(p.read_bytes() for p in sorted(folder.glob("made.other.gguf.*"))))
        check((bundle / "models/other.gguf").read_bytes() == model.read_bytes(), "the model came in parts")
        code, said = run(bundle / "test-gpu", "--cpu", environment=empty)
        for line in ("serve --device cpu, streams: 1, the small model", "provision --device cpu, other", "serve --device cpu, streams: 8, other"):
            check(code == PASSED and "PASS " + line in said, said)
        print(f"{size / 1e6:.0f} MB in {len(parts)} parts; the processor's part passed")
        if not pathlib.Path("/dev/nvidiactl").exists():
            code, said = run(bundle / "test-gpu", "--quick", "--streams", "1", environment=empty)
            check(code == UNAVAILABLE and "no GPU can be used on this machine" in said, said)
        shutil.copy(fake, bundle / "lib/libtalaria-cuda.so")
        two = {**empty, "TALARIA_FAKE_CUDA": "gpus=2"}
        code, said = run(bundle / "test-gpu", "--quick", "--streams", "2", environment=two)
        check(code == PASSED, said)
        for line in (
            "suite of every device, cuda\n", "suite of every device, cuda+cuda", "suite of every device, cuda:all", "figures: tiny",
            "connections --device cuda", "the stores of both devices are the same bytes, the small model",
            "serve --device cuda, streams: 1, the small model, the same logits", "serve --device cuda:all, streams: 2, the small model, the same logits",
            "the stores of both devices are the same bytes, other", "serve --device cuda:all, streams: 2, other, the same logits",
        ):
            check("PASS " + line in said, said)
        (bundle / "models/other.gguf").unlink()
        wrong = {**empty, "TALARIA_FAKE_CUDA": "wrong"}
        code, said = run(bundle / "test-gpu", "--quick", "--streams", "1", environment=wrong)
        check(code == FAILED and "FAIL suite of every device, cuda" in said and "FAIL figures: tiny" in said, said)
        hung = {**empty, "TALARIA_FAKE_CUDA": "hang"}
        begun = time.monotonic()
        code, said = run(bundle / "test-gpu", "--quick", "--minutes", "1.5", environment=hung)
        check(code == FAILED and "FAIL suite of every device, cuda (not done in time" in said, said)
        check("PASS serve --device cpu, streams: 1" in said and "FAIL connections --device cuda (not done in time" in said, said)
        check(time.monotonic() - begun < 150, said)
    print("passed")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The library for GPUs as it is built, on a machine that need not have one.

usage: gpu_library_test.py BIN_DIR [LIBRARY]

It exports its C interface and nothing else, and needs no CUDA installation. Where there is no driver, the programs that load it
say so and what to do, with exit code 5, and --device auto serves with the processor. Without LIBRARY (a build without nvcc) the
test is skipped (exit code 77).
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "system"))
sys.dont_write_bytecode = True
import tiny_model  # noqa: E402

SKIPPED, UNAVAILABLE = 77, 5
EXPORTS = {
    "talaria_cuda_" + name
    for name in (
        "abi count create destroy describe add_weights remove_weights set_columns max_rows multiply measure".split()
    )
}
SYSTEM = r"(libc|libm|libdl|librt|libpthread|ld-linux-x86-64|libstdc\+\+|libgcc_s)\.so\.\d+"


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


def run(*command, **kwargs):
    return subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, **kwargs)


def check_library(library):
    lines = run("nm", "-D", "--defined-only", library).stdout.splitlines()
    exported = {line.split()[-1].split("@")[0] for line in lines}
    check(exported == EXPORTS, f"exported: {sorted(exported ^ EXPORTS)}")
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", library).stdout)
    foreign = [name for name in needed if not re.fullmatch(SYSTEM, name)]
    check(needed and not foreign, f"the library needs {foreign}")
    print(f"exports {len(exported)} functions, needs {', '.join(needed)}, {pathlib.Path(library).stat().st_size / 1e6:.1f} MB")


def has_driver():
    return "libcuda.so.1" in run("ldconfig", "-p").stdout or pathlib.Path("/dev/nvidiactl").exists()


def check_refusals(program, library, folder):
    tiny_model.write(folder / "tiny.gguf")
    environment = {"TALARIA_CUDA_LIBRARY": str(library), "PATH": "/usr/bin:/bin"}
    store = folder / "store"
    refused = run(program, "provision", folder / "tiny.gguf", store, "--device", "cuda", env=environment)
    check(refused.returncode == UNAVAILABLE, f"provision --device cuda: {refused.returncode} {refused.stderr}")
    check(not store.exists(), "provision left a store behind")
    made = run(program, "provision", folder / "tiny.gguf", store, env=environment)
    check(made.returncode == 0, f"provision --device auto: {made.stderr}")
    serve = [program, "serve", store, "--listen", f"unix:{folder}/s", "--insecure-simulated-tee", "--insecure-plaintext"]
    refused = run(*serve, "--device", "cuda", env=environment)
    check(refused.returncode == UNAVAILABLE, f"serve --device cuda: exit code {refused.returncode}")
    for part in ("no NVIDIA driver (libcuda.so.1) on this machine", "install one for CUDA 13", "--gpus all", "use --device cpu"):
        check(part in refused.stderr, f"'{part}' is not in: {refused.stderr}")
    print(refused.stderr.strip().splitlines()[-1])
    served = subprocess.Popen([str(c) for c in serve], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not (folder / "s").exists() and served.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    served.terminate()
    log = served.communicate(timeout=60)[1]
    check("products run on the processor" in log and "serving" in log, f"serve --device auto: {log}")
    missing = run(*serve, "--device", "cuda", env={**environment, "TALARIA_CUDA_LIBRARY": f"{folder}/none.so"})
    check(missing.returncode == UNAVAILABLE and "none.so" in missing.stderr, f"a missing library: {missing.stderr}")


def main():
    if len(sys.argv) < 3:
        print("skipped: this build has no library for GPUs; where nvcc is, configure with the preset cuda")
        return SKIPPED
    bin_dir, library = map(pathlib.Path, sys.argv[1:3])
    check_library(library)
    if has_driver():
        print("this machine has an NVIDIA driver: scripts/test-gpu tests more")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        check_refusals(bin_dir / "talaria-cloud", library, pathlib.Path(folder))
    print("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

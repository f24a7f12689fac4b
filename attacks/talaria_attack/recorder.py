"""Makes recordings (doc/recording.md) with the laboratory's programs, over the real protocol."""
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

PROGRAMS = ("talaria-cloud", "talaria-cloud-lab", "talaria-cvm-lab", "talaria-lab-runner")
_MEMORY_OF_A_RECORDING = 4.5e9  # SmolLM2-135M: hints 2.5 GB, a batch of masks a group 0.5, weights 0.3, llama.cpp


class Recorder:
    def __init__(self, programs, store, work):
        self.programs, self.store, self.work = Path(programs), Path(store), Path(work)

    def record(self, name, scheme, m, groups, runner, keep=lambda folder: None):
        """WORK/name, made now, or found if it was made for the same command. `keep` may thin it out. ValueError, OSError."""
        folder = self.work / name
        wish = {"scheme": scheme, "m": m, "groups": sorted(groups), "runner": [str(r) for r in runner], "store": _identity(self.store)}
        made = folder / "made.json"
        if made.exists():
            found = json.loads(made.read_text())
            if found["wish"] != wish:
                raise ValueError(f"{folder} is a recording of something else (another store, text or option); remove it, or use another --work")
            return folder
        part = self.work / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        started = time.monotonic()
        self._run(part, scheme, m, groups, runner)
        keep(part)
        (part / "made.json").write_text(json.dumps({"wish": wish, "seconds": round(time.monotonic() - started, 1)}) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        return folder

    def _run(self, folder, scheme, m, groups, runner):
        socket = self.work / f"{folder.name}.sock"
        socket.unlink(missing_ok=True)
        common = ["--scheme", scheme, "--record", folder, "--groups", ",".join(map(str, sorted(groups)))] + (["--m", m] if m else [])
        logs = [self.work / f"{folder.name}.{side}.log" for side in ("cloud", "cvm")]
        with open(logs[0], "wb") as log:
            cloud = subprocess.Popen([self.programs / "talaria-cloud-lab", "serve", self.store, "--listen", f"unix:{socket}", "--threads", "1", *common],
                                     stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while not socket.exists():
                if cloud.poll() is not None:
                    raise ValueError(f"talaria-cloud-lab ended with {cloud.returncode}: {_last_line(logs[0])}")
                time.sleep(0.05)
            with open(logs[1], "wb") as log:
                code = subprocess.run([self.programs / "talaria-cvm-lab", "run", "--cloud", f"unix:{socket}", *common, "--pool-batches", "1", "--stats",
                                       self.work / f"{folder.name}.stats.json", "--", "talaria-lab-runner", *runner],
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode
            if code != 0:
                raise ValueError(f"talaria-cvm-lab ended with {code}: {_last_line(logs[1])} (all of it: {logs[1]})")
        finally:
            cloud.terminate()
            try:
                ended = cloud.wait(60)
            except subprocess.TimeoutExpired:
                cloud.kill()
                ended = cloud.wait()
        if ended != 0:
            raise ValueError(f"talaria-cloud-lab ended with {ended}: {_last_line(logs[0])}")
        (self.work / f"{folder.name}.stats.json").rename(folder / "stats.json")
        for path in (*logs, socket):
            path.unlink(missing_ok=True)


def provision(programs, model, store):
    """The store of a GGUF model. ValueError."""
    if not Path(model).is_file():
        raise ValueError(f"there is no model {model}; run scripts/setup, or name another with --model")
    run = subprocess.run([Path(programs) / "talaria-cloud", "provision", model, store], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise ValueError(f"talaria-cloud provision ended with {run.returncode}: {(run.stderr.strip().splitlines() or [''])[-1]}")


def check_programs(programs):
    missing = [p for p in PROGRAMS if not os.access(Path(programs) / p, os.X_OK)]
    if missing:
        raise ValueError(f"{programs} has no {', '.join(missing)}; build them: cmake --preset release && cmake --build build/release "
                         f"--target {' '.join(PROGRAMS)} ggml-talaria; or name their folder with --programs")


def check_store(store):
    for name in ("manifest.json", "hints.bin", "skeleton.gguf", "weights.gguf"):
        if not (Path(store) / name).is_file():
            raise ValueError(f"{store} is not a store: it has no {name}; talaria-cloud provision makes one")


def check_disk(folder, needed):
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(f"{folder} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed; name another folder with --work")


def jobs_that_fit(wanted):
    """Recordings at once that the memory allows. ValueError when there is none."""
    available = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
    if available < _MEMORY_OF_A_RECORDING:
        raise ValueError(f"{available / 1e9:.1f} GB of memory are available, and a recording needs {_MEMORY_OF_A_RECORDING / 1e9:.1f}")
    return min(wanted, int(available / _MEMORY_OF_A_RECORDING))


def _identity(store):
    import hashlib
    return hashlib.sha256((Path(store) / "manifest.json").read_bytes()).hexdigest()


def _last_line(log):
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"

#!/usr/bin/env python3
"""Nothing is assumed of a model but what its graph says: every architecture that llama.cpp's test-llama-archs writes.

usage: architectures_test.py BIN_DIR TEST_DIR PRELOAD PLUGIN LLAMA_DIR [--few|--chain]

Each dense model is provisioned, served by talaria-cloud and run masked by talaria-model-check, which compares every product with
its definition and shows that no wrong matrix would pass. Some architectures come again in other quantisations, made by llama.cpp's
quantiser. Mixtures of experts must be refused with the reason, and leave nothing behind. The perplexity of models with random
weights says nothing: it is printed, not judged. --few is for builds with sanitizers; --chain runs three models and one
mixture only, so that every run of the sanitizers sees the whole chain.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

MIN_ARCHITECTURES, MIN_TYPES, MIN_MUTATED, MIN_REFUSED = 20, 5, 3, 3
# The models are 256 wide, some matrices less.
MIN_DIMENSION = 16
REFUSED_EXIT_CODE = 3
SEED, CONTROL_SEED = 1, 2

# Test models with experts in their name whose graph chooses none: llama.cpp builds these architectures without.
DENSE_BY_GRAPH = {"ernie4_5-moe", "paddleocr-moe", "refact-moe"}
# Of these, K types need widths that are multiples of 256; where a matrix has none, llama.cpp takes another type.
QUANTISED = [("llama", "q4_0"), ("phi3", "q4_1"), ("gpt2", "q5_0"), ("mamba", "q5_1"), ("qwen2", "q8_0"), ("jamba", "q2_K"), ("cohere2", "q3_K"),
             ("gemma2", "q4_K"), ("qwen35", "q5_K"), ("llama", "q6_K"), ("falcon", "iq4_nl"), ("smollm3", "iq4_xs"), ("stablelm", "f16"),
             ("olmo2", "bf16")]
FEW = ["llama", "mistral3", "qwen2", "qwen3", "qwen35", "phi2", "phi3", "gemma2", "gemma3", "gpt2", "gptneox", "falcon", "falcon-h1", "bloom", "mpt",
       "starcoder2", "stablelm", "command-r", "cohere2", "olmo2", "granite", "mamba", "mamba2", "jamba", "exaone4", "smollm3",
       "qwen3moe", "olmoe"]
CHAIN = ["llama", "mamba", "qwen35", "qwen3moe"]
FEW_QUANTISED = [("llama", "q4_0"), ("phi3", "q4_1"), ("mamba", "q8_0"), ("gemma2", "q4_K"), ("llama", "q6_K"), ("olmo2", "bf16")]


class Failed(Exception):
    pass


class Refused(Exception):
    pass


def last_line(text):
    lines = [line for line in text.strip().splitlines() if line]
    return lines[-1] if lines else "no output"


class Test:
    def __init__(self, arguments, folder):
        self.arguments = arguments
        self.folder = folder
        self.models = folder / "models"
        self.lock = threading.Lock()
        self.passed = self.failed = self.refused = self.mutated = 0
        self.architectures, self.types = set(), {}

    def make_models(self, to, expression, seed):
        to.mkdir()
        llama = self.arguments.llama_dir
        # The program is linked without a back end; the preloaded library loads one before main().
        environment = dict(os.environ, LD_PRELOAD=str(self.arguments.preload), TALARIA_TEST_CPU_BACKEND=f"{llama}/bin/libggml-cpu.so")
        command = [f"{llama}/bin/test-llama-archs", "-o", str(to), "-s", str(seed)] + (["-a", expression] if expression else [])
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def requantise(self, source, target, kind):
        environment = dict(os.environ, TALARIA_LLAMA_DIR=str(self.arguments.llama_dir))
        run = subprocess.run([self.arguments.test_dir / "talaria-requantise", source, target, kind], env=environment, capture_output=True, text=True)
        if run.returncode != 0:
            raise Failed(f"cannot be written as {kind}: {last_line(run.stderr)}")

    def provision(self, model, store):
        run = subprocess.run([self.arguments.bin_dir / "talaria-cloud", "provision", model, store, "--min-dimension", str(MIN_DIMENSION), "--threads", "1",
                              "--llama-backend-dir", f"{self.arguments.llama_dir}/bin"], capture_output=True, text=True)
        if run.returncode == REFUSED_EXIT_CODE:
            if any(store.parent.iterdir()):
                raise Failed("refused, and left something behind")
            raise Refused(last_line(run.stderr).split("error: ")[-1])
        if run.returncode != 0:
            raise Failed(f"provision ended with {run.returncode}: {last_line(run.stderr)}")

    def check(self, source, store):
        """The exit code and the report of talaria-model-check, with the store served by a talaria-cloud of its own."""
        socket = store.parent / "cloud"
        log = open(store.parent / "cloud.log", "w")
        cloud = subprocess.Popen([self.arguments.bin_dir / "talaria-cloud", "serve", store, "--listen", f"unix:{socket}", "--threads", "1",
                                  "--insecure-simulated-tee", "--insecure-plaintext"], stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while not socket.exists():
                if cloud.poll() is not None or time.monotonic() > end:
                    raise Failed("the cloud does not come up: " + last_line((store.parent / "cloud.log").read_text()))
                time.sleep(0.01)
            run = subprocess.run([self.arguments.test_dir / "talaria-model-check", source, store, "--cloud", f"unix:{socket}", "--plugin", self.arguments.plugin,
                                  "--llama-dir", self.arguments.llama_dir, "--mutations", "--json"], capture_output=True, text=True, timeout=300)
            if not run.stdout.startswith("{"):
                raise Failed(f"model-check ended with {run.returncode}: {last_line(run.stderr)}")
            return run.returncode, json.loads(run.stdout)
        finally:
            cloud.terminate()
            cloud.wait()
            log.close()

    def checked(self, model, source=None):
        work = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        try:
            self.provision(model, work / "store")
            return self.check(source or model, work / "store")
        finally:
            shutil.rmtree(work)

    def say(self, ok, name, text):
        with self.lock:
            self.passed += ok
            self.failed += not ok
            print(f"{'ok    ' if ok else 'FAILED'} {name:22} {text}", flush=True)

    def dense(self, model):
        try:
            code, report = self.checked(model)
            if code != 0 or not report["ok"]:
                raise Failed(f"{len(report['faults'])} faults: " + "; ".join(report["faults"][:4]))
        except Refused as reason:
            return self.say(False, model.stem, f"a dense model, refused: {reason}")
        except (Failed, subprocess.TimeoutExpired) as error:
            return self.say(False, model.stem, str(error))
        types = report["source_types"]
        with self.lock:
            self.architectures.add(report["architecture"])
            self.mutated += report["mutations"] > 0
            for kind, count in types.items():
                self.types[kind] = self.types.get(kind, 0) + count
        self.say(True, model.stem,
                 f"{report['architecture']}: {report['matrices']:3} matrices ({', '.join(types)}) in {report['groups']:2} groups, {report['products']:3} products, "
                 f"{report['values']} values exact, worst at {report['worst_of_bound']:.2f} of the bound, {report['mutations']} wrong matrices found; "
                 f"perplexity {report['perplexity_masked']:.2f} masked, {report['perplexity_plain']:.2f} plain")

    def mixture(self, model):
        try:
            self.checked(model)
        except Refused as reason:
            if "mixture of experts" in str(reason):
                with self.lock:
                    self.refused += 1
                return self.say(True, model.stem, f"refused: {reason}")
            return self.say(False, model.stem, f"refused for another reason: {reason}")
        except (Failed, subprocess.TimeoutExpired) as error:
            return self.say(False, model.stem, str(error))
        self.say(False, model.stem, "a mixture of experts, and not refused")

    def quantised(self, architecture, kind):
        target = self.folder / f"{architecture}-{kind}.gguf"
        try:
            self.requantise(self.models / f"{architecture}-dense.gguf", target, kind)
        except Failed as error:
            return self.say(False, target.stem, str(error))
        self.dense(target)

    def wrong_store(self):
        """The bound alone must find a store that was made from other weights, although all its digests are right."""
        name = "wrong store"
        try:
            self.make_models(self.folder / "control", "^llama$", CONTROL_SEED)
            code, report = self.checked(self.models / "llama-dense.gguf", self.folder / "control" / "llama-dense.gguf")
        except (Failed, Refused, subprocess.SubprocessError) as error:
            return self.say(False, name, str(error))
        found = sum("out of bound" in fault for fault in report["faults"])
        ok = code == 1 and found == report["matrices"] and report["inexact"] == 0
        self.say(ok, name, f"exit code {code}, {found} of {report['matrices']} matrices out of bound, {report['inexact']} values not exact")

    def run(self):
        started = time.monotonic()
        few, chain = self.arguments.few, self.arguments.chain
        names = CHAIN if chain else FEW if few else None
        self.make_models(self.models, "^(" + "|".join(map(re.escape, names)) + ")$" if names else None, SEED)
        models = sorted(self.models.glob("*.gguf"))
        print(f"{len(models)} models written with seed {SEED} in {time.monotonic() - started:.0f} s", flush=True)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(self.quantised, *pair) for pair in ([] if chain else FEW_QUANTISED if few else QUANTISED)]
            for model in models:
                is_mixture = model.stem.endswith("-moe") and model.stem not in DENSE_BY_GRAPH
                futures.append(pool.submit(self.mixture if is_mixture else self.dense, model))
            futures.append(pool.submit(self.wrong_store))
            for future in futures:
                future.result()
        least = (3, 1, 3, 1) if chain else (MIN_ARCHITECTURES, MIN_TYPES, MIN_MUTATED, MIN_REFUSED)
        found = {"dense architectures": len(self.architectures), "quantisation types": len(self.types), "models with wrong matrices found": self.mutated,
                 "refused mixtures": self.refused}
        for (what, got), least in zip(found.items(), least):
            self.say(got >= least, what, f"{got}, of which {least} are asked for")
        print("matrices by type: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.types.items())))
        print(f"{time.monotonic() - started:.0f} s\n{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bin_dir", "test_dir", "preload", "plugin", "llama_dir"):
        parser.add_argument(name, type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--chain", action="store_true")
    with tempfile.TemporaryDirectory(prefix="talaria-archs-") as folder:
        return Test(parser.parse_args(), pathlib.Path(folder)).run()


if __name__ == "__main__":
    sys.exit(main())

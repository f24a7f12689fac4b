#!/usr/bin/env python3
"""Trust is a link target: what may never be linked together is not.

usage: link_graph_test.py LINK_GRAPH BIN_DIR PLUGIN

LINK_GRAPH has the transitive link closure of every program, as CMake wrote it. Symbols are read from the built files, so that a
source file added to the wrong target is found too.
"""
import re
import subprocess
import sys

# program -> (targets it must link, patterns of targets it must not link, patterns of symbols it must not contain)
RULES = {
    "talaria": (
        {"talaria_client", "talaria_attest_verifier", "talaria_tenant"},
        [r"talaria_cvm.*", r"talaria_online", r"talaria_engine.*", r"talaria_cloud.*", r"talaria_attest_tsm", r"talaria_lab", r".*testing.*",
         r".*authority.*", r"llamacpp_.*"],
        [r"talaria::cvm::", r"talaria::engine::", r"talaria::cloud::", r"::lab::"],
    ),
    "talaria-cloud": (
        {"talaria_cloud_server", "talaria_cloud_provision"},
        [r"talaria_cvm.*", r"talaria_online", r"talaria_engine.*", r"talaria_lab", r"talaria_cloud_lab"],
        [r"talaria::cvm::", r"talaria::engine::", r"::lab::", r"Recorder", r"Published"],
    ),
    "talaria-cvm": (
        {"talaria_cvm", "talaria_online", "talaria_wire"},
        [r"talaria_cloud.*", r"talaria_cvm_lab.*", r"talaria_lab", r"llamacpp_.*", r".*testing.*"],
        [r"talaria::cloud::", r"ZeroMask", r"::lab::", r"\bllama_model_load", r"Published"],
    ),
    "ggml-talaria": (
        {"talaria_engine_channel"},
        [r"talaria_cvm.*", r"talaria_online", r"talaria_ring", r"talaria_cloud.*", r"talaria_wire", r"llamacpp_llama", r"llamacpp_ggml"],
        [r"talaria::cvm::", r"talaria::ring::", r"talaria::cloud::", r"talaria::wire::"],
    ),
}

# What the laboratory's programs contain: the patterns above name something that exists.
LABORATORY = {
    "talaria-cvm-lab": [r"ZeroMask", r"::lab::", r"Published"],
    "talaria-cloud-lab": [r"::lab::", r"Recorder", r"Published"],
}


def main():
    graph_file, bin_dir, plugin = sys.argv[1:4]
    graph = dict(line.split(":", 1) for line in open(graph_file).read().splitlines())
    failures = []
    for program, (required, forbidden, symbols) in RULES.items():
        if program not in graph:
            failures.append(f"{program} is not in {graph_file}")
            continue
        closure = set(graph[program].split())
        # The simulated TEE is a target of its own: without it, nothing of it may have come another way.
        if "talaria_attest_simulated" not in closure:
            symbols = symbols + [r"SimulatedRoots", r"SimulatedAttester"]
        for target in sorted(required - closure):
            failures.append(f"{program} does not link {target}: this test would prove nothing")
        for target in sorted(closure):
            for pattern in forbidden:
                if re.fullmatch(pattern, target):
                    failures.append(f"{program} links {target}")
        path = plugin if program == "ggml-talaria" else f"{bin_dir}/{program}"
        names = subprocess.run(["nm", "-C", path], check=True, capture_output=True, text=True).stdout
        if "talaria::" not in names:
            failures.append(f"{path} has no symbols of ours: this test would prove nothing")
        for line in names.splitlines():
            for pattern in symbols:
                if re.search(pattern, line):
                    failures.append(f"{program} contains {line.strip()}")
    # The laboratory does contain what the product must not: the patterns above match something.
    for program, patterns in LABORATORY.items():
        lab = subprocess.run(["nm", "-C", f"{bin_dir}/{program}"], check=True, capture_output=True, text=True).stdout
        for pattern in patterns:
            if not re.search(pattern, lab):
                failures.append(f"{program} has no symbol like {pattern}: the pattern is stale")
    for failure in failures:
        print("FAILED:", failure)
    print(f"{len(RULES)} programs checked, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

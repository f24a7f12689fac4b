#!/usr/bin/env python3
"""OpenAI's client library (openai_script.py) through `talaria proxy`, attested channels and masks, and what it gets elsewhere.

usage: openai_test.py --bin DIR --python FILE [--plugin FILE] [--model GGUF --store STORE] [--verbose]

Three servers of one model: the whole attested chain; the same integers without masks, in the laboratory, which must answer
bit for bit the same; and stock llama.cpp, whose answers must have the same form. The model is a tiny random one,
unless another is named, whose chat template knows tools and marks calls with <tool_call>. FILE is a Python with the
packages of tests/requirements.txt.
"""

import argparse
import json
import pathlib
import re
import sys

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "system"))

import harness  # noqa: E402
import tiny_model  # noqa: E402
from cases_attested import INSECURE, attested  # noqa: E402
from harness import check, check_equal, wait_until  # noqa: E402
from processes import Client, Cloud, Process, identity_of, stop_gently  # noqa: E402
from store import from_setup  # noqa: E402

# As talaria-cvm starts llama-server: the shapes of its batches are part of what is the same.
ARGUMENTS = ["-c", "2048", "-np", "1", "-t", "1", "-tb", "1", "-b", "512", "-ub", "512", "--no-warmup", "--offline", "--no-ui"]
ARGUMENTS += ["--no-cache-prompt", "--slot-prompt-similarity", "0", "--cache-ram", "0", "--ctx-checkpoints", "0"]


def run_script(context, url, *options):
    options = [*options, "--bias", json.dumps(context.bias)]
    code, out, errors = context.run(context.python, TESTS / "openai_script.py", url, *options, timeout=300)
    check_equal(code, 0, f"the exit code of openai_script.py ({errors[-1500:]})")
    return json.loads(out)


def await_healthy(server, socket):
    client = Client(f"unix:{socket}")

    def healthy():
        try:
            return client.ask("GET", "/health").status == 200
        except OSError:
            return not server.running()

    wait_until(healthy, 180, "llama-server")
    check(server.running(), f"llama-server ended: {server.errors()[-300:]}")


def masked(context):
    with attested(context) as scene:
        policy = scene.policy("good")
        scene.cloud(policy)
        scene.await_ready(scene.cvm())
        proxy = Process(
            [context.program("talaria"), "proxy", scene.front, "--policy", policy, "--listen", "127.0.0.1:0", INSECURE]
            + ["--token-file", scene.token],
            scene.folder / "proxy.out",
            scene.folder / "proxy.err",
        )
        scene.processes.append(proxy)
        address = r"listening at (127\.0\.0\.1:\d+)"
        wait_until(lambda: re.search(address, proxy.errors()) or not proxy.running(), 30, "the proxy listens")
        check(proxy.running(), f"the proxy ended: {proxy.errors()[-300:]}")
        return run_script(context, f"http://{re.search(address, proxy.errors())[1]}/v1")


def not_masked(context):
    folder = context.folder()
    cloud = Cloud(context, context.tiny[1], folder).await_listening()
    socket = folder / "lab.sock"
    command = [context.program("talaria-cvm-lab"), "run", "--cloud", cloud.endpoint, "--identity", identity_of(context.tiny[1])]
    command += ["--scheme", "none", *(["--plugin", context.plugin] if context.plugin else [])]
    lab = Process([*command, "--", "llama-server", "--host", socket, *ARGUMENTS], folder / "lab.out", folder / "lab.err")
    try:
        await_healthy(lab, socket)
        return run_script(context, "http://llama-server/v1", "--socket", socket)
    finally:
        stop_gently(lab)
        cloud.end()


def stock(context):
    folder = context.folder()
    socket = folder / "stock.sock"
    command = [context.llama / "bin/llama-server", "-m", context.tiny[0], "--host", socket, *ARGUMENTS]
    server = Process(command, folder / "stock.out", folder / "stock.err")
    try:
        await_healthy(server, socket)
        return run_script(context, "http://llama-server/v1", "--socket", socket)
    finally:
        server.end()


@harness.case("OpenAI's library: masked as without masks to the bit, in the form of stock llama.cpp; tools are called")
def openai_everywhere(context):
    said = {server.__name__: server(context) for server in (masked, not_masked, stock)}
    if context.verbose:
        print(json.dumps(said, indent=1))
    with_masks, without, other = (said[name] for name in ("masked", "not_masked", "stock"))
    check_equal(with_masks["exact"], without["exact"], "what the masked chain answers")
    for name in ("not_masked", "stock"):
        check_equal(with_masks["form"], said[name]["form"], f"the form of the masked chain's answers, beside {name}")
    form = with_masks["form"]
    check_equal(form["tools"], {"finish": "tool_calls", "calls": [["function", "weather"]], "arguments": [["city"]], "fits": [True]}, "the tool call")
    check_equal(form["tools_streamed"], {"finish": "tool_calls", "name": "weather", "keys": ["city"]}, "the streamed tool call")
    check_equal((form["json_schema"]["fits"], form["cancelling"]["seen"]), (True, 3), "JSON schema and cancelling")
    check(with_masks["exact"]["chat"]["text"], "the answer is empty")
    same = sum(with_masks["exact"][part] == other["exact"][part] for part in other["exact"])
    return f"{len(form)} parts; stock llama.cpp's answers are the same to the bit in {same} of {len(other['exact'])}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--plugin")
    parser.add_argument("--model")
    parser.add_argument("--store")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    if not pathlib.Path(arguments.python).exists():
        sys.exit(f"openai_test: there is no {arguments.python}; scripts/setup installs it")
    named = arguments.model is not None
    if named != (arguments.store is not None):
        sys.exit("openai_test: --model and --store go together")
    arguments.llama, arguments.tests = from_setup("--print-llama-dir"), None
    context = harness.Context(arguments)
    context.python = arguments.python
    # What is random never stops writing spaces where a grammar allows them.
    context.bias = {} if named else {tiny_model.FIRST_BYTE_TOKEN + byte: -100 for byte in b" \t\n"}
    try:
        if named:
            context.tiny = context.model, context.store  # which the scenes serve
        return harness.run_cases(context, "^OpenAI's library")  # the modules above have cases of their own
    finally:
        context.close()


if __name__ == "__main__":
    sys.exit(main())

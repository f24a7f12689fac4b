"""Prompts and answers stay where they belong, and the engine is locked in."""

import os
import pathlib
import re
import secrets
import shutil

from cases_lies import flip_bit
from harness import Skip, case, check, check_equal, wait_until
from processes import Client, Cvm, Process, can_connect, stop_gently, tokens_of
from proxy import PRODUCT
from stage import PROMPT, real, tiny

INSECURE = "--insecure-simulated-tee"
CANARY = "canary" + secrets.token_hex(12)


def provocations(canary):
    """(method, path, body, headers): requests that are wrong in all ways, each with the canary in it."""
    good = {"prompt": canary, "max_tokens": 2}
    chat = {"messages": [{"role": "user", "content": canary}], "max_tokens": 2}
    yield "POST", "/v1/completions", f'{{"prompt": "{canary}"'.encode(), None
    yield "POST", "/v1/completions", f"{canary}".encode(), None
    yield "POST", "/v1/completions", f'["{canary}"]'.encode(), None
    yield "POST", "/v1/completions", b'{"prompt": "' + canary.encode() + b'\xff\xfe"}', None
    yield "POST", "/v1/completions", ("[" * 500 + canary).encode(), None
    for field in (
        "max_tokens",
        "temperature",
        "seed",
        "stop",
        "logit_bias",
        "samplers",
        "grammar",
        "json_schema",
        "response_format",
        "n_probs",
        "stream",
    ):
        for wrong in (canary, {canary: canary}, [canary], [[{canary: 1}]]):
            yield "POST", "/v1/completions", {**good, field: wrong}, None
            yield "POST", "/v1/chat/completions", {**chat, field: wrong}, None
    yield "POST", "/v1/completions", {**good, "grammar": f'root ::= "{canary}'}, None
    yield "POST", "/v1/completions", {**good, "grammar": f"root ::= {canary}"}, None
    yield "POST", "/v1/completions", {**good, "json_schema": {"type": canary}}, None
    yield "POST", "/v1/completions", {**good, "json_schema": {"$ref": "#/" + canary}}, None
    yield "POST", "/v1/completions", {**good, "json_schema": {"pattern": f"^({canary}", "type": "string"}}, None
    yield "POST", "/v1/completions", {**good, "prompt": [canary, {canary: 1}]}, None
    yield "POST", "/v1/completions", {**good, "prompt": (canary + " ") * 5000}, None  # more than the context
    for messages in (
        canary,
        [canary],
        [{"role": canary, "content": canary}],
        [{"role": "user", "content": {canary: 1}}],
        [{"role": "user", "content": [{"type": canary}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"http://{canary}.invalid/x.png"}}]}],
    ):
        yield "POST", "/v1/chat/completions", {"messages": messages, "max_tokens": 2}, None
    yield "POST", "/v1/chat/completions", {
        **chat,
        "tools": [{"type": "function", "function": {"name": canary, "parameters": {"type": canary}}}],
    }, None
    yield "POST", "/v1/chat/completions", {**chat, "tools": canary, "tool_choice": canary}, None
    yield "POST", "/v1/chat/completions", {**chat, "chat_template_kwargs": {canary: canary}}, None
    yield "POST", "/v1/embeddings", {"input": canary}, None
    yield "POST", "/v1/rerank", {"query": canary, "documents": [canary]}, None
    yield "POST", "/v1/responses", {"input": canary, "previous_response_id": canary}, None
    yield "POST", "/v1/messages", {"messages": [{"role": "user", "content": canary}], "max_tokens": canary}, None
    yield "POST", "/tokenize", {"content": canary}, None
    yield "POST", "/detokenize", {"tokens": [canary]}, None
    yield "POST", "/apply-template", chat, None
    for path in (
        "/" + canary,
        f"/v1/models?{canary}",
        f"/v1/completions/{canary}",
        f"/slots/{canary}?action=save",
        "/props",
        "/slots",
        "/metrics",
        "/lora-adapters",
        "/",
    ):
        yield "GET", path, None, None
        yield "POST", path, good, None
    yield "POST", "/v1/completions", good, {"Content-Type": canary}
    yield "POST", "/v1/completions", good, {
        "Authorization": f"Bearer {canary}",
        "X-Conversation-Id": canary,
        "Cookie": canary,
    }
    yield "POST", "/v1/completions", good, {"X-Long": canary * 2000}
    yield canary.upper(), "/v1/completions", good, None


@case("a canary in a prompt and in its answer is in no log, file or command line, nor in /readyz")
def canary_in_answers(context):
    scene = real(context)
    client = scene.cvm.client
    forced = {"grammar": f'root ::= "{CANARY}"', "ignore_eos": False}
    check_equal(client.complete(f"Repeat this: {CANARY}", 40, **forced).text(), CANARY, "the answer")
    check_equal("".join(tokens_of(client.stream(CANARY, 40, **forced))), CANARY, "the streamed answer")
    check_nowhere(scene.cvm, scene.cloud, scene.folder)


@case("a canary in every kind of wrong request, and in one that fails half-way, is nowhere either")
def canary_in_errors(context):
    places = [place for place in ("/tmp", "/dev/shm", "/run", "/var/crash") if os.path.isdir(place)]
    with tiny(context, {"cloud": {"idle_timeout_ms": 1000}}) as (cloud, proxy, cvm):
        before = {place: set(os.listdir(place)) for place in places}
        client, statuses = cvm.client, {}
        for method, path, body, headers in provocations(CANARY):
            status = client.ask(method, path, body, headers).status
            statuses[status] = statuses.get(status, 0) + 1
            what = f"{method} {path} {str(body)[:100]}"
            check(method in ("GET", "POST") or status == 405, f"{what}: status {status}")
            for probe in ("/readyz", "/healthz"):
                answer = client.ask("GET", probe)
                check_equal(answer.status, 200, f"{probe} after {what}")
                check(CANARY.encode() not in answer.body, f"{probe} says {answer.body!r}")
        huge = client.ask("POST", "/v1/completions", (f'{{"prompt": "{CANARY}' + "x" * (9 << 20) + '"}').encode())
        check_equal(huge.status, 413, "the status of a body of 9 MiB")
        # The cloud's answers stop, and the request is given up.
        proxy.on_reply = lambda kind, body: b""
        failed = client.complete(CANARY, 4)
        check(failed.status >= 500, f"status {failed.status} without a cloud")
        check(CANARY.encode() not in failed.body, "the error repeats the prompt")
        proxy.on_reply = None
        proxy.cut_all()
        client.complete(PROMPT, 2).text()
        check_nowhere(cvm, cloud, cvm.config.parent)
        for place, names in before.items():
            for name in set(os.listdir(place)) - names:
                path = pathlib.Path(place) / name
                if path.is_file() and os.access(path, os.R_OK):
                    check(CANARY.encode() not in path.read_bytes(), f"it is in {path}")
    return f"{sum(statuses.values()) + 2} requests, statuses {dict(sorted(statuses.items()))}"


def check_nowhere(cvm, cloud, folder):
    found = [
        str(path) for path in pathlib.Path(folder).rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()
    ]
    check_equal(found, [], "files with the canary")
    for pid in (cvm.pid, *cvm.family().values(), cloud.pid):
        for name in ("cmdline", "comm", "status", "environ"):
            try:
                data = pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:  # not ours to read, or gone
                continue
            check(CANARY.encode() not in data, f"it is in /proc/{pid}/{name}")


@case(
    "the engine is locked in: two environment variables, no output, no privileges, a filter, no network, no core dumps"
)
def locked_in(context):
    cvm = real(context).cvm
    family = cvm.family()
    check_equal(sorted(family), ["llama-server", "talaria-launch"], "the children")
    engine = family["llama-server"]
    proc = pathlib.Path(f"/proc/{engine}")
    notes = []
    try:
        variables = sorted(v.split("=")[0] for v in proc.joinpath("environ").read_text().split("\0") if v)
        check_equal(variables, ["GGML_BACKEND_PATH", "GGML_NO_BACKTRACE"], "its environment")
        for number in (0, 1, 2):
            check_equal(os.readlink(proc / "fd" / str(number)), "/dev/null", f"its descriptor {number}")
        check(os.readlink(proc / "ns/net") != os.readlink("/proc/self/ns/net"), "it is in our network namespace")
        kinds = sorted(re.sub(r"\d+|\[.*", "", os.readlink(link)) for link in (proc / "fd").iterdir())
        notes.append("descriptors " + " ".join(sorted(set(kinds))))
    except PermissionError:
        notes.append("(not root: environment, descriptors and namespace not looked at)")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    check_equal(
        (status["NoNewPrivs"].strip(), status["Seccomp"].strip()), ("1", "2"), "NoNewPrivs and Seccomp of its status"
    )
    for key in ("CapEff", "CapPrm", "CapBnd"):
        check(os.geteuid() != 0 or int(status[key], 16) == 0, f"its {key} is {status[key].strip()}")
    for pid in (engine, cvm.pid):
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text() if os.access(f"/proc/{pid}/limits", os.R_OK) else ""
        check(not limits or re.search(r"Max core file size\s+0\s+0\s", limits), f"{pid} may dump core")
    arguments = (proc / "cmdline").read_text().split("\0")
    check("--log-disable" in arguments and "--no-slots" in arguments, f"its arguments are {arguments}")
    mode = os.stat(cvm.run_dir).st_mode & 0o777
    check_equal(mode, 0o700, "the mode of the run folder")
    check_equal(os.stat(cvm.address[len("unix:") :]).st_mode & 0o777, 0o600, "the mode of the API's socket")
    return ", ".join(notes)


def talkative(client):
    """What llama-server puts into its log when it may: an answer, and a request that it rewrites."""
    chat = {"messages": [{"role": "user", "content": CANARY}], "max_tokens": 60, "grammar": f'root ::= "{CANARY}"'}
    check_equal(client.ask("POST", "/v1/chat/completions", chat).text(), CANARY, "the answer")
    response = client.ask("POST", "/v1/responses", {"input": CANARY, "max_output_tokens": 2})
    check_equal(response.status, 200, "the status of /v1/responses")


@case("no key of the configuration and no variable of the environment turns llama-server's log on")
def no_way_to_the_log(context):
    wishes = [("engine", "arguments", ["--verbose"]), ("engine", "log_file", "/tmp/log"), ("engine", "verbosity", 5)]
    wishes += [("server", "log_level", "debug"), ("log", "level", "debug")]
    for table, key, value in wishes:
        folder = context.folder()
        cvm = Cvm(context, folder, f"unix:{folder}/none.sock", "any", {table: {key: value}}, ("--check-config", INSECURE))
        check_equal(cvm.wait(), 2, f"the exit code with {table}.{key}")
        check(re.search(rf"{table}(\.{key})? is not known", cvm.errors()), f"{table}.{key}: {cvm.errors()!r}")
    folder = context.folder()
    variables = {"LLAMA_ARG_LOG_VERBOSITY": "5", "LLAMA_ARG_LOG_FILE": str(folder / "llama.log"), "LLAMA_TRACE": "1"}
    with tiny(context, environment=variables) as (cloud, proxy, cvm):
        talkative(cvm.client)
        check(not (folder / "llama.log").exists(), "llama-server has made its log")
        check_nowhere(cvm, cloud, cvm.config.parent)
    for program, arguments in {"talaria-cvm": ("serve",), "talaria-cloud": ("serve",), "talaria": ("proxy",)}.items():
        for flag in ("--verbose", "--log-level=debug"):
            code, _, errors = context.run(context.program(program), *arguments, flag)
            check_equal(code, 2, f"the exit code of {program} {flag} ({errors[-200:]})")
    return f"{len(wishes)} keys, {len(variables)} variables, 6 command lines"


def loud_engine(context):
    """llama-server with every log on and the libraries that it needs, in a folder as a user would install it."""
    program = context.tests and context.tests / "talaria-test-loud-llama-server"
    if not program or not program.exists():
        raise Skip("there is no talaria-test-loud-llama-server")
    folder = context.folder()
    shutil.copytree(context.llama / "lib", folder / "lib", symlinks=True)
    (folder / "bin").mkdir()
    shutil.copy(program, folder / "bin/llama-server")
    shutil.copy(context.llama / "bin/libggml-cpu.so", folder / "bin")
    return folder / "bin/llama-server"


@case("llama-server with every log on tells a canary to nobody: the sandbox has no output and no file for it")
def loud(context):
    engine = loud_engine(context)
    # That it would tell: the same program without a sandbox.
    folder = context.folder()
    command = [engine, "-m", context.tiny[0], "--host", folder / "loud.sock", "-c", "2048", "-np", "1", "--no-ui", "--offline"]
    free = Process(command, folder / "out", folder / "err", cwd=engine.parent)
    try:
        client = Client(f"unix:{folder}/loud.sock")
        wait_until(lambda: can_connect(folder / "loud.sock") and client.ask("GET", "/health").status == 200, 30, "it listens")
        talkative(client)
    finally:
        stop_gently(free)
    told = [path.name for path in folder.iterdir() if path.is_file() and CANARY.encode() in path.read_bytes()]
    check("loud.log" in told and len(told) > 1, f"without a sandbox the canary is in {told} only: this case would show nothing")
    with tiny(context, {"engine": {"llama_server": str(engine)}}) as (cloud, proxy, cvm):
        family = cvm.family()
        check("--log-disable" in pathlib.Path(f"/proc/{family['llama-server']}/cmdline").read_text(), "its arguments")
        talkative(cvm.client)
        statuses = [cvm.client.ask(*request).status for request in provocations(CANARY)]
        talkative(cvm.client)
        check_nowhere(cvm, cloud, cvm.config.parent)
        check_equal([p.name for p in cvm.run_dir.rglob("*") if p.is_file()], [], "files that it has made")
    return f"{len(statuses) + 4} requests; without the sandbox it was in {', '.join(sorted(told))}"


@case("a lying cloud and the demo model, in the middle of a stream: code 6, no further token, the prompt nowhere")
def last_lie(context):
    scene = real(context)
    seen, told = [0], []

    def on_reply(kind, body):
        seen[0] += kind == PRODUCT
        if seen[0] != 600 or told:
            return None
        told.append(scene.proxy.received)
        return flip_bit(body, {})

    scene.proxy.on_reply = on_reply
    events = list(scene.cvm.client.stream(CANARY, 400))
    check(told, "the lie was never told")
    check(["data", "[DONE]"] not in [list(e) for e in events], "the stream ended as if nothing had happened")
    check(any('"error"' in text for _, text in events), f"no error event: {events[-2:]}")
    check_equal(scene.cvm.wait(30), 6, "the exit code")
    check_equal(scene.proxy.received, told[0], "bytes to the cloud")
    check_nowhere(scene.cvm, scene.cloud, scene.folder)
    return f"{len(tokens_of(events))} tokens before it"

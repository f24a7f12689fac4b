"""Programs that must not start, or must end before they take a request."""

import re
import socket
import threading

from harness import case, check, check_equal, patient
from processes import Client, Cvm, timed, write_config
from stage import PROMPT, tiny, tiny_cloud

WRONG_USAGE, REFUSED, NO_RESOURCES, UNAVAILABLE, SESSION_ENDED = 2, 3, 4, 5, 6


def check_ends(cvm, code, what, message=None, seconds=20):
    """Ends with `code` (or any but 0 if that is None), says why, and was never ready. Returns what it said."""
    try:
        got = cvm.wait(patient(seconds))
        if code is None:
            check(got > 0, f"{what}: the exit code is {got}")
        else:
            check(got == code, f"{what}: the exit code is {got}, not {code}: {cvm.errors()[-300:]}")
        check("ready" not in cvm.out.read_text(), f"{what}: it was ready")
        said = [line for line in cvm.errors().splitlines() if " error: " in line or (message and message in line)]
        check(said, f"{what}: no error was told: {cvm.errors()[-300:]}")
        if message:
            check(any(message in line for line in said), f"{what}: '{message}' is not in {said}")
        check(not cvm.run_dir.exists(), f"{what}: the run folder was left behind")
        return said[-1]
    finally:
        cvm.end()


WRONG_SETTINGS = [  # what, settings, a part of the message
    ("an unknown key", {"server": {"colour": "red"}}, "server.colour is not known"),
    ("an unknown table", {"colours": {"red": 1}}, "colours is not known"),
    ("a port that is none", {"server": {"listen": "127.0.0.1:99999"}}, "server.listen"),
    ("a public address", {"server": {"listen": "0.0.0.0:8080"}}, "server.listen"),
    ("a public cloud", {"cloud": {"endpoint": "192.0.2.1:80"}}, "cloud.endpoint"),
    ("no address", {"server": {"listen": ""}}, "server.listen"),
    ("a path that is too long", {"server": {"listen": "unix:/" + "x" * 200}}, "server.listen"),
    ("a short identity", {"model": {"identity": "abc"}}, "model.identity"),
    ("a number as text", {"server": {"slots": "2"}}, "server.slots"),
    ("three check vectors", {"model": {"check_vectors": 3}}, "model.check_vectors"),
    ("no check vectors", {"model": {"check_vectors": 0}}, "model.check_vectors"),
    ("a relative plug-in", {"engine": {"plugin": "libggml-talaria.so"}}, "engine.plugin"),
    (
        "a plug-in that is not there",
        {"engine": {"plugin": "/nowhere/libggml-talaria.so"}},
        "/nowhere/libggml-talaria.so",
    ),
    (
        "a llama-server that is not there",
        {"engine": {"llama_server": "/nowhere/llama-server"}},
        "/nowhere/llama-server",
    ),
]


@case("talaria-cvm refuses wrong configurations at once, with code 2 and the key's name")
def wrong_settings(context):
    for what, settings, message in WRONG_SETTINGS:
        folder = context.folder()
        check_ends(Cvm(context, folder, f"unix:{folder}/cloud.sock", "0" * 64, settings), WRONG_USAGE, what, message)
    folder = context.folder()
    missing = folder / "missing.toml"
    code, _, errors = context.run(
        context.program("talaria-cvm"), "serve", "--config", missing, "--insecure-simulated-tee"
    )
    check(code == WRONG_USAGE and str(missing) in errors, f"a missing file: {code}, {errors}")
    broken = folder / "broken.toml"
    broken.write_text("[server\nlisten = 1")
    code, _, errors = context.run(
        context.program("talaria-cvm"), "serve", "--config", broken, "--insecure-simulated-tee"
    )
    check(code == WRONG_USAGE and "broken.toml:1" in errors, f"a broken file: {code}, {errors}")
    return f"{len(WRONG_SETTINGS) + 2} of them"


@case('nothing starts without evidence or in plaintext unless --insecure-simulated-tee is given, and "any" model neither')
def no_attestation(context):
    folder = context.folder()
    endpoint, store = f"unix:{folder}/cloud.sock", context.tiny[1]
    cvm = Cvm(context, folder, endpoint, "0" * 64, arguments=())
    check_ends(cvm, WRONG_USAGE, "a CVM in plaintext", "--insecure-simulated-tee")
    attested = {
        "cloud": {"plaintext": False, "provider_key": "0" * 64},
        "server": {"plaintext": False},
        "tenant": {"key": "0" * 64},
        "tee": {"report_folder": f"{folder}/no-tee"},
    }
    cvm = Cvm(context, folder, endpoint, "0" * 64, attested, arguments=())
    said = check_ends(cvm, WRONG_USAGE, "a CVM without a TEE", "gives no evidence")
    serve = (context.program("talaria-cloud"), "serve", store, "--listen")
    for arguments, wanted in (
        ((endpoint,), "--policy"),
        ((endpoint, "--insecure-simulated-tee"), "--policy"),
        ((endpoint, "--insecure-plaintext"), "--insecure-simulated-tee"),
        (("0.0.0.0:0", "--insecure-simulated-tee", "--insecure-plaintext"), "loopback"),
    ):
        code, _, errors = context.run(*serve, *arguments)
        check(code == WRONG_USAGE and wanted in errors, f"the cloud with {arguments}: {code}, {errors}")
    config = folder / "any.toml"
    write_config(
        config,
        {
            "cloud": {"endpoint": endpoint, "provider_key": "0" * 64},
            "model": {"identity": "any"},
            "server": {"listen": f"unix:{folder}/api.sock"},
            "tenant": {"key": "0" * 64},
        },
    )
    code, _, errors = context.run(context.program("talaria-cvm"), "serve", "--config", config, "--check-config")
    check(code == WRONG_USAGE and "model.identity" in errors, f"any model: {code}, {errors}")
    return said.partition("error: ")[2]


@case("a cloud with another model than the pinned one is refused with code 6")
def wrong_identity(context):
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        check_ends(Cvm(context, folder, proxy.endpoint, "0" * 64), SESSION_ENDED, "the identity", "another model")
        check(proxy.received < 100, f"{proxy.received} bytes went to a cloud with another model")


@case("without a cloud talaria-cvm ends with code 5 within its time-outs and names the cloud")
def no_cloud(context):
    folder = context.folder()
    seconds, said = timed(
        lambda: check_ends(
            Cvm(context, folder, f"unix:{folder}/cloud.sock", "0" * 64),
            UNAVAILABLE,
            "no cloud",
            str(folder / "cloud.sock"),
        )
    )
    check(seconds < patient(6), f"it took {seconds:.1f} s")
    # One that accepts and says nothing.
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(folder / "mute.sock"))
        mute.listen(8)
        settings = {"cloud": {"idle_timeout_ms": 1000, "max_retries": 1}}
        mute_seconds, _ = timed(
            lambda: check_ends(
                Cvm(context, folder, f"unix:{folder}/mute.sock", "0" * 64, settings), UNAVAILABLE, "a mute cloud"
            )
        )
        check(mute_seconds < patient(4), f"a mute cloud: it took {mute_seconds:.1f} s")
    return f"{seconds:.1f} s, and {mute_seconds:.1f} s with a mute one: {said.partition('error: ')[2]}"


@case("an address in use is refused, and who was there first is none the worse")
def address_in_use(context):
    with tiny(context) as (cloud, proxy, cvm):
        folder = context.folder()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            check_ends(
                Cvm(context, folder, proxy.endpoint, "0" * 64, {"server": {"listen": f"127.0.0.1:{port}"}}),
                None,
                "a port in use",
                "in use",
            )
        check_ends(
            Cvm(context, folder, proxy.endpoint, "0" * 64, {"server": {"listen": cvm.address}}),
            None,
            "a socket in use",
            "in use",
        )
        code, _, errors = context.run(
            context.program("talaria-cloud"),
            "serve",
            context.tiny[1],
            "--listen",
            cloud.endpoint,
            "--insecure-simulated-tee",
            "--insecure-plaintext",
        )
        check(code > 0 and "in use" in errors, f"the cloud's socket in use: {code}, {errors}")
        cvm.client.complete(PROMPT, 4).text()  # the one that was there first is none the worse


@case("over TCP on the loopback address: the same API")
def tcp(context):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tiny(context, {"server": {"listen": f"127.0.0.1:{port}"}}) as (cloud, proxy, cvm):
        cvm.client.complete(PROMPT, 4).text()
        cvm.send(15)
        check_equal(cvm.wait(), 130, "the exit code")


@case("a plug-in that is none, or another library, is fatal: llama.cpp alone would answer nonsense")
def wrong_plugins(context):
    text = context.folder() / "libggml-talaria.so"
    text.write_text("This is not a library.\n")
    other = next((context.llama / "lib").glob("libggml-base.so*"))
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        out = []
        for what, plugin in (("a text file", text), ("another library", other.resolve())):
            cvm = Cvm(context, folder, proxy.endpoint, identity, {"engine": {"plugin": str(plugin)}})
            said = check_ends(cvm, None, what, seconds=60)
            out.append(f"{what}: {said.partition('error: ')[2]}")
        return "; ".join(out)


@case("an engine that ends at once is reported with its code")
def wrong_engine(context):
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        said = check_ends(
            Cvm(context, folder, proxy.endpoint, identity, {"engine": {"llama_server": "/bin/false"}}),
            UNAVAILABLE,
            "/bin/false",
            "code 1",
        )
        return said.partition("error: ")[2]


@case("mask pools smaller than one batch of every group are refused with code 4 and the numbers")
def too_little_memory(context):
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        said = check_ends(
            Cvm(context, folder, proxy.endpoint, identity, {"masks": {"pool_bytes": "1 MiB"}}),
            NO_RESOURCES,
            "the pools",
            "one batch of every group takes",
        )
        check(len(re.findall(r"\d+ MiB", said)) == 2, f"no numbers in: {said}")
        return said.partition("error: ")[2]


@case("requests before the model is ready get 503, and /readyz names the stage")
def before_ready(context):
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        go_on, waiting = threading.Event(), threading.Event()

        def on_request(kind, body):
            if proxy.received > 500:
                waiting.set()
                go_on.wait(60)
            return None

        proxy.on_request = on_request
        cvm = Cvm(context, folder, proxy.endpoint, identity, {"cloud": {"idle_timeout_ms": 60000}})
        try:
            check(waiting.wait(60), "the set-up did not begin")
            client = Client(cvm.address)
            check_equal(client.ask("GET", "/healthz").status, 200, "/healthz")
            ready = client.ask("GET", "/readyz")
            check_equal((ready.status, ready.json()), (503, {"ready": False, "stage": "model"}), "/readyz")
            check_equal(client.complete(PROMPT, 4).status, 503, "a completion's status")
            go_on.set()
            cvm.await_ready()
        finally:
            go_on.set()
            cvm.end()

"""Attested channels on all sides, with the simulated TEE: who is believed, who is not, and what leaves before."""

import contextlib
import hashlib
import json
import signal

from harness import case, check, check_equal, wait_until
from processes import Client, Cvm, Process, can_connect, completion, identity_of, stop_gently
from stage import PROMPT

INSECURE = "--insecure-simulated-tee"
UNTRUSTED = 7


class Attested:
    """A provider, a tenant and their policy, and the processes of a scene with the tiny model."""

    def __init__(self, context):
        self.context, self.folder, self.store = context, context.folder(), context.tiny[1]
        self.identity = identity_of(self.store)
        line = self.run("talaria-cloud", "key", "--json", self.folder / "provider.pem")
        self.provider = json.loads(line)["provider_key"]
        self.tenant = self.run("talaria", "tenant", "init", self.folder / "tenant.pem").strip()
        self.measurement = self.run("talaria", "image", "measure", context.program("talaria-cvm")).strip()
        self.token = self.folder / "token"
        self.token.touch(0o600)
        self.token.write_text(
            self.run("talaria", "tenant", "issue", "--key", self.folder / "tenant.pem", "--user", "ada")
        )
        self.endpoint, self.front = f"unix:{self.folder}/cloud.sock", f"unix:{self.folder}/cvm.sock"
        self.processes = []

    def run(self, program, *arguments):
        code, out, errors = self.context.run(self.context.program(program), *arguments)
        check(code == 0, f"{program} {arguments[0]} ended with {code}: {errors[-400:]}")
        return out

    def settings(self):
        return {
            "cloud": {"plaintext": False, "provider_key": self.provider},
            "server": {"plaintext": False, "listen": self.front},
            "tenant": {"key": self.tenant},
        }

    def policy(self, name, **changes):
        """A policy file that accepts this scene's CVM, but for the changes."""
        values = {
            "measurement": self.measurement,
            "model": self.identity,
            "tenant-key": self.tenant,
            "configuration": hashlib.sha256((self.folder / "cvm.toml").read_bytes()).hexdigest(),
        }
        path = self.folder / f"{name}.policy.toml"
        path.unlink(missing_ok=True)
        arguments = [f"--{key}={changes.get(key.replace('-', '_'), value)}" for key, value in values.items()]
        self.run("talaria", "policy", "init", "--type", "simulated", *arguments, "--out", path)
        return path

    def cloud(self, policy, flags=(INSECURE,), environment=None):
        cloud = Process(
            [self.context.program("talaria-cloud"), "serve", self.store, "--listen", self.endpoint]
            + ["--key", self.folder / "provider.pem", "--policy", policy, *flags],
            self.folder / "cloud.out",
            self.folder / "cloud.err",
            env=environment or {},
        )
        self.processes.append(cloud)
        wait_until(lambda: can_connect(self.folder / "cloud.sock") or not cloud.running(), 60, "the cloud listens")
        return cloud

    def cvm(self):
        cvm = Cvm(self.context, self.folder, self.endpoint, self.identity, self.settings())
        self.processes.append(cvm)
        return cvm

    def await_ready(self, cvm):
        ready = lambda: '"event":"ready"' in cvm.out.read_text() or not cvm.running()  # noqa: E731
        wait_until(ready, 60, "talaria-cvm gets ready")
        check(cvm.running(), f"talaria-cvm ended: {cvm.errors()[-400:]}")
        return cvm

    def verify(self, policy, *flags):
        """(exit code, what was said as JSON)"""
        command = (self.context.program("talaria"), "verify", self.front, "--policy", policy, "--json")
        code, out, errors = self.context.run(*command, *(flags or (INSECURE,)))
        check(out.startswith("{"), f"verify said {out!r}, {errors!r}")
        return code, json.loads(out)

    def proxy(self, policy, *arguments, server=None, **options):
        """(process, client). `server`: another than this scene's front."""
        socket = self.folder / "proxy.sock"
        proxy = Process(
            [self.context.program("talaria"), "proxy", server or self.front, "--policy", policy]
            + ["--listen", f"unix:{socket}", INSECURE, *arguments],
            self.folder / "proxy.out",
            self.folder / "proxy.err",
            **options,
        )
        self.processes.append(proxy)
        wait_until(lambda: can_connect(socket) or not proxy.running(), 30, "the proxy listens")
        return proxy, Client(f"unix:{socket}")

    def close(self):
        for process in reversed(self.processes):
            process.end()


@contextlib.contextmanager
def attested(context):
    scene = Attested(context)
    try:
        # The configuration's digest is in the policy, so the file comes first.
        Cvm(context, scene.folder, scene.endpoint, scene.identity, scene.settings(), ("--check-config", INSECURE)).wait()
        yield scene
    finally:
        scene.close()


@case("attested on all sides: the verdict names model, tenant and build; an answer comes through talaria proxy")
def through_the_proxy(context):
    with attested(context) as scene:
        policy = scene.policy("good")
        scene.cloud(policy)
        scene.await_ready(scene.cvm())
        code, said = scene.verify(policy)
        check_equal(code, 0, f"the exit code of verify ({said})")
        text = json.dumps(said)
        for wanted in (scene.identity, scene.tenant, scene.measurement, "simulated"):
            check(wanted in text, f"the verdict does not name {wanted}")
        proxy, client = scene.proxy(policy, "--token-file", scene.token)
        answer = client.ask("POST", "/v1/completions", completion(PROMPT, 8))
        check(answer.text() != "", "the answer is empty")
        headers = {key.lower(): value for key, value in dict(answer.headers).items()}
        check_equal(headers.get("talaria-model"), scene.identity, "the header Talaria-Model")
        streamed = client.stream(PROMPT, 8)
        check(streamed, "nothing was streamed")
        # Without a token the CVM lets nobody in, verified or not.
        stop_gently(proxy)
        (scene.folder / "proxy.sock").unlink(missing_ok=True)
        _, client = scene.proxy(policy)
        check_equal(client.ask("POST", "/v1/completions", completion(PROMPT, 4)).status, 401, "the status without a token")
        said_aloud = "".join((scene.folder / f"{name}.err").read_text() for name in ("cloud", "cvm", "proxy"))
        check(PROMPT not in said_aloud, "the prompt is in a log")


@case("a receipt of an answer and of a stream is verified offline, and one changed byte of any file is not")
def receipts(context):
    with attested(context) as scene:
        policy = scene.policy("good")
        cloud = scene.cloud(policy)
        cvm = scene.await_ready(scene.cvm())
        folders = []
        for name, fields in {"whole": {}, "stream": {"stream": True}}.items():
            request = scene.folder / f"{name}.json"
            request.write_text(json.dumps(completion(PROMPT, 8, **fields)))
            folders.append(scene.folder / f"proof-{name}")
            scene.run("talaria", "receipt", "get", scene.front, "--policy", policy, "--token-file", scene.token, INSECURE,
                      "--path", "/v1/completions", "--request", request, "--out", folders[-1])  # fmt: skip
            check_equal((folders[-1] / "request").read_text(), request.read_text(), "the request in the copy")
            check(PROMPT.encode() not in (folders[-1] / "receipt").read_bytes(), "the prompt is in the receipt")
        check("choices" in json.loads((folders[0] / "response").read_text()), "the answer in the copy")
        check((folders[1] / "response").read_bytes().startswith(b"data: "), "the stream in the copy")
        stop_gently(cvm)
        stop_gently(cloud)  # the rest is offline

        def judge(folder, *flags, policy=policy):
            command = (context.program("talaria"), "receipt", "verify", folder, "--policy", policy, "--json")
            code, out, errors = context.run(*command, *flags)
            check(out.startswith("{"), f"receipt verify said {out!r}, {errors!r}")
            return code, json.loads(out)

        reasons = {"request": "receipt-request", "response": "receipt-response", "receipt": "receipt-signature"}
        for folder in folders:
            code, said = judge(folder, INSECURE)
            check_equal(code, 0, f"the exit code of receipt verify ({said})")
            check_equal(said["model_identity"], scene.identity, "the model")
            check_equal(said["measurement"], scene.measurement, "the measurement")
            for name, reason in reasons.items():
                good = (folder / name).read_bytes()
                (folder / name).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
                code, said = judge(folder, INSECURE)
                check(code == UNTRUSTED and said["reason"] == reason, f"another byte of {name}: {code}, {said}")
                (folder / name).write_bytes(good)
            salt = (folder / "salt").read_text()
            (folder / "salt").write_text(("1" if salt[0] == "0" else "0") + salt[1:])
            check_equal(judge(folder, INSECURE)[0], UNTRUSTED, "the exit code with another salt")
            (folder / "salt").write_text(salt)
            check_equal(judge(folder)[1]["reason"], "simulated-not-accepted", "the reason without the flag")
            other = scene.policy("other", measurement="0" * 96)
            check_equal(judge(folder, INSECURE, policy=other)[0], UNTRUSTED, "the exit code with another policy")
            check_equal(judge(folder, INSECURE)[0], 0, "the exit code at last")


@case("a client's policy refuses another measurement, model, tenant and configuration, and the simulated TEE unasked")
def refused_by_the_client(context):
    with attested(context) as scene:
        good = scene.policy("good")
        scene.cloud(good)
        scene.await_ready(scene.cvm())
        changes = {
            "measurement": ("measurement", "0" * 96),
            "model-identity": ("model", "0" * 64),
            "tenant-key": ("tenant_key", "1" * 64),
            "configuration": ("configuration", "0" * 64),
        }
        for reason, (field, value) in changes.items():
            policy = scene.policy(field, **{field: value})
            code, said = scene.verify(policy)
            check(code == UNTRUSTED and reason in json.dumps(said), f"another {field}: {code}, {said}")
            proxy, _ = scene.proxy(policy, "--token-file", scene.token)
            check_equal(proxy.wait(), UNTRUSTED, f"the exit code of the proxy with another {field}")
        # Without the flag neither the policy nor the evidence of the simulated TEE counts.
        command = (context.program("talaria"), "verify", scene.front, "--policy", good)
        code, _, errors = context.run(*command)
        check(code in (2, UNTRUSTED), f"without the flag: {code}, {errors}")
        check_equal(scene.verify(good)[0], 0, "the exit code of verify at last")
    return f"{len(changes) + 1} refusals"


@case("a provider's policy refuses a CVM: exit code 7, the reason in the cloud's log, and nothing of the model")
def refused_by_the_provider(context):
    reasons = {
        "measurement": ("measurement", "0" * 96),
        "tenant-key": ("tenant_key", "1" * 64),
        "configuration": ("configuration", "0" * 64),
    }
    with attested(context) as scene:
        for reason, (field, value) in reasons.items():
            cloud = scene.cloud(scene.policy(field, **{field: value}))
            cvm = scene.cvm()
            check_equal(cvm.wait(60), UNTRUSTED, f"the CVM's exit code with another {field}")
            check(reason in cloud.errors(), f"the cloud's log has no '{reason}': {cloud.errors()[-300:]}")
            check("policy does not accept" in cvm.errors(), "the CVM does not say why")
            stop_gently(cloud)
        # A cloud that was not asked to take simulated evidence takes none.
        cloud = scene.cloud(scene.policy("good"), flags=())
        check_equal(scene.cvm().wait(60), UNTRUSTED, "the CVM's exit code without the cloud's flag")
        check("simulated-not-accepted" in cloud.errors(), cloud.errors()[-300:])
        # And a cloud with another key than the pinned one gets no evidence at all.
        stop_gently(cloud)
        (scene.folder / "provider.pem").unlink()
        scene.run("talaria-cloud", "key", scene.folder / "provider.pem")
        cloud = scene.cloud(scene.policy("good"))
        cvm = scene.cvm()
        check_equal(cvm.wait(60), 5, "the CVM's exit code with another provider")
        check("admitted" not in cloud.errors(), "the wrong provider admitted the CVM")


@case("a CVM that restarts under a running proxy is verified anew before anything goes to it")
def restart_under_the_proxy(context):
    with attested(context) as scene:
        policy = scene.policy("good")
        cloud = scene.cloud(policy)
        cvm = scene.await_ready(scene.cvm())
        _, client = scene.proxy(policy, "--token-file", scene.token, "--wait", "60")
        first = client.ask("POST", "/v1/completions", completion(PROMPT, 6))
        stop_gently(cvm)
        cvm = scene.cvm()  # a new key
        again = client.ask("POST", "/v1/completions", completion(PROMPT, 6))  # waits for it
        check_equal(again.text(), first.text(), "the answer of the new CVM")
        check(cloud.errors().count("admitted a CVM") == 2, "the cloud did not admit two keys")
        # Gone for good: 503 and when to come again, after --wait.
        cvm.send(signal.SIGKILL)
        cvm.wait()
        (scene.folder / "proxy.sock").unlink(missing_ok=True)
        _, client = scene.proxy(policy, "--token-file", scene.token, "--wait", "1")
        lost = client.ask("POST", "/v1/completions", completion(PROMPT, 4))
        check_equal(lost.status, 503, "the status without a CVM")
        check("retry-after" in {key.lower() for key in dict(lost.headers)}, "there is no Retry-After")

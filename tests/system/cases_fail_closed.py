"""Nothing leaves before the verdict: real processes, a relay between them that counts, and a peer that lies in one thing.

What a client may tell a CVM that it does not believe is one random number; what a provider tells a CVM that it does not
believe is the model's identity and "not attested". Each refusal is compared, record by record, with the beginning of
what passes between processes that do believe each other; and the peer's record has the plaintext itself.
"""

import contextlib
import hashlib
import json
import re
import ssl
import subprocess

from cases_attested import INSECURE, UNTRUSTED, attested
from harness import Skip, case, check, check_equal, wait_until
from middle import Middle, knock
from processes import Client, Process, can_connect, completion, stop_gently
from stage import PROMPT
from tls_relay import ALERT, APPLICATION_DATA, TlsRelay, check_no_more_than

CANARY = "canary-before-the-verdict"
ONE_REQUEST = (
    rb"POST /v1/talaria/attestation HTTP/1\.1\r\nHost: talaria\r\nContent-Type: application/json\r\n"
    rb'Content-Length: 76\r\n\r\n\{"nonce":"[0-9a-f]{64}"\}'
)
LATE_S = 24 * 365 * 86400  # 2050: the simulated TEE's certificates have ended
# What is told, and the reason why it is not believed. The same at the client and at the provider.
LIES = {
    "measurement": "snp-measurement",
    "debug-guest": "snp-debug",
    "older-tcb": "snp-tcb-reported",
    "other-chip": "snp-chip-not-allowed",
    "revoked-certificate": "snp-revoked",
    "one-check-vector": "check-vectors",
    "model": "model-identity",
    "tenant": "tenant-key",
    "configuration": "configuration",
    "stale-nonce": "snp-report-data",
    "another-session": "snp-report-data",
    "other-role": "snp-report-data",
    "another-key": "snp-report-data",
    "for-another-peer": "snp-report-data",
    "context-changed-later": "snp-report-data",
    "labelled-genuine": "evidence-type-not-accepted",
    "certificate-damaged": "vek-format",
    "report-changed-later": "snp-signature",
}


def tell(name, who, reason, passages):
    up, down = (sum(sum(p.sealed(direction)) for p in passages) for direction in ("up", "down"))
    print(
        f"        {name}: {who} refuses, {reason}; {len(passages)} connections, encrypted bytes {up} to it, {down} back",
        flush=True,
    )


def peer_program(context):
    path = context.tests and context.tests / "talaria-test-peer"
    if not path or not path.exists():
        raise Skip("there is no talaria-test-peer")
    return path


def late(context):
    """The environment of a process that believes it is 2050."""
    return {
        "LD_PRELOAD": str(context.tests / "libtalaria_test_clock.so"),
        "TALARIA_TEST_CLOCK_SHIFT_S": str(LATE_S),
    }


def identity_arguments(scene):
    """What a CVM that the scene's policy accepts says of itself."""
    configuration = hashlib.sha256((scene.folder / "cvm.toml").read_bytes()).hexdigest()
    return ["--measurement", scene.measurement, "--model", scene.identity, "--tenant", scene.tenant] + [
        "--configuration",
        configuration,
    ]


def of_both_kinds(scene):
    """A policy that accepts the scene's CVM, and some real one too: so it is good without the flag of the simulated TEE."""
    simulated = scene.policy("simulated").read_text()
    digits = {"measurement": 96, "model": 64, "tenant-key": 64, "configuration": 64}
    arguments = [f"--{name}={'0' * count}" for name, count in digits.items()]
    real = scene.run("talaria", "policy", "init", "--type", "sev-snp", *arguments)
    path = scene.folder / "both.policy.toml"
    section = real[real.index("[sev_snp]") :].replace("chips = []", 'chips = "any"')
    check("[[sev_snp.product]]" in section, "the draft has no product")
    path.write_text(simulated + "\n" + section)
    return path


class Peer(Process):
    """A front that lies. `plaintext` is all that users have sent to it."""

    count = 0

    def __init__(self, scene, lie, *arguments):
        Peer.count += 1
        self.socket, self.record = scene.folder / f"p{Peer.count}.sock", scene.folder / f"p{Peer.count}.record"
        super().__init__(
            [peer_program(scene.context), "serve", "--lie", lie, "--listen", f"unix:{self.socket}"]
            + ["--record", self.record, *identity_arguments(scene), *arguments],
            scene.folder / "peer.out",
            scene.folder / "peer.err",
        )
        scene.processes.append(self)
        wait_until(lambda: can_connect(self.socket) or not self.running(), 10, "the peer listens")
        check(self.running(), "the peer ended: " + self.errors()[-300:])

    @property
    def plaintext(self):
        return self.record.read_bytes()


@contextlib.contextmanager
def relayed(scene, upstream):
    relay = TlsRelay(scene.folder / f"relay{len(scene.processes)}.sock", upstream)
    try:
        yield relay
    finally:
        relay.close()


def verify(context, relay, policy, *flags, environment=None):
    command = (context.program("talaria"), "verify", relay.endpoint, "--policy", policy, "--json", *flags)
    code, out, errors = context.run(*command, env=environment or {})
    return code, json.loads(out)["reason"] if code == UNTRUSTED else errors + out


def chat(scene, relay, policy, *flags):
    """The exit code of `talaria chat` with a prompt already on its standard input."""
    command = [scene.context.program("talaria"), "chat", relay.endpoint, "--policy", policy, *flags]
    done = subprocess.run(
        [str(part) for part in command + ["--token-file", scene.token]],
        input=f"{CANARY}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode


def check_only_nonces(plaintext, requests):
    check(re.fullmatch(ONE_REQUEST * requests, plaintext), f"the peer was sent {plaintext[:400]!r}")


def check_refused_by_client(scene, relay, name, reason, truth, policy, *flags, environment=None):
    code, said = verify(scene.context, relay, policy, *flags, environment=environment)
    check(code == UNTRUSTED and said.startswith(reason), f"{name}: exit code {code}, {said}")
    passages = relay.taken()
    check_equal(len(passages), 1, f"{name}: connections")
    check_no_more_than(passages[0].sealed("up"), truth, f"{name}: the client's records")
    tell(name, "the client", said, passages)


@case("fail closed, client: a CVM that the policy does not accept is sent one random number, counted on the way")
def client_and_real_cvm(context):
    peer_program(context)
    with attested(context) as scene:
        good = scene.policy("good")
        scene.cloud(good)
        scene.await_ready(scene.cvm())
        with relayed(scene, scene.folder / "cvm.sock") as relay:
            code, said = verify(context, relay, good, INSECURE)
            check_equal(code, 0, f"the exit code of verify ({said})")
            truth = relay.taken()[0].sealed("up")
            refusals = {"wrong measurement": ("snp-measurement", {"measurement": "0" * 96})}
            refusals["wrong model"] = "model-identity", {"model": "0" * 64}
            refusals["another tenant's CVM of the same image"] = "tenant-key", {"tenant_key": "1" * 64}
            refusals["another configuration"] = "configuration", {"configuration": "0" * 64}
            for name, (reason, changes) in refusals.items():
                policy = scene.policy("other", **changes)
                check_refused_by_client(scene, relay, name, reason, truth, policy, INSECURE)
                check_equal(chat(scene, relay, policy, INSECURE), UNTRUSTED, f"{name}: the exit code of chat")
                passages = relay.taken()
                check(passages, "chat did not even ask")
                for passage in passages:
                    check_no_more_than(passage.sealed("up"), truth, f"{name}: the records of chat")
            # 2050: certificates and revocation lists have ended.
            arguments = ("expired certificates", "", truth, good, INSECURE)
            check_refused_by_client(scene, relay, *arguments, environment=late(context))
            # The simulated TEE unasked: it is asked for its evidence like any other, and that is not taken.
            both = of_both_kinds(scene)
            check_equal(verify(context, relay, both, INSECURE)[0], 0, "the exit code of verify with the flag")
            relay.taken()
            arguments = ("simulated evidence without the flag", "simulated-not-accepted", truth, both)
            check_refused_by_client(scene, relay, *arguments)
            check_equal(chat(scene, relay, both), UNTRUSTED, "without the flag: the exit code of chat")
            for passage in relay.taken():
                check_no_more_than(passage.sealed("up"), truth, "without the flag: the records of chat")
    return f"{len(refusals) + 2} refusals, verify and chat"


@case("fail closed, client: a CVM that lies in one thing learns one random number, by its own record")
def client_and_liars(context):
    peer_program(context)
    with attested(context) as scene:
        good = scene.policy("good")
        peer = Peer(scene, "none")
        with relayed(scene, peer.socket) as relay:
            code, said = verify(context, relay, good, INSECURE)
            check_equal(code, 0, f"the exit code of verify when the peer does not lie ({said})")
            check_only_nonces(peer.plaintext, 1)
            truth = relay.taken()[0].sealed("up")
            # It would have been told more: the record and the sizes do show a prompt.
            check_equal(chat(scene, relay, good, INSECURE) in (0, 5), True, "chat with a peer that does not lie")
            check(CANARY.encode() in peer.plaintext, "the peer's record does not show a prompt")
            check(len(relay.taken()[0].sealed("up")) > len(truth), "the relay does not show a prompt")
            for lie, reason in LIES.items():
                peer.end()
                peer = Peer(scene, lie)
                relay.upstream = str(peer.socket)
                check_refused_by_client(scene, relay, lie, reason, truth, good, INSECURE)
                check_equal(chat(scene, relay, good, INSECURE), UNTRUSTED, f"{lie}: the exit code of chat")
                for passage in relay.taken():
                    check_no_more_than(passage.sealed("up"), truth, f"{lie}: the records of chat")
                check_only_nonces(peer.plaintext, 2)
    return f"{len(LIES)} lies, verify and chat"


@case("fail closed, client: a man in the middle with a true CVM's evidence, TLS 1.2, and another key behind the proxy")
def client_and_the_middle(context):
    peer_program(context)
    with attested(context) as scene:
        good = scene.policy("good")
        scene.cloud(good)
        cvm = scene.await_ready(scene.cvm())
        with relayed(scene, scene.folder / "cvm.sock") as relay:
            check_equal(verify(context, relay, good, INSECURE)[0], 0, "the exit code of verify")
            truth = relay.taken()[0].sealed("up")
            # His certificate, and the evidence of a true CVM for the client's own nonce.
            middle = Peer(scene, "none", "--upstream", scene.front)
            relay.upstream = str(middle.socket)
            check_refused_by_client(
                scene, relay, "man in the middle, relayed evidence", "snp-report-data", truth, good, INSECURE
            )
            check_only_nonces(middle.plaintext, 1)
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                old = Middle(scene.folder / f"{version.name}.sock", version, scene.folder)
                relay.upstream = str(scene.folder / f"{version.name}.sock")
                code, _ = verify(context, relay, good, INSECURE)
                passages = relay.taken()
                old.close()
                if version == ssl.TLSVersion.TLSv1_2:
                    check_equal((code, old.handshakes, old.got), (5, 0, b""), "TLS 1.2: exit code, handshakes, bytes")
                    check_equal([p.sealed("up") for p in passages], [[]] * len(passages), "TLS 1.2: encrypted records")
                    check(any(kind == ALERT for kind, _ in passages[0].down), "it was not the version that ended it")
                    tell("downgrade to TLS 1.2", "the client", "no handshake", passages)
                else:  # the middle's server is one that would have been spoken to
                    check_only_nonces(old.got, 1)
            check("TLSv1.3" != knock(scene.folder / "cvm.sock", ssl.TLSVersion.TLSv1_2, scene.folder), "TLS 1.2")
            check_equal(knock(scene.folder / "cvm.sock", ssl.TLSVersion.TLSv1_3, scene.folder), "TLSv1.3", "the front")

            # A verified CVM, and then somebody else where it was: without its key, nothing is sent.
            relay.upstream = str(scene.folder / "cvm.sock")
            address = f"unix:{scene.folder}/second.sock"
            proxy = Process(
                [context.program("talaria"), "proxy", relay.endpoint, "--policy", good, "--listen", address, INSECURE]
                + ["--token-file", scene.token, "--wait", "1"],
                scene.folder / "second.out",
                scene.folder / "second.err",
            )
            scene.processes.append(proxy)
            wait_until(lambda: can_connect(address[5:]), 30, "the proxy listens")
            client = Client(address)
            check_equal(client.complete(PROMPT, 2).status, 200, "the status while the CVM is there")
            impostor = Peer(scene, "measurement")
            relay.upstream = str(impostor.socket)
            stop_gently(cvm)
            relay.cut_all()
            relay.taken()
            refused = client.ask("POST", "/v1/completions", completion(CANARY, 4))
            check_equal(refused.status, 503, "the status with somebody else there")
            check("nothing was sent" in refused.body.decode(), f"the proxy says {refused.body!r}")
            stop_gently(proxy)
            passages = relay.taken()
            for passage in passages:
                check_no_more_than(passage.sealed("up"), truth, "a second connection without the key: the records")
            asked = impostor.plaintext.count(b"POST")
            check_only_nonces(impostor.plaintext, asked)
            check(asked >= 1, "the proxy did not even ask")
            tell("second connection without the attested key", "the proxy", "snp-measurement", passages)


def after_handshake(passage):
    """The cloud's records but the five of its handshake, whose signature varies in length by some bytes."""
    check(sum(passage.sealed("down")[:5]) < 700, f"the cloud's handshake is {passage.sealed('down')[:5]}")
    return passage.sealed("down")[5:]


def knocked(scene, relay, *arguments):
    """What the peer was answered, and its passages; the last is of the connection that matters."""
    code, out, errors = scene.context.run(
        *(peer_program(scene.context), "knock", "--cloud", relay.endpoint, "--provider", scene.provider),
        *(*identity_arguments(scene), *arguments),
    )
    check_equal(code, 0, f"the peer's exit code ({errors[-300:]})")
    return json.loads(out), relay.taken()


@case("fail closed, provider: a CVM that lies learns 'not attested' and nothing of the model, always in the same bytes")
def cloud_and_liars(context):
    peer_program(context)
    with attested(context) as scene:
        good = scene.policy("good")
        cloud = scene.cloud(good)
        with relayed(scene, scene.folder / "cloud.sock") as relay:
            said, passages = knocked(scene, relay)
            check_equal((said["answer"], said["weights"], said["hints"]), ("attested", "chunk", "chunk"), "the truth")
            open_door = said["bytes"]
            refused = None

            def check_refused(name, reason, *arguments):
                nonlocal refused
                before = len(cloud.errors())
                said, passages = knocked(scene, relay, *arguments)
                check_equal(
                    (said["answer"], said["weights"], said["hints"]), ("error 2", "closed", "closed"), f"{name}: the answers"
                )
                check(reason in cloud.errors()[before:], f"{name}: the log says {cloud.errors()[before:]!r}")
                answer = said["bytes"], after_handshake(passages[0])  # the other one, if any, is of another CVM
                refused = refused or answer
                check_equal(answer, refused, f"{name}: what the peer was told, beside other lies")
                check(said["bytes"] < open_door, "as much as with the truth")
                tell(name, "the cloud", reason, passages)

            for lie, reason in LIES.items():
                check_refused(lie, reason, "--lie", lie)
            check_refused("relayed evidence of another CVM", "snp-report-data", "--first", "relayed")
            for first in ("multiply", "multiply-without-hello", "second-connection"):
                said, passages = knocked(scene, relay, "--first", first)
                answers = {said["answer"] or "error 2", said["weights"], said["hints"]}
                check(answers <= {"error 2", "closed"} and said["bytes"] <= refused[0], f"{first}: {said}")
                tell(first, "the cloud", "not attested", passages)
            # A true CVM that is not accepted is told as little: by the policy, in 2050, and where nobody asked for the simulated TEE.
            stop_gently(cloud)
            for name, policy, flags, environment in (
                ("a true CVM of another image", scene.policy("other", measurement="0" * 96), [INSECURE], {}),
                ("expired certificates", good, [INSECURE], late(context)),
                ("simulated evidence without the flag", of_both_kinds(scene), [], {}),
            ):
                scene.endpoint = f"unix:{scene.folder}/cloud.sock"
                cloud = scene.cloud(policy, flags, environment)
                check(cloud.running(), f"{name}: the cloud ended: {cloud.errors()[-300:]}")
                scene.endpoint = relay.endpoint
                if environment:  # a CVM of 2026 would not find the way to it
                    said, passages = knocked(scene, relay)
                    check_equal((said["answer"], said["weights"], said["bytes"]), ("error 2", "closed", refused[0]), name)
                else:
                    cvm = scene.cvm()
                    check_equal(cvm.wait(60), UNTRUSTED, f"{name}: the CVM's exit code")
                    check("policy does not accept" in cvm.errors(), "the CVM does not say why")
                    passages = relay.taken()
                    check_equal([after_handshake(p) for p in passages], [refused[1]], f"{name}: what the cloud sent")
                reason = cloud.errors().strip().splitlines()[-1]
                wanted = {"expired": "snp-expired", "simulated": "simulated-not-accepted"}.get(name.split()[0], "snp-measurement")
                check(wanted in reason, f"{name}: the log says {reason}")
                tell(name, "the cloud", wanted, passages)
                stop_gently(cloud)
    return f"{len(LIES) + 7} refusals, {refused[0]} bytes of plaintext each"


@case("fail closed, CVM: a cloud with a certificate of its own, or of TLS 1.2, gets no evidence and no byte")
def cvm_and_the_middle(context):
    with attested(context) as scene:
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            path = scene.folder / f"m{version.value}.sock"
            middle = Middle(path, version, scene.folder)
            with relayed(scene, path) as relay:
                scene.endpoint = relay.endpoint
                cvm = scene.cvm()
                check_equal(cvm.wait(60), 5, "the CVM's exit code")
                passages = relay.taken()
            middle.close()
            check_equal(middle.got, b"", f"plaintext for the middle ({version.name})")
            check(passages, "the CVM did not even connect")
            for passage in passages:
                # At most the alert that ends it, which TLS 1.3 encrypts: 2 bytes, their type and the tag.
                sealed = [size for kind, size in passage.up if kind == APPLICATION_DATA]
                check(sealed in ([], [19]), f"{version.name}: the CVM's encrypted records are {sealed}")
            tell(f"man in the middle, {version.name}", "the CVM", "the channel to the cloud", passages[:1])
        scene.endpoint = f"unix:{scene.folder}/cloud.sock"
        scene.cloud(scene.policy("good"))
        check("TLSv1.3" != knock(scene.folder / "cloud.sock", ssl.TLSVersion.TLSv1_2, scene.folder), "TLS 1.2")

"""The proxy while its CVM comes and goes: what waits, what fails, and that nothing goes where nobody was verified."""

import re
import signal
import threading

from cases_attested import INSECURE, UNTRUSTED, attested
from cases_fail_closed import CANARY, Peer, check_only_nonces, peer_program, relayed, tell, verify
from harness import case, check, check_equal, wait_until
from processes import completion, stop_gently
from stage import PROMPT


@case("proxy: requests under way when the CVM dies fail once and visibly; new ones wait for its successor")
def under_way(context):
    with attested(context) as scene:
        policy = scene.policy("good")
        cloud = scene.cloud(policy)
        cvm = scene.await_ready(scene.cvm())
        _, client = scene.proxy(policy, "--token-file", scene.token, "--wait", "60")
        answers = []
        whole = threading.Thread(target=lambda: answers.append(client.complete(PROMPT, 1900)))
        stream = client.stream(PROMPT, 1900)
        check_equal(next(stream)[0], "data", "the first event of the stream")
        whole.start()
        whole.join(0.3)  # it has reached the CVM, and waits there for the stream's end
        cvm.send(signal.SIGKILL)
        cvm.wait()
        events = list(stream)
        check_equal(events[-1][0], "cut", "how the stream ended")
        check(("data", "[DONE]") not in events, "the stream ended as if nothing had happened")
        whole.join(30)
        check(answers and answers[0].status == 502, f"the other request got {answers and answers[0].status}")
        check("may have had the request" in answers[0].body.decode(), f"it says {answers[0].body!r}")
        waiting = threading.Thread(target=lambda: answers.append(client.complete(PROMPT, 4)))
        waiting.start()
        waiting.join(1)
        check(waiting.is_alive(), "a new request does not wait")
        scene.await_ready(scene.cvm())
        waiting.join(60)
        check_equal(answers[-1].status, 200, "the status of the request that waited")
        check_equal(cloud.errors().count("admitted a CVM"), 2, "keys that the cloud admitted")


@case("proxy: when max_age ends, a new request goes to nobody that is not verified anew, not even over an open connection")
def max_age(context):
    peer_program(context)
    with attested(context) as scene:
        policy = scene.policy("good")
        scene.cloud(policy)
        scene.await_ready(scene.cvm())
        impostor = Peer(scene, "measurement")
        with relayed(scene, scene.folder / "cvm.sock") as relay:
            front, scene.front = scene.front, relay.endpoint
            proxy, client = scene.proxy(policy, "--token-file", scene.token, "--max-age", "2", "--wait", "1")
            scene.front = front
            check_equal(client.complete(PROMPT, 2).status, 200, "the status at first")
            verified = lambda: len(set(re.findall(r"verified: evidence (\w+)", proxy.errors())))  # noqa: E731
            wait_until(lambda: verified() >= 2, 30, "the proxy verifies again before max_age ends")
            check_equal(client.complete(PROMPT, 2).status, 200, "the status after it was verified again")
            before = relay.passages[:]
            relay.upstream = str(impostor.socket)  # open connections to the true CVM stay
            wait_until(lambda: "not verified" in proxy.errors(), 30, "the next verification meets the impostor")
            sizes = [sum(passage.sealed("up")) for passage in before]
            refused = client.ask("POST", "/v1/completions", completion(CANARY, 2))
            check_equal(refused.status, 503, "the status after max_age")
            check("retry-after" in {key.lower() for key in refused.headers}, "there is no Retry-After")
            for passage, size in zip(before, sizes):
                # Connections to the true CVM may say good-bye, one padded record each; the request is longer.
                check(sum(passage.sealed("up")) - size <= 528, "something went over an old connection")
            check_only_nonces(impostor.plaintext, impostor.plaintext.count(b"POST"))
            check(impostor.plaintext, "the impostor was not even asked")
            # The true one comes back, and so do the answers.
            relay.upstream = str(scene.folder / "cvm.sock")
            wait_until(lambda: client.complete(PROMPT, 2).status == 200, 60, "answers come again", 0.5)
            stop_gently(proxy)
            tell("max_age is over", "the proxy", "snp-measurement", relay.taken())


@case("verify says the key exchange's group, and a policy that requires a post-quantum one is kept before the nonce")
def post_quantum(context):
    peer_program(context)
    with attested(context) as scene:
        policy = scene.policy("good")
        scene.cloud(policy)
        scene.await_ready(scene.cvm())
        code, said = scene.verify(policy)
        check_equal(code, 0, "the exit code of verify")
        group = said["key_exchange"]
        check(group, "verify does not say the group")
        code, text, _ = context.run(context.program("talaria"), "verify", scene.front, "--policy", policy, INSECURE)
        check(code == 0 and re.search(rf"^key exchange +{re.escape(group)}$", text, re.M), f"verify prints {text[:400]}")
        strict = scene.folder / "strict.toml"
        changed = re.sub(r"require_post_quantum = false", "require_post_quantum = true", policy.read_text())
        check(changed != policy.read_text(), "the draft requires a post-quantum group already")
        strict.write_text(changed)
        peer = Peer(scene, "none")
        with relayed(scene, peer.socket) as relay:
            code, reason = verify(context, relay, strict, INSECURE)
            passages = relay.taken()
        if "MLKEM" in group:
            check_equal(code, 0, "the exit code with a post-quantum group")
        else:
            check_equal((code, reason), (UNTRUSTED, "post-quantum"), "the exit code and the reason")
            check_equal(peer.plaintext, b"", "what was sent to it")
            tell("key exchange that is not post-quantum", "the client", reason, passages)
    return group

"""The cloud goes away, stalls or is cut off. What runs fails within seconds, the session lives, the next request works."""

import contextlib
import signal
import threading
import time

from harness import case, check, check_equal, patient
from processes import Cloud, Cvm, tokens_of
from proxy import CHUNK, MULTIPLY, PRODUCT, Cut, frame
from stage import PROMPT, real, tiny, tiny_cloud

ERROR_SECONDS = 5  # after the loss of a connection


@contextlib.contextmanager
def scene_of(context, settings=None):
    """(folder, cloud, proxy, cvm), ready, with the tiny model; the CVM must outlive the case."""
    with tiny(context, settings) as (cloud, proxy, cvm):
        yield cloud.socket.parent, cloud, proxy, cvm
        check(cvm.running(), f"talaria-cvm ended: {cvm.errors()[-300:]}")


def at_product(proxy, number, action):
    """Calls action() when the number-th product from now passes. Returns a list that then has the time."""
    seen, times = [0], []

    def on_reply(kind, body):
        if kind == PRODUCT:
            seen[0] += 1
            if seen[0] == number:
                times.append(time.monotonic())
                return action()
        return None

    proxy.on_reply = on_reply
    return times


def check_failed_stream(events, lost):
    texts = [" ".join(event) for event in events]
    check("data [DONE]" not in texts, "the stream ended with [DONE]")
    check(any('"error"' in text for text in texts), f"no error event: {texts[-2:]}")
    check(lost, "the fault never happened")


@case("the cloud is killed in the middle of a stream: an error event within 5 s, no [DONE]; restarted, it serves again")
def killed(context):
    scene = real(context)
    client = scene.cvm.client
    before = client.complete(PROMPT, 8).text()
    lost = at_product(scene.proxy, 500, lambda: scene.cloud.send(signal.SIGKILL))
    events = list(client.stream(PROMPT, 400))
    seconds = time.monotonic() - lost[0]
    check_failed_stream(events, lost)
    check(seconds < patient(ERROR_SECONDS), f"the error came after {seconds:.1f} s")
    check(0 < len(tokens_of(events)) < 400, "the fault was not in the middle")
    check_equal(client.ask("GET", "/healthz").status, 200, "/healthz without a cloud")
    check(client.ask("GET", "/readyz").status in (200, 503), "/readyz without a cloud")
    # Without a stream, and no cloud from the start.
    began = time.monotonic()
    answer = client.complete(PROMPT, 8)
    check(
        answer.status >= 500 and b'"error"' in answer.body and b'"choices"' not in answer.body,
        f"{answer.status}: {answer.body[:200]!r}",
    )
    whole = time.monotonic() - began
    check(whole < patient(ERROR_SECONDS), f"the error came after {whole:.1f} s")
    scene.restart_cloud()
    scene.cloud.await_listening()
    check(client.ready(), "/readyz is down with the cloud back")
    check_equal(client.complete(PROMPT, 8).text(), before, "the answer afterwards")
    return f"{seconds:.1f} s in a stream, {whole:.1f} s without"


@case("the cloud is restarted while a request waits: the identical bytes go out again, and the answer is the same")
def restarted_in_time(context):
    with scene_of(context) as (folder, cloud, proxy, cvm):
        wanted = cvm.client.complete(PROMPT, 60).text()
        proxy.watch_requests = True
        seen, killed_at = [0], threading.Event()

        def on_request(kind, body):
            seen[0] += kind == MULTIPLY
            if seen[0] == 200 and not killed_at.is_set():
                cloud.end()  # the request is read, and never answered
                killed_at.set()
            return None

        proxy.on_request = on_request
        result = []
        asking = threading.Thread(target=lambda: result.append(cvm.client.complete(PROMPT, 60)))
        asking.start()
        check(killed_at.wait(60), "the fault never happened")
        again = Cloud(context, context.tiny[1], folder)
        try:
            asking.join()
            check(result, "there was no answer")
            check_equal(result[0].text(), wanted, "the answer")
        finally:
            again.end()
        repeated = [digests for digests in proxy.requests.values() if len(digests) > 1]
        check(repeated, "nothing was sent twice")
        check(all(len(set(digests)) == 1 for digests in repeated), "a repeated request had other bytes")


@case(
    "the cloud stalls in the middle of an answer: an error after the time-outs; when it goes on, the next request works"
)
def stalled(context):
    with scene_of(context, {"cloud": {"idle_timeout_ms": 1500, "max_retries": 2}}) as (folder, cloud, proxy, cvm):
        wanted = cvm.client.complete(PROMPT, 20).text()
        lost = at_product(proxy, 100, lambda: cloud.send(signal.SIGSTOP))
        events = list(cvm.client.stream(PROMPT, 400))
        seconds = time.monotonic() - lost[0]
        cloud.send(signal.SIGCONT)
        check_failed_stream(events, lost)
        check(seconds < patient(1.5 * 3 + 0.5), f"the error came after {seconds:.1f} s")
        check_equal(cvm.client.complete(PROMPT, 20).text(), wanted, "the answer afterwards")
        return f"{seconds:.1f} s with a time-out of 1.5 s"


@case("connections cut inside a frame, at any place: the identical bytes go out on another one, and nothing is noticed")
def cut_inside_frames(context):
    with scene_of(context) as (folder, cloud, proxy, cvm):
        wanted = cvm.client.complete(PROMPT, 30).text()
        proxy.watch_requests = True
        for keep in (0, 1, 4, 5, 12, 21, 22, 1000, -1):

            def cut():
                raise Cut(cut.data[:keep])

            seen = [0]

            def on_reply(kind, body):
                seen[0] += kind == PRODUCT
                if kind == PRODUCT and seen[0] == 120:
                    cut.data = frame(kind, body)
                    return cut()
                return None

            proxy.on_reply = on_reply
            check_equal(cvm.client.complete(PROMPT, 30).text(), wanted, f"the answer with a cut after {keep} bytes")
            check(seen[0] >= 120, "the fault never happened")
        proxy.on_reply = None
        seen = [0]

        def on_request(kind, body):
            seen[0] += kind == MULTIPLY
            if kind == MULTIPLY and seen[0] == 120:
                raise Cut(frame(kind, body)[: len(body) // 2])
            return None

        proxy.on_request = on_request
        check_equal(cvm.client.complete(PROMPT, 30).text(), wanted, "the answer with a request cut in half")
        check(cloud.running(), "the cloud ended")
        repeated = [digests for digests in proxy.requests.values() if len(digests) > 1]
        check_equal(len(repeated), 10, "the number of repeated requests")
        check(all(len(set(digests)) == 1 for digests in repeated), "a repeated request had other bytes")


@case("every connection is cut: all running requests fail, also in two slots; the session lives")
def cut_for_good(context):
    with scene_of(context, {"server": {"slots": 2, "context": 4096}}) as (folder, cloud, proxy, cvm):
        streams = [cvm.client.stream(prompt, 1500) for prompt in (PROMPT, "1 2 3")]
        first = [next(s) for s in streams]
        check(all(kind == "data" for kind, _ in first), f"the streams began with {first}")

        def on_reply(kind, body):
            if kind == PRODUCT:
                raise Cut()
            return None

        proxy.on_reply = on_reply
        began = time.monotonic()
        rest = [[], []]
        threads = [threading.Thread(target=lambda s=s, r=r: r.extend(s)) for s, r in zip(streams, rest)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        seconds = time.monotonic() - began
        for events in rest:
            check_failed_stream(events, True)
        check(seconds < patient(ERROR_SECONDS), f"the errors came after {seconds:.1f} s")
        proxy.on_reply = None
        cvm.client.complete(PROMPT, 8).text()
        return f"{seconds:.1f} s"


@case("connections are cut again and again during set-up: it goes on where it was")
def cut_in_set_up(context):
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        chunks, cuts = [0], [0]

        def on_reply(kind, body):
            chunks[0] += kind == CHUNK
            if kind == CHUNK and chunks[0] % 9 == 0:
                cuts[0] += 1
                raise Cut(frame(kind, body)[: len(body) // 3])
            return None

        proxy.on_reply = on_reply
        cvm = Cvm(context, folder, proxy.endpoint, identity)
        try:
            cvm.await_ready()
            proxy.on_reply = None
            cvm.client.complete(PROMPT, 4).text()
        finally:
            cvm.end()
        check(cuts[0] >= 4, f"only {cuts[0]} cuts")
        return f"{cuts[0]} cuts"

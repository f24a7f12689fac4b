"""How the processes end: signals, and the death of each of them. Nothing is ever left running."""

import os
import signal
import threading
import time

from harness import case, check, check_equal, patient, wait_until
from processes import Cvm, await_gone, can_connect, tokens_of
from stage import PROMPT, tiny, tiny_cloud

STOPPED, UNAVAILABLE = 130, 5


def check_nothing_left(cvm, family):
    await_gone(family.values())
    check(not cvm.run_dir.exists(), "the run folder is left")
    check(not os.path.exists(cvm.address[len("unix:") :]), "the API's socket is left")


@case("SIGTERM and SIGINT end talaria-cvm with 130, idle and in the middle of an answer, and nothing is left")
def signals(context):
    longest = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        for busy in (False, True):
            with tiny(context) as (cloud, proxy, cvm):
                family = cvm.family()
                check(len(family) == 2, f"the children are {family}")
                stream = cvm.client.stream(PROMPT, 1500)
                if busy:
                    next(stream)
                began = time.monotonic()
                cvm.send(number)
                events = list(stream) if busy else []
                check(
                    ["data", "[DONE]"] not in [list(e) for e in events], "the answer ended as if nothing had happened"
                )
                check_equal(cvm.wait(patient(5)), STOPPED, "the exit code")
                longest = max(longest, time.monotonic() - began)
                check_nothing_left(cvm, family)
                check(" error: " not in cvm.errors(), f"a stop on request is told as an error: {cvm.errors()[-200:]}")
    return f"{longest:.1f} s at most"


@case("a signal during set-up ends talaria-cvm with 130, also while the cloud stalls")
def signals_in_set_up(context):
    for bytes_before in (0, 200, 2000, 5000):
        with tiny_cloud(context) as (folder, cloud, proxy, identity):
            go_on, waiting = threading.Event(), threading.Event()

            def on_request(kind, body):
                if proxy.received > bytes_before:
                    waiting.set()
                    go_on.wait(60)
                return None

            proxy.on_request = on_request
            cvm = Cvm(context, folder, proxy.endpoint, identity, {"cloud": {"idle_timeout_ms": 60000}})
            try:
                check(waiting.wait(60), f"{bytes_before} bytes were never sent")
                family = cvm.family()
                cvm.send(signal.SIGTERM)
                check_equal(cvm.wait(patient(5)), STOPPED, f"the exit code after {bytes_before} bytes")
                check_nothing_left(cvm, family)
            finally:
                go_on.set()
                cvm.end()


@case("SIGTERM ends talaria-cloud with 0 while CVMs are connected; the CVM fails requests and lives")
def cloud_ends(context):
    with tiny(context) as (cloud, proxy, cvm):
        stream = cvm.client.stream(PROMPT, 1500)
        next(stream)
        cloud.send(signal.SIGTERM)
        check_equal(cloud.wait(patient(5)), 0, "the exit code")
        check(not cloud.socket.exists(), "the cloud's socket is left")
        events = list(stream)
        check(any('"error"' in text for _, text in events), f"no error event: {events[-2:]}")
        check(cvm.running(), "talaria-cvm ended, too")


@case(
    "talaria-cvm killed by SIGKILL takes its children with it; started again with the same folder and socket, it works"
)
def cvm_killed(context):
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        for attempt in range(2):
            cvm = Cvm(context, folder, proxy.endpoint, identity)
            try:
                cvm.await_ready()
                family = cvm.family()
                check("llama-server" in family and len(family) == 2, f"the children are {family}")
                stream = cvm.client.stream(PROMPT, 1500)
                next(stream)
                cvm.send(signal.SIGKILL)
                cvm.wait()
                await_gone(family.values())
                ends = list(stream)[-1]
                check(ends != ("end", ""), "the stream ended as if it were whole")
            finally:
                cvm.end()
        check(cloud.running() and can_connect(cloud.socket), "the cloud ended, too")


@case("llama-server or the launcher killed: the client gets an error, /readyz goes down, talaria-cvm ends and says so")
def child_killed(context):
    said = []
    for name in ("llama-server", "talaria-launch"):
        with tiny(context) as (cloud, proxy, cvm):
            family = cvm.family()
            events = []

            def ask():
                for event in cvm.client.stream(PROMPT, 1500):
                    events.append(event)

            asking = threading.Thread(target=ask)
            asking.start()
            wait_until(lambda: len(tokens_of(list(events))) > 2, 30, "the answer begins")
            os.kill(family[name], signal.SIGKILL)
            code = cvm.wait(patient(5))
            check(not cvm.client.ready(), "/readyz says yes without an engine")
            asking.join()
            check(len(tokens_of(events)) < 1500, "the fault was not in the middle")
            check(
                events[-1][0] == "cut" or any('"error"' in text for _, text in events),
                f"the stream ended as if it were whole: {events[-2:]}",
            )
            check(
                code > 0 and (name != "llama-server" or code == UNAVAILABLE), f"{name} killed: the exit code is {code}"
            )
            errors = [line for line in cvm.errors().splitlines() if " error: " in line]
            check(errors, f"{name} killed: nothing was said")
            said.append(errors[-1].partition("error: ")[2])
            check_nothing_left(cvm, family)
    return "; ".join(said)

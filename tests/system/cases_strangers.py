"""Strangers at the front and at the cloud: with the programs' own limits, they go, and users and CVMs come in."""

import contextlib
import re
import socket
import ssl
import threading
import time

from cases_attested import attested
from harness import case, check, check_equal, patient
from middle import connect
from processes import completion, stop_gently
from stage import PROMPT

PLACES = 64  # of a front
HELLO = bytes([7, 0, 0, 0, 1, 2, 0, 0, 0, 0, 4])  # doc/wire.md
KNOCK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def drip(tls, pieces, pause, sent):
    """Sends a piece now and then until the other side has closed; `sent` gets each."""
    tls.settimeout(pause)
    for piece in pieces:
        try:
            tls.sendall(piece)
            sent.append(piece)
            end = time.monotonic() + pause
            while time.monotonic() < end:
                if not tls.recv(4096):
                    return
        except TimeoutError:
            continue
        except OSError:
            return


@case("strangers who hold every place of the front and drip at the cloud are cut; a user and a CVM come in meanwhile")
def strangers(context):
    with attested(context) as scene, contextlib.ExitStack() as stack:
        policy = scene.policy("good")
        cloud = scene.cloud(policy)
        cvm = scene.await_ready(scene.cvm())

        def stranger(path):
            return stack.enter_context(connect(path, ssl.TLSVersion.TLSv1_3, scene.folder))

        began = time.monotonic()
        crowd = [stranger(scene.folder / "cvm.sock") for _ in range(PLACES)]
        # One of them asks for what needs no token, again and again; one at the cloud takes 22 s for its Hello.
        knocks, hello = [], []
        threads = [
            threading.Thread(target=drip, args=(crowd[0], [KNOCK] * 300, 1, knocks)),
            threading.Thread(
                target=drip,
                args=(stranger(scene.folder / "cloud.sock"), [bytes([byte]) for byte in HELLO], 2, hello),
            ),
        ]
        for thread in threads:
            thread.start()
        proxy, client = scene.proxy(policy, "--token-file", scene.token, "--wait", "60")
        answer = client.ask("POST", "/v1/completions", completion(PROMPT, 4))
        waited = time.monotonic() - began
        check_equal(answer.status, 200, f"the status after {waited:.0f} s ({answer.body[:300]!r})")
        for thread in threads:
            thread.join(patient(60))
            check(not thread.is_alive(), "a stranger is still there")
        check(0 < len(knocks) < 300, f"{len(knocks)} knocks")
        check(len(hello) < len(HELLO), "the cloud has taken a Hello that needed 22 s")
        for one in crowd[1:]:
            one.settimeout(patient(30))
            check_equal(one.recv(1), b"", "what the front said to a silent stranger")

        # Whoever knocks fills no log, and the CVM is still let in.
        for _ in range(30):
            with socket.socket(socket.AF_UNIX) as plain:
                plain.connect(str(scene.folder / "cloud.sock"))
                plain.sendall(KNOCK)
                plain.settimeout(10)
                with contextlib.suppress(OSError):
                    while plain.recv(4096):
                        pass
        check_equal(client.ask("POST", "/v1/completions", completion(PROMPT, 4)).text(), answer.text(), "the answer")
        for process in (proxy, cvm, cloud):
            stop_gently(process)
        lines = cloud.errors().count("refused a connection")
        more = sum(map(int, re.findall(r"(\d+) more connections refused within a minute", cloud.errors())))
        check(lines <= 10 and lines + more >= 30, f"{lines} lines, {more} more: {cloud.errors()[-500:]}")
        return f"the user came in after {waited:.0f} s, {lines} lines for {lines + more} refused"

"""`--receipts` of talaria proxy and talaria chat: no answer without a verified receipt on disk."""

import json
import os
import resource
import subprocess
import threading

from cases_attested import INSECURE, attested
from cases_fail_closed import Peer
from harness import case, check, check_equal
from processes import completion, stop_gently
from stage import PROMPT

LIES = {
    "receipt-of-another-request": "receipt-request",
    "receipt-of-another-answer": "receipt-response",
    "receipt-of-another-route": "receipt-exchange",
    "receipt-of-another-session": "snp-report-data",
    "receipt-changed-later": "receipt-signature",
}


def receipt_of(answer, folder):
    headers = {key.lower(): value for key, value in answer.headers.items()}
    check("talaria-receipt" in headers, f"no receipt is named: {answer.status}, {answer.body[:300]!r}")
    return folder / headers["talaria-receipt"]


def check_receipt(scene, folder, policy):
    command = (scene.context.program("talaria"), "receipt", "verify", folder, "--policy", policy, INSECURE)
    code, out, errors = scene.context.run(*command)
    check_equal(code, 0, f"the exit code of receipt verify ({out}, {errors})")
    check_equal(sorted(path.name for path in folder.iterdir()), ["receipt", "request", "response", "salt"], "the files")
    for path in folder.iterdir():
        check_equal(oct(path.stat().st_mode & 0o777), "0o600", f"the mode of {path.name}")


@case("receipts through talaria proxy and chat: one verified folder per answer, whole, streamed, at once; a full disk keeps none")
def through_the_proxy(context):
    with attested(context) as scene:
        policy, kept = scene.policy("good"), scene.folder / "receipts"
        cloud = scene.cloud(policy)
        cvm = scene.await_ready(scene.cvm())
        arguments = ("--token-file", scene.token, "--receipts", kept)
        proxy, client = scene.proxy(policy, *arguments)
        answers = [client.ask("POST", "/v1/completions", completion(PROMPT, 4))]
        folder = receipt_of(answers[0], kept)
        check_equal((folder / "response").read_bytes(), answers[0].body, "the answer that is kept")
        check_equal(json.loads((folder / "request").read_text())["prompt"], PROMPT, "the request that is kept")
        events = list(client.stream(PROMPT, 4))
        check_equal(events[-1][0], "end", "the end of the stream")
        threads = [
            threading.Thread(
                target=lambda: answers.append(client.ask("POST", "/v1/completions", completion(PROMPT, 4)))
            )
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_equal(client.ask("GET", "/v1/models").status, 200, "the status of a request without a receipt")
        check_equal(len(list(kept.iterdir())), 5, "the number of copies")
        for answer in answers:
            check_equal(answer.text(), answers[0].text(), "the text")
            check_receipt(scene, receipt_of(answer, kept), policy)
        stop_gently(proxy)

        # A disk that is full, for whom the files of the proxy are: nothing is kept, and nothing is answered.
        (scene.folder / "proxy.sock").unlink(missing_ok=True)
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))  # noqa: E731
        full = scene.folder / "full"
        proxy, client = scene.proxy(
            policy, "--token-file", scene.token, "--receipts", full, preexec_fn=limit, start_new_session=True
        )
        answer = client.ask("POST", "/v1/completions", completion(PROMPT, 4))
        check_equal(answer.status, 502, f"the status with a full disk ({answer.body[:300]!r})")
        check(b"receipt could not be kept" in answer.body and b"choices" not in answer.body, f"{answer.body[:300]!r}")
        check_equal(list(client.stream(PROMPT, 4))[-1][0], "cut", "the end of the stream with a full disk")
        check_equal(os.listdir(full), [], "what a full disk has")
        stop_gently(proxy)

        talk = subprocess.run(
            [context.program("talaria"), "chat", scene.front, "--policy", policy, INSECURE, "--max-tokens", "4"]
            + ["--token-file", scene.token, "--receipts", scene.folder / "talk"],
            input="Hello?\nAnd again?\n",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
        check_equal(talk.returncode, 0, f"the exit code of chat ({talk.stderr[-300:]})")
        stop_gently(cvm)
        stop_gently(cloud)  # the rest is offline
        copies = list((scene.folder / "talk").iterdir())
        check_equal(len(copies), 2, "the number of copies of chat")
        for copy in [*copies, *kept.iterdir()]:
            check_receipt(scene, copy, policy)
        said_aloud = "".join((scene.folder / f"{name}.err").read_text() for name in ("cloud", "cvm", "proxy"))
        check(PROMPT not in said_aloud, "the prompt is in a log")


@case("a CVM that lies in receipts: talaria proxy withholds the answer, says why, and keeps nothing")
def lies(context):
    with attested(context) as scene:
        policy = scene.policy("good")
        for lie, reason in {"none": "", **LIES}.items():
            peer, kept = Peer(scene, lie), scene.folder / f"kept-{lie}"
            arguments = ("--token-file", scene.token, "--receipts", kept)
            proxy, client = scene.proxy(policy, *arguments, server=f"unix:{peer.socket}")
            answer = client.ask("POST", "/v1/completions", completion(PROMPT, 4))
            if reason:
                check_equal(answer.status, 502, f"{lie}: the status")
                check(reason in answer.json()["error"]["message"], f"{lie}: {answer.body[:300]!r}")
                said = proxy.errors()
                check(f"its receipt could not be kept: not trusted: {reason}" in said, f"{lie}: {said[-300:]}")
                check_equal(os.listdir(kept), [], f"{lie}: what was kept")
            else:
                check_equal((answer.status, answer.body), (200, b"hello"), "the answer of the peer that tells the truth")
                check_receipt(scene, receipt_of(answer, kept), policy)
            stop_gently(proxy)
            (scene.folder / "proxy.sock").unlink(missing_ok=True)
            peer.end()
    return f"{len(LIES)} lies"

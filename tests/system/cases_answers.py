"""What a user gets when nothing goes wrong."""

import json
import os
import signal
import threading

from harness import case, check, check_equal, wait_until
from processes import Client, Cloud, Process, command_name, completion, descendants, identity_of, stop_gently, tokens_of
from stage import PROMPT, one_batch, real, tiny, tiny_cloud

QUESTION = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "seed": 1,
    "max_tokens": 12,
    "ignore_eos": True,
}


@case("an answer of the demo model through the OpenAI API is there, and the same the second time")
def answer(context):
    client = real(context).cvm.client
    check_equal(client.ask("GET", "/healthz").status, 200, "/healthz")
    models = client.ask("GET", "/v1/models").json()["data"]
    check_equal(len(models), 1, "the number of models")
    first = client.ask("POST", "/v1/chat/completions", QUESTION)
    check(first.text().strip(), "the answer is empty")
    check_equal(client.ask("POST", "/v1/chat/completions", QUESTION).text(), first.text(), "the second answer")
    context.shared["answer"] = first.text()
    check_equal(first.json()["usage"]["completion_tokens"], 12, "the number of tokens")
    return repr(first.text())


@case("a streamed answer is the same text in pieces and ends with [DONE]")
def stream(context):
    connection = real(context).cvm.client.send("POST", "/v1/chat/completions", {**QUESTION, "stream": True})
    response = connection.getresponse()
    check_equal(response.status, 200, "the status")
    check(response.getheader("Content-Type").startswith("text/event-stream"), "it is not an event stream")
    data = [line[len("data: ") :] for line in response.read().decode().splitlines() if line]
    connection.close()
    check_equal(data[-1], "[DONE]", "the last event")
    pieces = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in data[:-1]]
    check_equal("".join(pieces), context.shared["answer"], "the text")
    return f"{len(pieces)} events"


def laboratory_server(context, folder, cloud, identity, scheme, slots):
    """(laboratory, client, whether the server is up or the laboratory has ended) of a llama-server in the laboratory."""
    socket = folder / f"{scheme}.sock"
    command = [context.program("talaria-cvm-lab"), "run", "--cloud", cloud, "--identity", identity, "--scheme", scheme]
    command += ["--pool-batches", "1", "--stats", folder / f"{scheme}.json"]
    command += ["--plugin", context.plugin] if context.plugin else []
    command += ["--", "llama-server", "--host", socket, "-c", str(512 * slots), "-np", str(slots), "-t", "1", "-tb", "1"]
    command += ["--no-ui", "--offline", "--no-warmup"]
    lab = Process(command, folder / f"{scheme}.out", folder / f"{scheme}.err")
    client = Client(f"unix:{socket}")

    def healthy():
        try:
            return client.ask("GET", "/health").status == 200
        except OSError:
            return not lab.running()

    return lab, client, healthy


@case("masked answers are the unmasked integers' answers: tokens and log-probabilities, bit for bit")
def exact(context):
    request = completion(PROMPT, 24, logprobs=5, n_probs=5)
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        said = {}
        for scheme in ("none", "lattice"):
            lab, client, healthy = laboratory_server(context, folder, proxy.endpoint, identity, scheme, slots=1)
            try:
                wait_until(healthy, 60, "llama-server in the laboratory")
                check(lab.running(), f"the laboratory ended: {lab.errors()[-300:]}")
                said[scheme] = client.ask("POST", "/v1/completions", request).json()["choices"]
            finally:
                stop_gently(lab)
        check_equal(said["lattice"], said["none"], "the masked answer")
        check(len(said["none"][0]["logprobs"]["content"]) == 24, "there are no log-probabilities")


@case("with four slots and six chats at once every product of the demo model is the same, masked and unmasked")
def four_slots(context):
    folder = context.folder()
    cloud = Cloud(context, context.store, folder).await_listening()
    lab, client, healthy = laboratory_server(
        context, folder, f"unix:{cloud.socket}", identity_of(context.store), "both", slots=4
    )
    try:
        wait_until(healthy, 180, "llama-server in the laboratory")
        check(lab.running(), f"the laboratory ended: {lab.errors()[-300:]}")
        answers = {}

        def chat(number):
            question = f"Tell me {number + 2} facts about the number {number}. " + "Be brief. " * number
            body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 8 + number}
            answers[number] = client.ask("POST", "/v1/chat/completions", {**body, "ignore_eos": True})

        chats = [threading.Thread(target=chat, args=(number,)) for number in range(6)]
        for thread in chats:
            thread.start()
        for thread in chats:
            thread.join()
        for number in range(6):
            check_equal(answers[number].json()["usage"]["completion_tokens"], 8 + number, f"the tokens of chat {number}")
        # Its own end, not the laboratory's: only then are there statistics.
        for pid in descendants(lab.pid):
            if command_name(pid) == "llama-server":
                os.kill(pid, signal.SIGTERM)
        lab.wait(60)
        found = json.loads((folder / "both.json").read_text())["comparison"]
    finally:
        stop_gently(lab)
        cloud.end()
    # 30 layers of four groups and the head, at least once per token of the longest chat.
    check(found["calls"] >= 121 * 13, f"only {found['calls']} calls were compared")
    check_equal(found["differing_values"], 0, "the number of differing values")
    return f"{found['calls']} calls, {found['values']} values"


@case("a grammar, a JSON schema and token ids as a prompt work as in llama.cpp")
def features(context):
    with tiny(context) as (cloud, proxy, cvm):
        check_equal(
            cvm.client.complete(PROMPT, 8, grammar='root ::= "forced"', ignore_eos=False).text(),
            "forced",
            "the text by a grammar",
        )
        schema = {
            "type": "object",
            "properties": {"a": {"type": "boolean"}},
            "required": ["a"],
            "additionalProperties": False,
        }
        answer = cvm.client.complete(PROMPT, 200, ignore_eos=False, json_schema=schema).text()
        check(json.loads(answer)["a"] in (True, False), f"{answer!r} does not fit the schema")
        tokens = cvm.client.ask("POST", "/tokenize", {"content": PROMPT}).json()["tokens"]
        by_ids = cvm.client.complete(tokens, 8)
        check_equal(by_ids.json()["usage"]["prompt_tokens"], len(tokens), "the number of prompt tokens")


@case("requests at the same time are all answered; a client that leaves stops nothing but its own")
def parallel(context):
    prompts = [PROMPT, PROMPT[::-1], "1 2 3", "Talaria"]
    with tiny(context, {"server": {"slots": 2, "context": 4096}}) as (cloud, proxy, cvm):
        alone = [cvm.client.complete(p, 30).text() for p in prompts]
        together = [None] * len(prompts)

        def ask(i):
            together[i] = cvm.client.complete(prompts[i], 30).text()

        leaver = cvm.client.stream(PROMPT, 1500)
        next(leaver)
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
        for t in threads:
            t.start()
        leaver.close()
        for t in threads:
            t.join()
        # Two requests in one batch may add up in another order, so their answers need not be those of a request alone.
        check(all(together), "an answer is missing")
        check_equal([cvm.client.complete(p, 30).text() for p in prompts], alone, "the answers afterwards")


@case("a prompt of more than 600 tokens works with mask pools of one batch")
def small_pools(context):
    with tiny(context, {"masks": {"pool_bytes": one_batch(context)}}) as (cloud, proxy, cvm):
        tokens = [3 + i % 250 for i in range(700)]
        answer = cvm.client.complete(tokens, 20)
        check_equal(answer.json()["usage"]["prompt_tokens"], 700, "the number of prompt tokens")
        check_equal(len(tokens_of(cvm.client.stream(tokens, 20))) >= 20, True, "the stream has 20 tokens")

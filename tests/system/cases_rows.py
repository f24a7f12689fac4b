"""Mask rows are spent once each, and what crosses the wire depends on numbers of tokens only."""

import json

from harness import case, check, check_equal
from stage import tiny, tiny_cloud


@case(
    "mask rows: every row that was drawn is spent or burnt, with pools of one batch and with two, prompt of 640 tokens"
)
def rows(context):
    out = []
    with tiny_cloud(context) as (folder, cloud, proxy, identity):
        for batches in (1, 2):
            stats_file = folder / "stats.json"
            command = [
                context.program("talaria-cvm-lab"),
                "run",
                "--cloud",
                proxy.endpoint,
                "--identity",
                identity,
                "--pool-batches",
                batches,
                "--stats",
                stats_file,
            ]
            command += ["--plugin", context.plugin] if context.plugin else []
            command += ["--", "llama-bench", "-p", "640", "-n", "8", "-r", "1", "-t", "1", "-o", "json"]
            code, stdout, errors = context.run(*command)
            check_equal(code, 0, f"the exit code ({errors[-300:]})")
            stats = json.loads(stats_file.read_text())
            masks, session = stats["masks"], stats["session"]
            check_equal(masks["rows_drawn"], masks["rows_spent"] + masks["rows_burnt"], "rows drawn")
            check_equal(masks["rows_burnt"], 0, "rows burnt without a fault")
            check_equal(masks["rows_spent"], session["rows"], "rows spent")
            check(session["rows"] >= 9 * 640, f"only {session['rows']} rows were multiplied")
            check_equal(masks["rows_capacity"], batches * 9 * 256, "the capacity")
            out.append(f"{masks['rows_spent']} rows")
    return ", ".join(out)


@case(
    "messages depend on numbers of tokens only: equal and different tokens give the same types, groups, rows and sizes"
)
def sequence(context):
    recorded = {}
    length = 70
    prompts = {"equal": [42] * length, "different": list(range(10, 10 + length)), "periodic": [10, 11] * (length // 2)}
    for name, prompt in prompts.items():
        # A fresh CVM each, so that full pools are cut at the same places.
        with tiny(context) as (cloud, proxy, cvm):
            proxy.record = []
            for repeat in range(2):
                answer = cvm.client.complete(prompt, 12)
                check_equal(answer.json()["usage"]["completion_tokens"], 12, "the number of tokens")
            recorded[name] = proxy.record
            proxy.record = None
    first = recorded["equal"]
    check(len(first) >= 2 * 12 * 2 * 9, f"only {len(first)} messages were seen")
    for name, messages in recorded.items():
        check(
            messages == first,
            f"the sequence of '{name}' differs, {len(messages)} messages and not {len(first)}, or other ones",
        )
    half = len(first) // 2
    check(first[:half] == first[half:], "the same prompt again gave other messages: something of it was kept")
    return f"{len(first)} messages"

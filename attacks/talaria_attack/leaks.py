"""What no mask hides: what the times and row counts of calls say, and what rows say without any weights. Of a recording's
`cloud/` alone (doc/recording.md); `truth/` is read by check() only.

A prompt comes in calls of many rows, a token of an answer in a call of one: so the lengths of prompts and answers show, and the
pace of the answer. This is no attack on tokens, and no scheme here stops it.
"""
import json
from pathlib import Path

import numpy as np

from . import modq, recording


def evaluations(folder):
    """[(rows, time in us)] of every pass through the model: the calls of the first group that was kept. Rows of one pass come in several
    calls where they are many or a batch of masks ends; no other group's call is between those. (Where one group was kept, each call is taken for a pass.)"""
    calls = [json.loads(line) for line in (Path(folder) / "cloud" / "calls.jsonl").read_text().splitlines()]
    groups = {c["group"] for c in calls}
    out, before = [], None
    for c in calls:
        if c["group"] == min(groups):
            if before == c["group"] and len(groups) > 1:
                out[-1][0] += c["rows"]
            else:
                out.append([c["rows"], c["time_us"]])
        before = c["group"]
    return out


def conversations(folder):
    """[{prompt_rows, answer_rows, seconds_per_answer_row}]: a pass of several rows begins a prompt, one of a single row is an answer's.
    A prompt of one token is taken for a token of the answer before it, and one that takes several passes for several prompts."""
    out = []
    for rows, time in evaluations(folder):
        if rows > 1 or not out:
            out.append({"prompt_rows": rows, "answer_rows": 0, "times": []})
        else:
            out[-1]["answer_rows"] += 1
            out[-1]["times"].append(time)
    for x in out:
        gaps = np.diff(x.pop("times"))
        x["seconds_per_answer_row"] = round(float(np.median(gaps)) / 1e6, 4) if len(gaps) else None
    return out


def check(folder):
    """How many of the prompts have exactly the lengths that conversations() says: (right, all)."""
    truth = []
    for line in (Path(folder) / "truth" / "evaluations.jsonl").read_text().splitlines():
        e = json.loads(line)
        if e["positions"][0] == 0:
            truth.append([0, 0])
        truth[-1][0 if e["positions"][0] == 0 else 1] += len(e["tokens"])
    seen = [[x["prompt_rows"], x["answer_rows"]] for x in conversations(folder)]
    return sum(a == b for a, b in zip(seen, truth)), max(len(truth), len(seen))


def of_rows(view, rows=1024):
    """{rows, distinct, rank, full_rank}: repetitions of rows, and the rank mod q of the first d. Random rows are all distinct and of
    full rank; rows without a mask repeat with their tokens."""
    some = view.rows[:rows]
    d = some.shape[1]
    return {"rows": len(some), "distinct": len(np.unique(some, axis=0)), "rank": len(modq.reduced(some[:d])[1]), "full_rank": min(d, len(some))}


def report(folder, group=0):
    """Of one recording, for the report."""
    view = recording.load_cloud(folder, group)
    right, prompts = check(folder)
    paces = [x["seconds_per_answer_row"] for x in conversations(folder) if x["seconds_per_answer_row"]]
    return {"scheme": view.scheme, "prompts": prompts, "lengths_right": right, "seconds_per_answer_row": round(float(np.median(paces)), 4) if paces else None,
            "of_rows": of_rows(view)}

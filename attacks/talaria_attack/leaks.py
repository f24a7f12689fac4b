"""What no mask hides: what the times and row counts of calls say, and what rows say without any weights. Of a recording's
`cloud/` alone (doc/recording.md); `truth/` is read by check() only.

A prompt comes in calls of many rows, a token of an answer in a call of one: so the lengths of prompts and answers show, and the
pace of the answer. This is no attack on tokens, and no scheme here stops it.
"""
import json
from pathlib import Path

import numpy as np

from . import modq, recording

LARGEST_CALL = 128  # rows of a call at most (doc/wire.md)


def conversations(folder):
    """[{prompt_rows, answer_rows, prompt_seconds, answer_seconds}], by the calls of the first group that was kept.

    A call of several rows, or one after a full one, continues or begins a prompt; calls of one row are an answer's.
    A prompt of one token is taken for a token of the answer before it.
    """
    calls = [json.loads(line) for line in (Path(folder) / "cloud" / "calls.jsonl").read_text().splitlines()]
    out, full = [], False
    group = min((c["group"] for c in calls), default=None)
    for c in (c for c in calls if c["group"] == group):
        if not out or (c["rows"] > 1 and not full):
            out.append({"prompt_rows": 0, "answer_rows": 0, "times": []})
        out[-1]["prompt_rows" if c["rows"] > 1 or full or not out[-1]["prompt_rows"] else "answer_rows"] += c["rows"]
        if c["rows"] == 1 and not full:
            out[-1]["times"].append(c["time_us"])
        full = c["rows"] == LARGEST_CALL
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
    """Everything of one recording, for the report."""
    view = recording.load_cloud(folder, group)
    right, prompts = check(folder)
    return {"scheme": view.scheme, "prompts": prompts, "lengths_right": right, "conversations": conversations(folder), "of_rows": of_rows(view)}

"""What the model itself proposes at each position of a text, and the states that those proposals have at deeper layers.

The attacker's own run of `talaria-lab-runner --candidates` under scheme none (doc/recording.md): it has the weights and the CVM's
software, so its states are the CVM's bit for bit. At each position it is told the tokens before it. That is more than it has: a
cloud that reads a scheme recovers them itself, except where the right token is not among the proposals; there it would search the
rest of the vocabulary, at 200 times the cost.
"""
import json
from pathlib import Path

import numpy as np

from . import modq, recording


class Candidates:
    """tokens [positions][proposals], most likely first; rows: h of each, int16 [positions][proposals][d]."""

    def __init__(self, tokens, rows):
        self.tokens, self.rows = tokens, rows

    def proposed(self, truth):
        """The number of positions whose token is among the proposals: no attack on candidates recovers more."""
        return int(np.any(self.tokens == np.asarray(truth)[:, None], axis=1).sum())

    def save(self, path):
        np.savez(path, tokens=self.tokens, rows=self.rows)


def load(path):
    with np.load(path) as f:
        return Candidates(f["tokens"], f["rows"])


def of_recording(folder, group):
    """ValueError."""
    view = recording.load_cloud(folder, group)
    if view.scheme != "none":
        raise ValueError(f"{folder}: candidates must be recorded with --scheme none")
    tokens, rows, row, before = [], [], 0, 0
    for line in (Path(folder) / "truth" / "evaluations.jsonl").read_text().splitlines():
        e = json.loads(line)
        n = len(e["tokens"])
        if e["sequences"][0] > 0:  # a batch of proposals; 0 is the token that stood there, or what begins a document
            if before == 0:
                tokens.append([])
                rows.append([])
            tokens[-1] += e["tokens"]
            rows[-1] += range(row, row + n)
        before = e["sequences"][0]
        row += n
    if not tokens or len({len(t) for t in tokens}) != 1:
        raise ValueError(f"{folder}: not a recording of talaria-lab-runner --candidates")
    if row != len(view.rows):
        raise ValueError(f"{folder}: {row} tokens for {len(view.rows)} rows")
    h = np.stack([(modq.centred(view.rows[r]) // view.delta).astype(np.int16) for r in rows])
    return Candidates(np.array(tokens, np.int32), h)

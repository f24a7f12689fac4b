"""What a recording holds (doc/recording.md). `cloud` is the adversary's view; `truth` is read for scoring only."""
import json
from pathlib import Path

import numpy as np

from . import modq

DEGREE = 256  # N of profile 1, and the rows of a batch (doc/masking.md)


def read_residues(path, d):
    raw = np.fromfile(path, np.uint8)
    if raw.size % (6 * d):
        raise ValueError(f"{path}: not whole rows of {d} six-byte residues")
    out = np.zeros(raw.size // 6, np.uint64)
    for i in range(6):
        out |= raw[i::6].astype(np.uint64) << np.uint64(8 * i)
    if out.size and out.max() >= modq.Q:
        raise ValueError(f"{path}: a residue is not below q")
    return out.reshape(-1, d)


class CloudView:
    """Of one group: rows [n][d] mod q, delta, and what is public of the mask: M_pub [m][d] or None, and A by coefficients, [k][N][d], or None.
    places: of each row in the group's stream, ascending. Masks are served in order, so place p has row p mod N of batch p // N."""

    def __init__(self, scheme, rows, delta, public=None, lattice=None, places=None):
        self.scheme, self.rows, self.delta, self.public, self.lattice = scheme, rows, delta, public, lattice
        self.places = np.arange(len(rows)) if places is None else places

    def part(self, rows):
        """The same of some rows."""
        return CloudView(self.scheme, self.rows[rows], self.delta, self.public, self.lattice, self.places[rows])


def load_cloud(folder, group=0):
    cloud = Path(folder) / "cloud"
    info = json.loads((cloud / "recording.json").read_text())
    if info["version"] != 1 or info["q"] != modq.Q:
        raise ValueError(f"{cloud}: recording version {info['version']}, q {info['q']}: not what this program reads")
    found = [g for g in info["groups"] if g["index"] == group]
    if not found:
        raise ValueError(f"{cloud}: group {group} was not kept; record again with --groups {group}")
    d = found[0]["d"]
    public = None
    if info["published"]:
        public = read_residues(cloud / info["published"]["files"][str(d)], d)
    lattice = None
    if info.get("lattice"):
        lattice = read_residues(cloud / info["lattice"]["files"][str(d)], d).reshape(-1, DEGREE, d)
    name = info["scheme"] + (f", m = {len(public)} of {d}" if public is not None else "")
    return CloudView(name, read_residues(cloud / f"group-{group}.residues", d), 2 ** found[0]["delta_bits"], public, lattice)


def load_tokens(folder):
    """Truth: the token of every row of a group that takes all rows, and the first row of every evaluation."""
    tokens, starts = [], []
    for evaluation in load_evaluations(folder):
        starts.append(len(tokens))
        tokens += evaluation["tokens"]
    return np.array(tokens), starts


def load_evaluations(folder):
    return [json.loads(line) for line in (Path(folder) / "truth" / "evaluations.jsonl").read_text().splitlines()]


def prompts_of(evaluations, text):
    """(first row, first row after it, tokens) of every prompt of a text, with its answer if it has one: position 0 begins one."""
    prompts, row = [], 0
    for e in evaluations:
        if e["text"] == text:
            if e["positions"][0] == 0:
                prompts.append([row, row, []])
            prompts[-1][1] += len(e["tokens"])
            prompts[-1][2] += e["tokens"]
        row += len(e["tokens"])
    return prompts


def load_table(folder):
    """The attacker's own run over the vocabulary, scheme none: h of every token, int32 [vocabulary][d]."""
    view = load_cloud(folder)
    if view.scheme != "none":
        raise ValueError(f"{folder}: the vocabulary's table must be recorded with --scheme none")
    h = modq.centred(view.rows)
    if np.any(h % view.delta):
        raise ValueError(f"{folder}: a row is not a multiple of Delta")
    tokens, _ = load_tokens(folder)
    table = np.zeros((int(tokens.max()) + 1, h.shape[1]), np.int32)
    table[tokens] = h // view.delta
    return table

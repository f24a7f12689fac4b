"""Runs attacks on a view and scores them. An attack is a file in attacks/ with NAME, ADAPTIVE and guess(); being there is enough."""
import importlib
import math
import pkgutil
import statistics
import time

import numpy as np

from . import attacks, modq
from .recording import CloudView


def find_attacks():
    return [importlib.import_module(f"{attacks.__name__}.{m.name}") for m in pkgutil.iter_modules(attacks.__path__)]


def interval(hits, n, comparisons, level=0.999):
    """Wilson's interval at `level`, Bonferroni-corrected for the number of comparisons."""
    if n == 0:
        return 0.0, 1.0
    z = statistics.NormalDist().inv_cdf(1 - (1 - level) / comparisons / 2)
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def run(attack, view, table, tokens, starts, candidates=None):
    """One line of the table, without its interval. Candidates: of these rows' positions, for attacks that need them."""
    started = time.monotonic()
    first = 0
    if getattr(attack, "NEEDS_KNOWN_HALF", False):
        first = len(tokens) // 2
        guesses = attack.guess(view, table, tokens[:first])
    elif getattr(attack, "NEEDS_CANDIDATES", False):
        guesses = attack.guess(view, candidates) if candidates is not None else None
    else:
        guesses = attack.guess(view, table)
    line = {"scheme": view.scheme, "attack": attack.NAME, "adaptive": attack.ADAPTIVE, "applies": guesses is not None,
            "seconds": round(time.monotonic() - started, 2)}
    if guesses is None:
        return line
    if getattr(attack, "NEEDS_CANDIDATES", False):
        line["recall"] = round(candidates.recall(tokens), 4)
    right = guesses[first:, 0] == tokens[first:]
    top10 = np.any(guesses[first:] == tokens[first:, None], axis=1)
    ends = list(starts[1:]) + [len(tokens)]
    prompts = [(s - first, e - first) for s, e in zip(starts, ends) if s >= first]
    return line | {"rows": int(len(right)), "hits": int(right.sum()), "top10": int(top10.sum()), "prompts": len(prompts),
                   "prompts_exact": sum(bool(right[s:e].all()) for s, e in prompts)}


def uniform_control(view, seed=20261129):
    """The negative control: as many rows, uniform mod q."""
    rows = np.random.default_rng(seed).integers(0, modq.Q, view.rows.shape, dtype=np.uint64)
    return CloudView("uniform (negative control)", rows, view.delta)


def judge(lines, chance):
    """Adds intervals, and for every line whether it lies within the negative control's."""
    scored = [x for x in lines if x["applies"]]
    for x in scored:
        x["interval"] = [round(v, 5) for v in interval(x["hits"], x["rows"], len(scored))]
    control = {x["attack"]: x for x in scored if x["scheme"].startswith("uniform")}
    for x in scored:
        c = control.get(x["attack"])
        if c:
            low, high = c["interval"]
            x["within_negative_control"] = bool(low <= x["hits"] / x["rows"] <= high)
    return {"version": 1, "chance": chance, "level": 0.999, "comparisons": len(scored), "lines": lines}

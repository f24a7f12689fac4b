"""Runs attacks on a view and scores them. An attack is a file in attacks/ with NAME, ADAPTIVE and guess(); being there is enough."""
import importlib
import pkgutil
import time

import numpy as np

from . import attacks, modq, statistics
from .recording import CloudView


CONTROL = "uniform (negative control)"


def find_attacks():
    return [importlib.import_module(f"{attacks.__name__}.{m.name}") for m in pkgutil.iter_modules(attacks.__path__)]


def run(attack, view, table, tokens, starts, candidates=None, inverter=None):
    """One line of the table, without its interval. For attacks that need them: candidates of these rows' positions, an inverter
    trained on the attacker's own prompts under the same scheme."""
    started = time.process_time()  # an attack has one thread, and a busy machine slows only the clock on the wall
    mine = np.zeros(len(tokens), bool)  # rows of the attacker's own, or known to it: not scored
    if getattr(attack, "NEEDS_KNOWN_HALF", False):
        mine[:len(tokens) // 2] = True
        guesses = attack.guess(view, table, tokens[mine])
    elif hasattr(attack, "known_rows"):
        mine = attack.known_rows(view)
        guesses = attack.guess(view, table, tokens[mine])
    elif getattr(attack, "NEEDS_CANDIDATES", False):
        guesses = attack.guess(view, candidates) if candidates is not None else None
    elif getattr(attack, "NEEDS_INVERTER", False):
        guesses = attack.guess(view, table, inverter) if inverter is not None else None
    else:
        guesses = attack.guess(view, table)
    line = {"scheme": view.scheme, "attack": attack.NAME, "adaptive": attack.ADAPTIVE, "applies": guesses is not None,
            "seconds": round(time.process_time() - started, 2)}
    if guesses is None:
        return line
    if getattr(attack, "NEEDS_CANDIDATES", False):
        line["proposed"] = candidates.proposed(tokens)
    right = guesses[:, 0] == tokens
    top10 = np.any(guesses == tokens[:, None], axis=1)
    ends = list(starts[1:]) + [len(tokens)]
    prompts = [(s, e) for s, e in zip(starts, ends) if not mine[s:e].any()]
    return line | {"rows": int((~mine).sum()), "hits": int(right[~mine].sum()), "top10": int(top10[~mine].sum()), "prompts": len(prompts),
                   "prompts_exact": sum(bool(right[s:e].all()) for s, e in prompts)}


def uniform_control(view, lattice=None, seed=20261129):
    """The negative control: as many rows, uniform mod q, behind the view's M_pub and some lattice scheme's A."""
    rows = np.random.default_rng(seed).integers(0, modq.Q, view.rows.shape, dtype=np.uint64)
    return CloudView(CONTROL, rows, view.delta, view.public, view.lattice if lattice is None else lattice, view.places)


def judge(lines, level=0.999):
    """Adds to every line its interval and whether it differs from its negative control, at `level` for the whole family.

    Differs: Fisher's exact test of equal shares, two-sided, p-values adjusted by Holm over all lines that have a control; yes where
    at most 1 - level. Holm's procedure has no intervals of its own that say more than its decisions, so intervals are Clopper and
    Pearson's at 1 - (1 - level) / (number of scored lines) each: by Bonferroni's inequality they hold together, and are wider than
    Holm's decisions are strict.
    """
    scored = [x for x in lines if x["applies"]]
    control = {_key(x): x for x in scored if x["scheme"] == CONTROL}
    for x in scored:
        x["interval"] = [round(v, 6) for v in statistics.interval(x["hits"], x["rows"], (1 - level) / len(scored))]
    tested = [x for x in scored if x["scheme"] != CONTROL and _key(x) in control]
    p_values = [statistics.differs(x["hits"], x["rows"], control[_key(x)]["hits"], control[_key(x)]["rows"]) for x in tested]
    for x, p, adjusted in zip(tested, p_values, statistics.holm(p_values)):
        low, high = control[_key(x)]["interval"]
        x |= {"p": p, "p_holm": adjusted, "differs_from_control": adjusted <= 1 - level, "within_control_interval": low <= x["hits"] / x["rows"] <= high}
    return {"level": level, "intervals": len(scored), "tests": len(tested)}


def _key(line):
    return line["text"], line["layer"], line["attack"]

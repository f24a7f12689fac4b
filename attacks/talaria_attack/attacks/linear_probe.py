"""A linear inverter trained on the attacker's own prompts: ridge regression from masked rows to plain rows, then the
nearest token of the vocabulary.

Needs: recorded rows of prompts that the attacker chose. Here the first half of the rows is its own (their tokens are known
to it), the second half is attacked; no guess is made, and none is scored, for the first half.
Cost: one [d][d] solve.
"""
import numpy as np

from .. import modq
from . import nearest_neighbour

NAME = "linear probe"
ADAPTIVE = True
NEEDS_KNOWN_HALF = True


def guess(view, table, known):
    """known: tokens of the first len(known) rows, the attacker's own."""
    scale = float(modq.Q)
    x = modq.centred(view.rows).astype(np.float64) / scale
    x /= max(x.std(), 1e-12)
    y = table[known].astype(np.float64)
    k = len(known)
    w = np.linalg.solve(x[:k].T @ x[:k] + 1e-3 * k * np.eye(x.shape[1]), x[:k].T @ y)
    plain = type(view)(view.scheme, modq.from_signed(np.rint((x @ w) * 2**16).astype(np.int64)), view.delta)
    return nearest_neighbour.guess(plain, table)

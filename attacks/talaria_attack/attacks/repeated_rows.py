"""Equal rows have equal tokens: a row that equals one of the attacker's own prompts names its token.

Needs: recorded rows of prompts that the attacker chose (the first half; the second half is attacked), and no weights at all.
Works on a mask that depends on the state only, or on none.
Cost: one sort. Source: folklore (encryption that is deterministic); arXiv 2510.15511 for why equal states mean equal texts.
"""
import numpy as np

from .. import fingerprint, modq

NAME = "repeated rows"
ADAPTIVE = True
NEEDS_KNOWN_HALF = True


def guess(view, table, known):
    prints = modq.matmul(view.rows, fingerprint.random_direction(view.rows.shape[1])[:, None])[:, 0]
    at = fingerprint.lookup(prints, prints[:len(known)])
    return np.where(at >= 0, known[at], -1)[:, None]

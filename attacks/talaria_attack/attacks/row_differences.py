"""Two rows under one mask differ by Delta (h_i - h_j): such pairs show (every difference is a multiple of Delta), and the
pair of tokens follows from the vocabulary's table by one look-up a candidate.

Needs: the weights. Works on a mask that is used twice (and on no mask at all).
Cost: all pairs of rows in one column, then [vocabulary] look-ups for each row that has a partner.
"""
import numpy as np

from .. import fingerprint, modq

NAME = "row differences"
ADAPTIVE = True


def _partner(rows, delta):
    """For every row another one whose difference is a multiple of delta everywhere, or -1; equal rows tell nothing."""
    out = np.full(len(rows), -1)
    for i in range(len(rows)):
        left = np.arange(len(rows))
        for columns in (slice(0, 1), slice(0, 8), slice(None)):  # few are left for the expensive comparison
            difference = modq.centred(modq.sub(rows[left, columns], rows[i, columns][None]))
            left = left[np.all(difference % delta == 0, axis=1)]
        left = left[np.any(rows[left] != rows[i], axis=1)]
        if len(left):
            out[i] = left[0]
    return out


def guess(view, table):
    r = fingerprint.random_direction(table.shape[1])
    prints = fingerprint.of_table(table, view.delta, r)
    order = np.argsort(prints, kind="stable")
    ordered = prints[order]
    rows = modq.matmul(view.rows, r[:, None])[:, 0]
    out = np.full((len(rows), 1), -1)
    for i, j in enumerate(_partner(view.rows, view.delta)):
        if j < 0:
            continue
        # h_i = h_j + difference for exactly one pair of tokens, with overwhelming probability
        wanted = (ordered + modq.sub(rows[i], rows[j])) % np.uint64(modq.Q)  # nearly in order: fast to look up
        at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        hits = np.flatnonzero(ordered[at] == wanted)
        if len(hits):
            out[i] = order[at[hits[0]]]
    return out

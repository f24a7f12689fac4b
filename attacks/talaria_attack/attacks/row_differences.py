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
    """For every row the first other one whose difference is a multiple of delta everywhere, or -1; equal rows tell nothing."""
    out = np.full(len(rows), -1)
    for i in range(len(rows)):
        first_column = modq.centred(modq.sub(rows[:, 0], rows[i, 0]))
        left = np.flatnonzero(first_column % delta == 0)  # few are left for the expensive comparison
        step = 2
        while len(left) and out[i] < 0:  # without a mask all are left, and one of the first will do
            some, left = left[:step], left[step:]
            difference = modq.sub(rows[some], rows[i][None])
            some = some[np.all(modq.centred(difference) % delta == 0, axis=1) & np.any(difference, axis=1)]
            if len(some):
                out[i] = some[0]
            step *= 2
    return out


_BITS = 22  # of a fingerprint of 48 that tell quickly that the vocabulary has none such: with 2^16 tokens 1 of 64 passes


def guess(view, table):
    r = fingerprint.random_direction(table.shape[1])
    prints = fingerprint.of_table(table, view.delta, r)
    order = np.argsort(prints, kind="stable")
    ordered = prints[order]
    first_bits = np.uint64(48 - _BITS)
    there = np.zeros(2**_BITS, bool)
    there[ordered >> first_bits] = True
    rows = modq.matmul(view.rows, r[:, None])[:, 0]
    out = np.full((len(rows), 1), -1)
    for i, j in enumerate(_partner(view.rows, view.delta)):
        if j < 0:
            continue
        # h_i = h_j + difference for exactly one pair of tokens, with overwhelming probability
        wanted = modq.add(ordered, modq.sub(rows[i:i + 1], rows[j:j + 1]))
        wanted = wanted[there[wanted >> first_bits]]
        at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        hits = np.flatnonzero(ordered[at] == wanted)
        if len(hits):
            out[i] = order[at[hits[0]]]
    return out

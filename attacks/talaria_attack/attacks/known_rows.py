"""Known tokens in every batch of a lattice mask: without its error term the secret of a batch follows by linear algebra.

The rows of a batch are the coefficients of s A, ring elements of Z_q[X] / (X^N + 1), A public. A row whose token is known gives its
mask, so d linear equations for the k N coefficients of s: four rows of 576 are 2,304 equations for 2,048 unknowns. Multiplied by
X^-r, s A has coefficient r first, so known rows that follow each other make the same system wherever they stand in a batch, with
X^-r s as its solution: one elimination serves all batches. With the secret all masks of the batch are known. With the error term
the system has no solution.

Needs: A, the weights, and the first four rows of each batch (a chat template's tokens are known to everybody); they are not scored.
Cost: one elimination of [2304][2048] mod q. Adapts to the mask.
Source: ours; the linear form of what lattice reduction does on rows with errors (attacks/lattice_reduction_test.py).
"""
import numpy as np

from .. import fingerprint, modq

NAME = "known rows"
ADAPTIVE = True


def known_rows(view):
    """bool [rows]: in each batch the first ones, enough for one equation more than there are unknowns, or more."""
    if view.lattice is None:
        return np.zeros(len(view.rows), bool)
    rank, degree, d = view.lattice.shape
    _, first = np.unique(view.places // degree, return_index=True)  # places ascend
    return np.arange(len(view.rows)) - np.repeat(first, np.diff([*first, len(view.rows)])) <= rank * degree // d


def equations(a, rows):
    """The matrix [rows d][k N] of s -> the first coefficients of s A; a is [k][N][d]."""
    degree = a.shape[1]
    out = []
    for row in range(rows):
        c = np.arange(degree)
        part = a[:, (row - c) % degree]
        part[:, c > row] = modq.sub(np.zeros(1, np.uint64), part[:, c > row])
        out.append(part.reshape(-1, a.shape[2]).T)
    return np.concatenate(out)


def guess(view, table, known):
    """known: tokens of known_rows(view), in order."""
    if view.lattice is None:
        return None
    out = np.full((len(view.rows), 1), -1)
    rank, degree, d = view.lattice.shape
    mine = known_rows(view)
    count = rank * degree // d + 1
    batches = [np.flatnonzero(view.places // degree == b) for b in np.unique(view.places // degree)]
    batches = [rows for rows in batches if len(rows) > count and np.all(np.diff(view.places[rows]) == 1)]
    if not batches:
        return out
    plain = np.zeros((len(mine), d), np.uint64)
    plain[mine] = modq.from_signed(table[known].astype(np.int64) * view.delta)
    masks = np.stack([modq.sub(view.rows[rows[:count]], plain[rows[:count]]).reshape(-1) for rows in batches], axis=1)
    exists, secrets = modq.solve(equations(view.lattice, count), masks)
    r = fingerprint.random_direction(d)
    of_a = modq.matmul(view.lattice.reshape(-1, d), r[:, None])  # of all masks the shadow on one direction is enough
    prints = fingerprint.of_table(table, view.delta, r)
    for rows, secret in zip((b for b, e in zip(batches, exists) if e), secrets.T[exists]):
        mask = modq.matmul(equations(secret.reshape(rank, degree, 1), len(rows)), of_a)[:, 0]  # s A = A s
        out[rows, 0] = fingerprint.lookup(modq.sub(modq.matmul(view.rows[rows], r[:, None])[:, 0], mask), prints)
    return out

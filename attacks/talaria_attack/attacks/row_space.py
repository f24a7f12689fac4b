"""Several rows at once: which rows of the vocabulary lie in the space that a block of rows spans mod q (behind the null space of
M_pub, if the scheme has one). Mixing rows hides which is which, and not what they span. A row of the vocabulary is then taken
for the token of a row of the block if its combination has that row alone.

Needs: the weights; rows that span less than everything: b rows of a block and m of M_pub, m + b < d.
Cost: for every block two eliminations of about [b][b], and one fingerprint of the vocabulary. Adapts to the mask.
Source: arXiv 2505.18332 attacks permuted and mixed states; this is the linear form, mod q.
"""
import numpy as np

from .. import fingerprint, modq

NAME = "row space"
ADAPTIVE = True
BLOCK = 256


def guess(view, table):
    out = np.full((len(view.rows), 1), -1)
    d = view.rows.shape[1]
    public = view.public if view.public is not None else np.zeros((0, d), np.uint64)
    free = modq.null_vectors(public, BLOCK + 8)  # [d][d - m], as many as a block needs and eight to tell chance
    block = min(BLOCK, free.shape[1] - 1)
    if block < 1:
        return out  # one direction is left, and one row spans it
    blocks = [np.unique(modq.matmul(view.rows[i:i + block], free), axis=0, return_inverse=True) for i in range(0, len(out), block)]
    outside = [modq.null_vectors(rows, 1) for rows, _ in blocks]
    prints = fingerprint.of_table(table, view.delta, np.hstack([modq.matmul(free, n) for n in outside]))
    for k, (rows, inverse) in enumerate(blocks):
        members = np.flatnonzero(prints[:, k] == 0)
        if len(members) > 2 * block:
            continue  # a direction that the vocabulary has not: it tells nothing
        states = modq.matmul(modq.from_signed(table[members].astype(np.int64) * view.delta), free)
        exists, share = modq.solve(rows.T, states.T)
        for member, of_rows in zip(members[exists], share.T[exists]):
            used = np.flatnonzero(of_rows)
            if len(used) == 1:
                out[k * block + np.flatnonzero(inverse == used[0]), 0] = member
    return out

"""Recovery of a static basis, then null-space projection: what the mask spans is learned from the attacker's own prompts, whose
masks it knows (row less Delta h). If they span less than everything, the mask vanishes in a direction that none of them has.

Needs: recorded rows of prompts that the attacker chose (the first half; the second half is attacked), more than the mask has
basis rows, and the weights. M_pub may be secret: this is why keeping it so does not save the published scheme.
Cost: one elimination of at most [d][d] mod q, then one fingerprint a row. Adapts to the mask.
"""
import numpy as np

from .. import fingerprint, modq

NAME = "static basis"
ADAPTIVE = True
NEEDS_KNOWN_HALF = True


def guess(view, table, known):
    out = np.full((len(view.rows), 1), -1)
    d = view.rows.shape[1]
    k = min(len(known), d)  # d rows of full rank leave no direction
    masks = modq.sub(view.rows[:k], modq.from_signed(table[known[:k]].astype(np.int64) * view.delta))
    free = modq.null_vectors(masks, 8)
    if free.shape[1]:  # one alone may look at a single column, which tells few tokens apart
        n = modq.matmul(free, fingerprint.random_direction(free.shape[1])[:, None])
        out[:, 0] = fingerprint.lookup(modq.matmul(view.rows, n)[:, 0], fingerprint.of_table(table, view.delta, n[:, 0]))
    return out

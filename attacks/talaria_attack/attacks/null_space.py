"""Projection on the null space of the public M_pub: M_pvt M_pub n = 0 for M_pub n = 0, so H~ n = Delta h n mod q.

Needs: M_pub (public by the published scheme's own definition) and the weights. One null vector is 48 bits of
fingerprint, enough to look a token up in the vocabulary; there is one for every m < d.
Where a scheme has no M_pub the attacker takes the best stand-in it has, none: the attack does not apply and guesses nothing.
Cost: one elimination of [m][d] mod q a run, then one fingerprint a row.
"""
import numpy as np

from .. import fingerprint, modq

NAME = "null space"
ADAPTIVE = True


def guess(view, table):
    if view.public is None:
        return None
    n = modq.null_vectors(view.public, 1)
    if n.shape[1] == 0:
        return np.full((len(view.rows), 1), -1)
    return fingerprint.lookup(modq.matmul(view.rows, n)[:, 0], fingerprint.of_table(table, view.delta, n[:, 0]))[:, None]

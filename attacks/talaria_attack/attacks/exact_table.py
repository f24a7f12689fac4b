"""The row looked up, as it is, in the table of the vocabulary's layer-0 inputs.

Needs: the weights (a layer-0 input depends on its token only, and the quantisation is deterministic).
Cost: one fingerprint a row. Does not adapt to the mask.
"""
from .. import fingerprint, modq

NAME = "exact table"
ADAPTIVE = False


def guess(view, table):
    r = fingerprint.random_direction(table.shape[1])
    return fingerprint.lookup(modq.matmul(view.rows, r[:, None])[:, 0], fingerprint.of_table(table, view.delta, r))[:, None]

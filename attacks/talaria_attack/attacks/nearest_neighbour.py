"""The row nearest in angle among the vocabulary's layer-0 inputs; the mask is taken for noise.

Needs: the weights. Does not adapt to the mask.
Cost: one product of the rows with the table.
Source: folklore; it stands here for an attack that does not adapt.
"""
import numpy as np

from .. import modq

NAME = "nearest neighbour"
ADAPTIVE = False


def guess(view, table):
    """int64 [rows][10], best first."""
    t = table.astype(np.float32)
    t /= np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-9)
    x = modq.centred(view.rows).astype(np.float32)
    out = np.zeros((len(x), min(10, len(t))), np.int64)
    for i in range(0, len(x), 256):
        s = x[i:i + 256] @ t.T
        top = np.argpartition(-s, out.shape[1] - 1, axis=1)[:, :out.shape[1]]
        out[i:i + 256] = np.take_along_axis(top, np.argsort(-np.take_along_axis(s, top, 1), axis=1), 1)
    return out

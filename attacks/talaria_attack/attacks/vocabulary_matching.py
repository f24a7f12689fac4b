"""The model's own proposals for a position, run through the model: the one whose state is nearest in angle to the row.

Needs: the weights, and the tokens before each position (candidates.py says why they are given).
Cost: 252 evaluations of the model for every token, shared by all schemes; then one product a row. Does not adapt to the mask.
Source: arXiv 2505.18332 (proposals of a model, matched at any layer); arXiv 2510.15511 (why states name their token).
"""
import numpy as np

from .. import modq

NAME = "vocabulary matching"
ADAPTIVE = False
DEEPER = True
NEEDS_CANDIDATES = True


def guess(view, candidates):
    out = np.zeros((len(view.rows), min(10, candidates.tokens.shape[1])), np.int64)
    for i, row in enumerate(modq.centred(view.rows).astype(np.float32)):
        states = candidates.rows[i].astype(np.float32)
        score = states @ row / np.maximum(np.linalg.norm(states, axis=1), 1e-9)
        out[i] = candidates.tokens[i][np.argsort(-score, kind="stable")[:out.shape[1]]]
    return out

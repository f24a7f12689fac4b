"""Lengths and angles: a mask that turns or permutes rows keeps the Gram matrix. Tokens whose rows have the length nearest to a
row's are candidates for it, and a candidate is the better the closer its products with the neighbours' candidates are to the
rows' own.

Needs: the weights. Works without a mask, and on masks that are one secret orthogonal matrix, permutations and sign changes.
Cost: one length a token of the vocabulary, and products of ten candidates a row with those of its four neighbours.
Source: folklore of "rotated" activations; arXiv 2505.18332 for the permuted ones. Does not adapt to the mask.
"""
import numpy as np

from .. import modq

NAME = "Gram matrix"
ADAPTIVE = False
NEIGHBOURS = 4


def guess(view, table):
    rows = modq.centred(view.rows) / float(view.delta)
    lengths = np.linalg.norm(rows, axis=1)
    of_table = np.concatenate([np.linalg.norm(table[i:i + 4096].astype(np.float64), axis=1) for i in range(0, len(table), 4096)])
    order = np.argsort(of_table, kind="stable")
    count = min(10, len(table))
    near = np.clip(np.searchsorted(of_table[order], lengths)[:, None] + np.arange(-count, count), 0, len(table) - 1)
    near = order[near]
    first = np.argsort(np.abs(of_table[near] - lengths[:, None]), axis=1, kind="stable")[:, :count]
    near = np.take_along_axis(near, first, 1)
    states = table[near].astype(np.float64)  # [rows][count][d]
    wrong = np.abs(of_table[near] - lengths[:, None])
    for i in range(len(rows)):
        for j in range(max(0, i - NEIGHBOURS), min(len(rows), i + NEIGHBOURS + 1)):
            if j != i:
                angle = (states[i] @ states[j].T - rows[i] @ rows[j]) / max(lengths[j], 1e-9)
                wrong[i] += np.abs(angle).min(1)
    return np.take_along_axis(near, np.argsort(wrong, axis=1, kind="stable"), 1)

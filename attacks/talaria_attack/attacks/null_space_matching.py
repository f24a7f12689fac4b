"""Vocabulary matching behind the null-space projection: the mask vanishes for M_pub n = 0, and the proposal whose state has the
row's fingerprint, H~ n = Delta h n mod q, is the token. One number has 48 bits, against 252 proposals.

Needs: M_pub, the weights, and states that are the CVM's bit for bit, which the CVM's own software gives: one wrong unit in one
of the entries changes the fingerprint. It holds for decode steps and for prompts of up to 63 tokens; from 64 on llama.cpp's
attention sums in tiles, and the attacker would have to run each proposal in a batch of the prompt's shape.
Cost: that of vocabulary matching, and one elimination of [m][d] mod q.
"""
import numpy as np

from .. import modq

NAME = "null-space matching"
ADAPTIVE = True
DEEPER = True
NEEDS_CANDIDATES = True


def guess(view, candidates):
    if view.public is None:
        return None
    out = np.full((len(view.rows), 1), -1)
    n = modq.null_vectors(view.public, 1)
    if n.shape[1] == 0:
        return out
    wanted = modq.matmul(view.rows, n)[:, 0]
    scaled = modq.mul(n, np.uint64(view.delta))
    for i in range(len(out)):
        prints = modq.matmul_small(candidates.rows[i], scaled)[:, 0]
        hits = np.flatnonzero(prints == wanted[i])
        if len(hits):
            out[i] = candidates.tokens[i][hits[0]]
    return out

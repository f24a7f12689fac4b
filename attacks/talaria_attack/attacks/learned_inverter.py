"""A learned inverter (inverter.py): ridge regression and a small network from masked rows to plain rows, then the nearest token of
the vocabulary.

Needs: the weights, and recorded rows of prompts that the attacker chose, 100,000 or more (training.py); none of the attacked rows
is among them.
Cost: one [d][d] solve and three passes over the training rows, once a scheme. Adapts to the mask.
Source: ours. It stands for attacks that search for a prompt instead of looking it up; arXiv 2503.09022 does so by optimising embeddings.
"""
import numpy as np

from .. import modq
from . import nearest_neighbour

NAME = "learned inverter"
ADAPTIVE = True
NEEDS_INVERTER = True


def guess(view, table, inverter):
    plain = np.rint(np.clip(inverter.invert(view.rows), -2.0**20, 2.0**20) * 2**16)
    return nearest_neighbour.guess(type(view)(view.scheme, modq.from_signed(plain.astype(np.int64)), view.delta), table)

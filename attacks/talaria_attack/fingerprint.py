"""Linear fingerprints mod q: equal rows have equal ones, others collide with probability about 2^-48 a pair."""
import numpy as np

from . import modq


def of_table(table, delta, direction):
    """delta * h . direction mod q for every row of the table (16 bits an entry, signed), uint64 [vocabulary]; for directions [d][k], [vocabulary][k]."""
    directions = modq.mul(direction.reshape(len(direction), -1), np.uint64(delta))
    out = [modq.matmul_small(table[i:i + 4096], directions) for i in range(0, len(table), 4096)]
    return np.concatenate(out).reshape(len(table), *direction.shape[1:])


def lookup(wanted, table_prints):
    """Index into the table for every wanted fingerprint, -1 where there is none."""
    order = np.argsort(table_prints, kind="stable")
    ordered = table_prints[order]
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[at] == wanted, order[at], -1)


def random_direction(d, seed=1):
    return np.random.default_rng(seed).integers(0, modq.Q, d, dtype=np.uint64)

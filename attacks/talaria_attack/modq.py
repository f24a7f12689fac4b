"""Exact arithmetic modulo q = 2^48 - 16383 with numpy. Arrays are uint64 in [0, q)."""
import hashlib

import numpy as np

Q = 2**48 - 16383
_Q = np.uint64(Q)


def mul(a, b):
    """a * b mod q, elementwise: Horner over three 16-bit limbs of b, no product reaches 2^64."""
    a, b = np.asarray(a, np.uint64), np.asarray(b, np.uint64)
    low, s = np.uint64(0xFFFF), np.uint64(16)
    r = a * (b >> np.uint64(32)) % _Q
    r = ((r << s) % _Q + a * (b >> s & low) % _Q) % _Q
    return ((r << s) % _Q + a * (b & low) % _Q) % _Q


def sub(a, b):
    return (np.asarray(a, np.uint64) + (_Q - np.asarray(b, np.uint64))) % _Q


def matmul(a, b):
    """a @ b mod q. Nine float64 products of 16-bit limbs, exact for up to 2^21 terms."""
    assert a.shape[1] <= 2**21
    limbs = lambda x: [(x >> np.uint64(16 * i) & np.uint64(0xFFFF)).astype(np.float64) for i in range(3)]
    la, lb = limbs(a), limbs(b)
    out = np.zeros((a.shape[0], b.shape[1]), np.uint64)
    for i in range(3):
        for j in range(3):
            out = (out + mul((la[i] @ lb[j]).astype(np.uint64) % _Q, np.uint64(pow(2, 16 * (i + j), Q)))) % _Q
    return out


def from_signed(x):
    return np.where(x < 0, x + np.int64(Q), x).astype(np.uint64)


def centred(x):
    """The representative of least magnitude, int64."""
    x = x.astype(np.int64)
    return np.where(x > Q // 2, x - Q, x)


def reduced(a):
    """Reduced row echelon form mod q without zero rows, [rank][d], and the columns of its leading ones. a is [m][d]."""
    a = a.copy()
    m, d = a.shape
    pivots, row = [], 0
    for column in range(d):
        nonzero = np.flatnonzero(a[row:, column]) if row < m else []
        if len(nonzero) == 0:
            continue
        p = row + int(nonzero[0])
        if p != row:
            a[[row, p]] = a[[p, row]]
        a[row, column:] = mul(a[row, column:], np.uint64(pow(int(a[row, column]), -1, Q)))
        others = np.flatnonzero(a[:, column])
        others = others[others != row]
        a[others, column:] = sub(a[others, column:], mul(a[others, column][:, None], a[row, column:][None]))
        pivots.append(column)
        row += 1
    return a[:row], pivots


def null_vectors(a, count):
    """`count` (or all, if fewer) columns n with a @ n = 0 mod q, uint64 [d][count]. a is [m][d]. The last few answers are kept: attacks
    ask for the same M_pub again and again."""
    key = hashlib.sha256(a.tobytes()).digest(), a.shape
    if key not in _null_spaces:
        while len(_null_spaces) >= 4:
            del _null_spaces[next(iter(_null_spaces))]
        _null_spaces[key] = _null_space(a)
    return _null_spaces[key][:, :count].copy()


def _null_space(a):
    d = a.shape[1]
    a, pivots = reduced(a)
    free = [c for c in range(d) if c not in set(pivots)]
    n = np.zeros((d, len(free)), np.uint64)
    n[free, range(len(free))] = 1
    n[pivots] = sub(np.zeros((len(pivots), len(free)), np.uint64), a[:, free])
    return n


_null_spaces = {}


def solve(a, b):
    """For every column of b whether some x has a @ x = b, and such an x (others: anything): bool [n], uint64 [k][n]. a is [m][k]."""
    k = a.shape[1]
    echelon, pivots = reduced(np.hstack([a, b]))
    inside = [p for p in pivots if p < k]
    x = np.zeros((k, b.shape[1]), np.uint64)
    x[inside] = echelon[:len(inside), k:]
    return ~np.any(echelon[len(inside):, k:], axis=0), x

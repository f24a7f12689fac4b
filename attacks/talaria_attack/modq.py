"""Exact arithmetic modulo q = 2^48 - 16383 with numpy. Arrays are uint64 in [0, q)."""
import hashlib

import numpy as np

Q = 2**48 - 16383
_Q, _FOLD, _LOW48 = np.uint64(Q), np.uint64(2**48 - Q), np.uint64(2**48 - 1)


def add(a, b):
    r = np.asarray(a, np.uint64) + np.asarray(b, np.uint64)
    return np.minimum(r, r - _Q)  # r < 2 q; what is below q wraps to more


def sub(a, b):
    r = np.asarray(a, np.uint64) - np.asarray(b, np.uint64)
    return np.minimum(r, r + _Q)  # a negative difference is more than q before q is added


def mul(a, b):
    """a * b mod q, elementwise. The quotient a b / q, below 2^48, is off by less than 3 * 2^-53 of itself in float64: rounded down
    it is right or one beside, and the remainder, computed mod 2^64, is in [-q, 2 q)."""
    a, b = np.asarray(a, np.uint64), np.asarray(b, np.uint64)
    quotient = (a.astype(np.float64) * (b.astype(np.float64) * (1 / Q))).astype(np.int64).view(np.uint64)
    r = a * b - quotient * _Q
    r = np.minimum(r, r + _Q)
    return np.minimum(r, r - _Q)


_TERMS = 2**13  # of one float64 product
_CHUNK = 2**16  # sums that are put together at once, so that they stay in the cache


def _limbs(x):
    return [(x >> np.uint64(16 * i) & np.uint64(0xFFFF)).astype(np.float64) for i in range(3)]


def matmul(a, b):
    """a @ b mod q. Float64 products of 16-bit limbs, one for each power of 2^16: their sums stay below 3 * 2^13 * 2^32 < 2^53."""
    a, b = np.asarray(a, np.uint64), np.asarray(b, np.uint64)
    if a.shape[1] > _TERMS:
        return add(matmul(a[:, :_TERMS], b[:_TERMS]), matmul(a[:, _TERMS:], b[_TERMS:]))
    out = np.zeros((a.shape[0], b.shape[1]), np.uint64)
    if out.size == 0 or a.shape[1] == 0:
        return out
    lb = _limbs(b)
    step = max(16, 2**22 // max(1, b.shape[1]))
    for i in range(0, len(a), step):
        la = _limbs(a[i:i + step])
        sums = [la[0] @ lb[0], la[0] @ lb[1], la[0] @ lb[2], la[1] @ lb[2], la[2] @ lb[2]]
        sums[1] += la[1] @ lb[0]
        sums[2] += la[1] @ lb[1]
        sums[2] += la[2] @ lb[0]
        sums[3] += la[2] @ lb[1]
        rows = max(1, _CHUNK // b.shape[1])
        for j in range(0, len(sums[0]), rows):
            out[i + j:i + j + rows] = _recombine([s[j:j + rows].astype(np.int64).view(np.uint64) for s in sums])
    return out


def _fold(x):
    """x mod q of any x < 2^64, as 2^48 = 16383 mod q."""
    r = (x & _LOW48) + (x >> np.uint64(48)) * _FOLD
    return np.minimum(r, r - _Q)


def _recombine(s):
    """s0 + 2^16 s1 + 2^32 s2 + 2^48 s3 + 2^64 s4 mod q for sums of at most (1, 2, 3, 2, 1) * 2^13 products of limbs; no step reaches 2^64."""
    high = (s[4] << np.uint64(16)) + s[3] + (s[2] >> np.uint64(16))  # of 2^48; below 2^61 + 2^46 + 2^31
    return _fold(_fold(high) * _FOLD + ((s[2] & np.uint64(0xFFFF)) << np.uint64(32)) + (s[1] << np.uint64(16)) + s[0])


def matmul_small(h, b):
    """h @ b mod q for integers h of at most 16 bits, signed, [n][d]; b uint64 [d][k]. Three float64 products."""
    assert h.shape[1] <= 2**14
    sums = []
    h = h.astype(np.float64)
    for limb in _limbs(np.asarray(b, np.uint64)):
        sums.append((h @ limb).astype(np.int64))  # less than 2^15 * 2^16 * 2^14 = 2^45
    x = (sums[2] >> 16) * 16383 + ((sums[2] & 0xFFFF) << 32) + (sums[1] << 16) + sums[0]  # less than 2^62 in magnitude
    return (x % Q).astype(np.uint64)


def from_signed(x):
    return np.where(x < 0, x + np.int64(Q), x).astype(np.uint64)


def centred(x):
    """The representative of least magnitude, int64."""
    x = x.astype(np.int64)
    return np.where(x > Q // 2, x - Q, x)


def reduced(a):
    """Reduced row echelon form mod q without zero rows, [rank][d], and the columns of its leading ones. a is [m][d].

    By halves: the rows of the first half, reduced, are taken out of the second half; that is reduced, and taken out of the first.
    Now no row has an entry in another row's pivot column. Each still begins with its own pivot: a row of the first half is changed
    by rows only whose pivots it has an entry at, and those lie right of where it begins, as it was reduced. So, sorted by pivots,
    the rows are a reduced row echelon form of the same row space, and there is one only.
    """
    a = np.asarray(a, np.uint64)
    if len(a) <= _SIMPLE_ROWS:
        return reduced_simply(a)
    half = len(a) // 2
    first, first_pivots = reduced(a[:half])
    others = np.setdiff1d(np.arange(a.shape[1]), first_pivots, assume_unique=True)
    rest = first[:, others]
    second, at = reduced(sub(a[half:][:, others], matmul(a[half:][:, first_pivots], rest)))
    rest = sub(rest, matmul(rest[:, at], second))
    pivots = np.concatenate([np.array(first_pivots, np.int64), others[at]])
    out = np.zeros((len(pivots), a.shape[1]), np.uint64)
    out[range(len(first)), first_pivots] = 1
    out[:len(first), others] = rest
    out[len(first):, others] = second
    order = np.argsort(pivots)
    return out[order], pivots[order].tolist()


_SIMPLE_ROWS = 16


def reduced_simply(a):
    """The same, a row at a time."""
    a = a.copy()
    m, d = a.shape
    pivots, row = [], 0
    while row < m:
        # The next pivot's column: the first that has an entry in a row that is left.
        used = np.any(a[row:], axis=0)
        column = int(np.argmax(used)) if d else 0
        if d == 0 or not used[column]:
            break
        p = row + int(np.argmax(a[row:, column] != 0))
        if p != row:
            a[[row, p]] = a[[p, row]]
        a[row, column:] = mul(a[row, column:], np.uint64(pow(int(a[row, column]), -1, Q)))
        factors = a[:, column].copy()
        factors[row] = 0
        a[:, column:] = sub(a[:, column:], mul(factors[:, None], a[row, column:][None]))
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
    free = np.setdiff1d(np.arange(d), pivots)
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

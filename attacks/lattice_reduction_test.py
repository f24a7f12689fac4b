"""Positive control: the lattice mask at a toy size falls to lattice reduction, so the laboratory would see parameters that are too small.

The mask is the product's, M_j = sum_i s_i a_ij + e_j over Z_q[X]/(X^N + 1) (doc/masking.md), with rank k = 1, N = 32 and q = 12289, where
the product has k = 8, N = 256 and q = 2^48 - 16383. The attacker knows the tokens of the first half of a batch's rows (a system prompt),
so it knows their masks: b = A s + e mod q, and s is what the shortest vector of the embedding lattice says.
"""
import sys
import unittest
from pathlib import Path

import numpy as np
from fpylll import LLL, IntegerMatrix

sys.path.insert(0, str(Path(__file__).parent))

N, Q, COLUMNS, ETA = 32, 12289, 4, 2
KNOWN = N // 2


def negacyclic(a):
    """[N][N]: row r has the coefficients of s in coefficient r of s a."""
    out = np.zeros((N, N), np.int64)
    for r in range(N):
        for t in range(N):
            out[r, t] = a[r - t] if r >= t else -a[N + r - t]
    return out % Q


def reduce(equations, b, scale=ETA):
    """A ternary s with b - A s short, by Kannan's embedding and LLL; None when the shortest vector says nothing."""
    m, n = equations.shape
    basis = np.zeros((m + n + 1, m + n + 1), np.int64)  # q first: LLL likes triangles
    basis[:m, :m] = Q * np.eye(m, dtype=np.int64)
    basis[m:m + n, :m] = equations.T
    basis[m:m + n, m:m + n] = np.eye(n, dtype=np.int64)
    basis[m + n, :m] = b
    basis[m + n, m + n] = 1
    basis = IntegerMatrix.from_matrix(basis.tolist())
    LLL.reduction(basis)
    for row in basis:
        sign = row[m + n]
        found = -sign * np.array([row[m + i] for i in range(n)])
        if abs(sign) == 1 and np.any(found) and np.abs(found).max() <= 1 and max(abs(row[j]) for j in range(m)) <= scale:
            return found
    return None


class LatticeReduction(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(11)
        self.secret = self.rng.integers(-1, 2, N)
        self.a = np.stack([negacyclic(self.rng.integers(0, Q, N)) for _ in range(COLUMNS)])  # [columns][row][N]
        self.error = self.rng.binomial(2 * ETA, 0.5, (N, COLUMNS)) - ETA
        self.mask = (np.einsum("crt,t->rc", self.a, self.secret) + self.error) % Q

    def equations(self):
        """Of the known rows."""
        return np.concatenate([self.a[:, r] for r in range(KNOWN)]), self.mask[:KNOWN].ravel()

    def test_a_toy_mask_is_recovered_and_with_it_the_rows_that_were_not_known(self):
        found = reduce(*self.equations())
        self.assertIsNotNone(found)
        self.assertEqual(found.tolist(), self.secret.tolist())
        delta = 2 * 2 * ETA  # a multiple that errors do not reach half of
        plain = self.rng.integers(-500, 500, (N, COLUMNS))
        sent = (delta * plain + self.mask) % Q
        unmasked = (sent - np.einsum("crt,t->rc", self.a, found)) % Q
        unmasked = np.where(unmasked > Q // 2, unmasked - Q, unmasked)
        self.assertEqual(np.rint(unmasked[KNOWN:] / delta).astype(int).tolist(), plain[KNOWN:].tolist())

    def test_uniform_rows_say_nothing(self):
        equations, _ = self.equations()
        self.assertIsNone(reduce(equations, self.rng.integers(0, Q, len(equations))))


if __name__ == "__main__":
    unittest.main()

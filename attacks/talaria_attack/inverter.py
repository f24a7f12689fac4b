"""From masked rows to plain rows, learned: ridge regression, and a small network on what it leaves over. Seeds are fixed.

The network sees a row as numbers and as angles on the circle mod q, so that wrapping around q hides nothing from it.
"""
import numpy as np

from . import modq

HIDDEN, EPOCHS, BATCH, RATE = 256, 3, 512, 1e-3
STEPS = 600  # at least; small trainings go round more often


class Inverter:
    """scale of the rows; spread [d] of the plain ones; linear [d][d]; the network's weights and biases."""

    def save(self, path):
        np.savez(path, scale=self.scale, spread=self.spread, linear=self.linear, **{f"network{i}": w for i, w in enumerate(self.weights)})

    @classmethod
    def load(cls, path):
        new = cls()
        with np.load(path) as f:
            new.scale, new.spread, new.linear, new.weights = f["scale"], f["spread"], f["linear"], [f[f"network{i}"] for i in range(4)]
        return new

    @classmethod
    def train(cls, rows, plain, seed=7):
        """rows uint64 [n][d] mod q, plain float32 [n][d]."""
        new = cls()
        new._fit(rows, plain)
        new._train(rows, plain, np.random.default_rng(seed))
        return new

    def _fit(self, rows, plain):
        x = modq.centred(rows).astype(np.float32)
        self.scale = np.float32(max(float(x.std()), 1e-12))
        self.spread = np.maximum(plain.std(0), np.float32(1e-9))
        d = rows.shape[1]
        gram, against = np.zeros((d, d)), np.zeros((d, plain.shape[1]))
        for i in range(0, len(x), 8192):
            part = (x[i:i + 8192] / self.scale).astype(np.float64)
            gram += part.T @ part
            against += part.T @ (plain[i:i + 8192] / self.spread)
        self.linear = np.linalg.solve(gram + 1e-6 * len(x) * np.eye(d), against).astype(np.float32)

    def _features(self, rows):
        x = modq.centred(rows)
        angle = (x * (2 * np.pi / modq.Q)).astype(np.float32)
        return np.hstack([x.astype(np.float32) / self.scale, np.cos(angle), np.sin(angle)])

    def _train(self, rows, plain, rng):
        d = rows.shape[1]
        first = rng.normal(0, np.sqrt(2 / (3 * d)), (3 * d, HIDDEN)).astype(np.float32)
        self.weights = [first, np.zeros(HIDDEN, np.float32), np.zeros((HIDDEN, plain.shape[1]), np.float32), np.zeros(plain.shape[1], np.float32)]
        moments = [[np.zeros_like(w), np.zeros_like(w)] for w in self.weights]
        per_epoch = -(-len(rows) // BATCH)
        steps = max(STEPS, EPOCHS * per_epoch)
        for step in range(1, steps + 1):
            if (step - 1) % per_epoch == 0:
                order = rng.permutation(len(rows))
            at = order[(step - 1) % per_epoch * BATCH:][:BATCH]
            f = self._features(rows[at])
            hidden = np.maximum(f @ self.weights[0] + self.weights[1], 0)
            error = f[:, :d] @ self.linear + hidden @ self.weights[2] + self.weights[3] - plain[at] / self.spread
            error *= np.float32(2 / error.shape[0])
            back = (error @ self.weights[2].T) * (hidden > 0)
            rate = RATE * (1 - (step - 1) / steps)
            for w, gradient, m in zip(self.weights, (f.T @ back, back.sum(0), hidden.T @ error, error.sum(0)), moments):  # Adam
                m[0] += np.float32(0.1) * (gradient - m[0])
                m[1] += np.float32(0.001) * (gradient * gradient - m[1])
                w -= np.float32(rate / (1 - 0.9**step)) * m[0] / (np.sqrt(m[1] / np.float32(1 - 0.999**step)) + np.float32(1e-8))

    def invert(self, rows):
        """float32 [n][d], about the plain rows."""
        out = np.zeros((len(rows), len(self.spread)), np.float32)
        for i in range(0, len(rows), 1024):
            f = self._features(rows[i:i + 1024])
            hidden = np.maximum(f @ self.weights[0] + self.weights[1], 0)
            out[i:i + 1024] = f[:, :rows.shape[1]] @ self.linear + hidden @ self.weights[2] + self.weights[3]
        return out * self.spread

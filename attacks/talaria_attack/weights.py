"""The vocabulary's layer-0 rows, from what a cloud has anyway: a store (doc/store.md). No program is run for it.

A layer-0 row is RMSNorm(embedding of the token) * norm weights, and h = round(row / sigma) as the CVM does it
(doc/masking.md, "Exactness"; talaria/cvm/certificate.cc), in the same floats: equal to a recording of every token, bit for bit.
"""
import json
import struct
from pathlib import Path

import numpy as np

from . import modq

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_F32, _Q8_0, _I8 = 0, 8, 24


def read_gguf(path):
    """(metadata, {name: (dimensions, type, offset in the file)}) of a GGUF file, version 3."""
    with open(path, "rb") as f:
        def number(form):
            return struct.unpack(form, f.read(struct.calcsize(form)))[0]

        def text():
            return f.read(number("<Q")).decode("utf-8", "replace")

        def value(kind):
            if kind == 8:
                return text()
            if kind == 9:
                kind, count = number("<I"), number("<Q")
                return [value(kind) for _ in range(count)]
            return number(_SCALARS[kind])

        if f.read(4) != b"GGUF" or number("<I") != 3:
            raise ValueError(f"{path}: not a GGUF file of version 3")
        tensors, pairs = number("<Q"), number("<Q")
        metadata = {}
        for _ in range(pairs):
            key = text()
            metadata[key] = value(number("<I"))
        directory = {}
        for _ in range(tensors):
            name = text()
            dimensions = [number("<Q") for _ in range(number("<I"))]
            directory[name] = (dimensions, number("<I"), number("<Q"))
        align = metadata.get("general.alignment", 32)
        start = -(-f.tell() // align) * align
    return metadata, {n: (d, t, start + o) for n, (d, t, o) in directory.items()}


def tensor(path, directory, name):
    """float32 or int8 [rows][d] of a tensor of F32, Q8_0 or I8."""
    if name not in directory:
        raise ValueError(f"{path} has no tensor {name}")
    dimensions, kind, offset = directory[name]
    count = int(np.prod(dimensions))
    shape = list(reversed(dimensions))
    if kind == _F32:
        return np.fromfile(path, "<f4", count, offset=offset).reshape(shape)
    if kind == _I8:
        return np.fromfile(path, np.int8, count, offset=offset).reshape(shape)
    if kind == _Q8_0:
        blocks = np.fromfile(path, np.dtype([("scale", "<f2"), ("value", np.int8, 32)]), count // 32, offset=offset)
        return (blocks["scale"].astype(np.float32)[:, None] * blocks["value"].astype(np.float32)).reshape(shape)
    raise ValueError(f"{path}: {name} has type {kind}, which this program does not read; record the vocabulary instead (--vocabulary)")


class Certificate:
    """Delta and the scale of a row, from a group's int8 weights [outputs][d] (talaria/cvm/certificate.cc)."""

    def __init__(self, weights):
        d = weights.shape[1]
        w = np.abs(weights.astype(np.int64))
        l1, l2_squared, largest = int(w.sum(1).max()), int((w * w).sum(1).max()), int(w.max())
        self.delta_bits = next(b for b in range(64) if 4**b >= 7512 * l2_squared)
        delta = 1 << self.delta_bits
        bound = (modq.Q - delta) // (2 * delta)

        def factor(limit, rounding):
            room = limit * (1 - 2.0**-40) - rounding * (1 + 2.0**-40)
            return 1 / room if room > 0 else 1e300

        self.by_inf = 1 / (min(32767, bound // max(1, l1)) + 0.5)
        self.by_l2 = factor(bound / np.sqrt(float(max(1, l2_squared))), np.sqrt(float(d)) / 2)
        self.by_l1 = factor(bound / float(max(1, largest)), d / 2)

    def quantise(self, x):
        """int32 h [rows][d] of float32 x [rows][d]."""
        x = np.where(np.abs(x) < np.float32(2.0**-126), np.float32(0), x.astype(np.float32))
        m = np.abs(x).astype(np.float64)
        largest = m.max(1)
        safe = np.minimum(largest * self.by_inf, np.minimum(np.sqrt(_sum16(m * m)) * self.by_l2, _sum16(m) * self.by_l1))
        wanted = np.maximum(2.0**-124, np.maximum(largest * (1 / 32767.5), safe) * (1 + 2.0**-20))
        sigma = np.where(largest == 0, 1.0, wanted).astype(np.float32)
        inverse = np.float32(1) / sigma
        return np.rint(x * inverse[:, None]).astype(np.int32)


def _sum16(values):
    """Sums of rows in 16 lanes, then one fixed tree."""
    rows, d = values.shape
    padded = np.zeros((rows, -(-d // 16) * 16))
    padded[:, :d] = values
    lanes = np.zeros((rows, 16))
    for i in range(0, padded.shape[1], 16):
        lanes = lanes + padded[:, i:i + 16]
    for half in (8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half:2 * half]
    return lanes[:, 0]


def _rms_norm(x, epsilon):
    """ggml's: squares in float, their sum in double, in order."""
    mean = (np.cumsum((x * x).astype(np.float64), axis=1)[:, -1] / x.shape[1]).astype(np.float32)
    return x * (np.float32(1) / np.sqrt(mean + np.float32(epsilon)))[:, None]


def table(store):
    """h of every token at layer 0, int32 [vocabulary][d]."""
    store = Path(store)
    skeleton, weights = store / "skeleton.gguf", store / "weights.gguf"
    metadata, directory = read_gguf(skeleton)
    _, matrices = read_gguf(weights)
    group = json.loads((store / "manifest.json").read_text())["groups"][0]
    certificate = Certificate(np.concatenate([tensor(weights, matrices, m["name"]) for m in group["matrices"]]))
    embedding, norm = (tensor(skeleton, directory, n) for n in ("token_embd.weight", "blk.0.attn_norm.weight"))
    epsilon = metadata[metadata["general.architecture"] + ".attention.layer_norm_rms_epsilon"]
    return np.concatenate([certificate.quantise(_rms_norm(embedding[i:i + 4096], epsilon) * norm)
                           for i in range(0, len(embedding), 4096)])

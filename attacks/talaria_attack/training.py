"""The attacker's own prompts, to train on. Without a mask and with the published one the attacker can make such rows itself, as
many as it wants; those of a lattice mask are recorded (talaria-lab-runner --token-list)."""
import fcntl
import os
from pathlib import Path

import numpy as np

from . import modq, recording
from .inverter import Inverter

ROWS = 102_400
SEED = 20261130


def tokens_to_record(vocabulary, count=ROWS):
    """Every token about equally often, in random order."""
    rng = np.random.default_rng(SEED)
    passes = -(-count // vocabulary)
    return np.concatenate([rng.permutation(vocabulary) for _ in range(passes)])[:count]


def recorded(folder, group=0):
    """(rows, tokens). ValueError."""
    tokens, _ = recording.load_tokens(folder)
    rows = recording.load_cloud(folder, group).rows
    if len(rows) != len(tokens):
        raise ValueError(f"{folder}: {len(tokens)} tokens for {len(rows)} rows")
    return rows, tokens


def made(view, table, count=ROWS):
    """(rows, tokens) under `none`, under the published mask of view.public, or uniform rows for the negative control."""
    rng = np.random.default_rng(SEED + 1)
    tokens = tokens_to_record(len(table), count)
    if view.scheme.startswith("uniform"):
        return rng.integers(0, modq.Q, (count, table.shape[1]), dtype=np.uint64), tokens
    if view.public is not None:  # uniform combinations of M_pub's rows are those of its reduced form, which has less to multiply
        basis, pivots = modq.reduced(view.public)
        others = np.setdiff1d(np.arange(table.shape[1]), pivots)
        basis = basis[:, others]
    rows = np.zeros((count, table.shape[1]), np.uint64)
    for i in range(0, count, 4096):
        part = modq.from_signed(table[tokens[i:i + 4096]].astype(np.int64) * view.delta)
        if view.public is not None:
            secret = rng.integers(0, modq.Q, (len(part), len(basis)), dtype=np.uint64)
            part[:, pivots] = modq.add(part[:, pivots], secret)
            part[:, others] = modq.add(part[:, others], modq.matmul(secret, basis))
        rows[i:i + 4096] = part
    return rows, tokens


def inverter(path, rows_and_tokens, table):
    """The inverter that is kept at `path` (.npz), or one trained on what rows_and_tokens() returns, and kept. Processes that want
    the same one wait for the first."""
    path = Path(path)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            rows, tokens = rows_and_tokens()
            part = path.with_suffix(".part.npz")
            Inverter.train(rows, table[tokens].astype(np.float32)).save(part)
            os.replace(part, path)
    return Inverter.load(path)

#!/usr/bin/env python3
"""Provisions the demo model for the slow tests, once per build of talaria-cloud.

usage: store.py TALARIA_CLOUD STORE

The model is what scripts/setup --print-model names. STORE.key beside the store says what it was made from; a store of
another program or model is made again.
"""

import hashlib
import pathlib
import shutil
import subprocess
import sys


def from_setup(option):
    """What scripts/setup prints with `option`: --print-model or --print-llama-dir."""
    setup = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "setup"
    return subprocess.run([str(setup), option], check=True, capture_output=True, text=True).stdout.strip()


def digest_of(path):
    hash = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            hash.update(chunk)
    return hash.hexdigest()


def provision(talaria_cloud, model, store):
    store = pathlib.Path(store)
    key_file = store.with_name(store.name + ".key")
    key = f"{digest_of(talaria_cloud)} {digest_of(model)}\n"
    if key_file.is_file() and key_file.read_text() == key and (store / "manifest.json").is_file():
        print(f"{store} is up to date")
        return 0
    key_file.unlink(missing_ok=True)
    shutil.rmtree(store, ignore_errors=True)
    store.parent.mkdir(parents=True, exist_ok=True)
    code = subprocess.run([talaria_cloud, "provision", model, str(store)], stdin=subprocess.DEVNULL).returncode
    if code == 0:
        key_file.write_text(key)
    return code


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(provision(sys.argv[1], from_setup("--print-model"), sys.argv[2]))

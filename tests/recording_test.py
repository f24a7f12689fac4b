#!/usr/bin/env python3
"""Recordings of every scheme over the real protocol: what the cloud kept is what the truth says, and masked as the scheme says.

usage: recording_test.py BIN_DIR

A tiny model is provisioned, served by talaria-cloud-lab and run by talaria-cvm-lab with talaria-lab-runner (doc/recording.md).
"""
import array
import json
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "system"))
sys.dont_write_bytecode = True
import tiny_model  # noqa: E402

Q = 2**48 - 16383
TOKENS, CONTEXT = 300, 300  # more than one batch of masks in one evaluation
SCHEMES = ["none", "published", "lattice", "lattice-no-error", "lattice-reused"]
GROUP, HEAD_GROUP = 0, 8  # what is kept: the first layer's attention and the output head
DEEPER_GROUP = 4  # and of candidates: the second layer's attention
WIDTH = tiny_model.EMBEDDING
M = WIDTH // 4


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


class Laboratory:
    def __init__(self, bin_dir, folder):
        self.bin, self.folder = pathlib.Path(bin_dir), folder
        self.store = folder / "store"
        tiny_model.write(folder / "tiny.gguf")
        command = [self.bin / "talaria-cloud", "provision", folder / "tiny.gguf", self.store]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def cloud_command(self, name, scheme, groups, socket):
        return [self.bin / "talaria-cloud-lab", "serve", self.store, "--listen", f"unix:{socket}", "--scheme", scheme, "--m", "1/4",
                "--record", self.folder / name, "--groups", groups]

    def cvm_command(self, name, scheme, groups, socket, runner):
        return [self.bin / "talaria-cvm-lab", "run", "--cloud", f"unix:{socket}", "--scheme", scheme, "--m", "1/4", "--pool-batches", "1",
                "--record", self.folder / name, "--groups", groups, "--", "talaria-lab-runner", *runner]

    def record(self, name, scheme, runner, kept=(GROUP, HEAD_GROUP)):
        """The folder, and what the CVM's side said on standard error."""
        socket, groups = self.folder / f"{name}.sock", ",".join(map(str, kept))
        with open(self.folder / f"{name}.cloud.log", "wb") as log:
            cloud = subprocess.Popen(self.cloud_command(name, scheme, groups, socket), stdin=subprocess.DEVNULL, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not socket.exists():
                check(cloud.poll() is None and time.monotonic() < deadline, "the cloud does not listen")
                time.sleep(0.02)
            run = subprocess.run(self.cvm_command(name, scheme, groups, socket, runner), stdin=subprocess.DEVNULL, capture_output=True, text=True)
            check(run.returncode == 0, f"{scheme}: talaria-cvm-lab: {run.returncode}: {run.stderr[-1000:]}")
        finally:
            cloud.terminate()
            code = cloud.wait(30)
        check(code == 0, f"{scheme}: talaria-cloud-lab: {code}")
        return Recording(self.folder / name, scheme, kept), run.stderr

    def refused(self, command, message):
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        check(run.returncode == 2 and message in run.stderr, f"not refused with '{message}': {run.returncode}: {run.stderr[-500:]}")


class Recording:
    def __init__(self, folder, scheme, kept):
        self.folder = folder
        self.description = json.loads((folder / "cloud/recording.json").read_text())
        self.calls = [json.loads(line) for line in (folder / "cloud/calls.jsonl").read_text().splitlines()]
        self.evaluations = [json.loads(line) for line in (folder / "truth/evaluations.jsonl").read_text().splitlines()]
        check(self.description["scheme"] == scheme and self.description["q"] == Q, f"{scheme}: recording.json")
        check([g["index"] for g in self.description["groups"]] == list(kept), f"{scheme}: groups")
        self.delta = {g["index"]: 2 ** g["delta_bits"] for g in self.description["groups"]}

    def residues(self, group):
        return self.matrix((self.folder / f"cloud/group-{group}.residues").read_bytes())

    def matrix(self, raw):
        values = [int.from_bytes(raw[i : i + 6], "little") for i in range(0, len(raw), 6)]
        check(max(values) < Q, "a residue is not canonical")
        return [values[i : i + WIDTH] for i in range(0, len(values), WIDTH)]

    def truth_bytes(self, group):
        return (self.folder / f"truth/group-{group}.f32").read_bytes()

    def truth(self, group):
        values = array.array("f", self.truth_bytes(group))
        return [values[i : i + WIDTH] for i in range(0, len(values), WIDTH)]

    def public(self):
        published = self.description["published"]
        check(published["m"][str(WIDTH)] == M, "m")
        return self.matrix((self.folder / "cloud" / published["files"][str(WIDTH)]).read_bytes())

    def lattice(self):
        return self.matrix((self.folder / "cloud" / self.description["lattice"]["files"][str(WIDTH)]).read_bytes())


def check_calls(recording, scheme):
    """Each line continues where the one before ended, and together they are the file."""
    rows = {GROUP: 0, HEAD_GROUP: 0}
    for i, call in enumerate(recording.calls):
        group = call["group"]
        check(call["call"] == i and call["row"] == rows[group] and 0 < call["rows"] <= 128, f"{scheme}: calls.jsonl, line {i}")
        check(call["time_us"] >= recording.calls[max(0, i - 1)]["time_us"] > 0, f"{scheme}: time of call {i}")
        rows[group] += call["rows"]
    check(len({call["connection"] for call in recording.calls}) == 1, f"{scheme}: more than one connection")
    tokens = sum(len(e["tokens"]) for e in recording.evaluations)
    check(rows == {GROUP: tokens, HEAD_GROUP: len(recording.evaluations)}, f"{scheme}: {rows} rows of {tokens} tokens")
    for group, count in rows.items():
        check(len(recording.residues(group)) == len(recording.truth(group)) == count, f"{scheme}: rows of group {group}")


def quantised(row, delta):
    """h of a row that is not masked."""
    centred = [x - Q if x > Q // 2 else x for x in row]
    check(all(x % delta == 0 for x in centred), "a residue under `none` is not a multiple of Delta")
    return [x // delta for x in centred]


def check_is_rounding(h, x):
    """There is a sigma with h = round(x / sigma): the intervals that the values allow have a common point."""
    check(max(map(abs, h)) <= 32767 and any(h), "h is out of range, or zero")
    low, high = 0.0, float("inf")
    for a, b in zip(h, x):
        if a == 0 and b == 0:
            continue
        check(a == 0 or (a > 0) == (b > 0), "h and x differ in sign")
        low = max(low, abs(b) / (abs(a) + 0.5))
        if a != 0:
            high = min(high, abs(b) / (abs(a) - 0.5))
    check(low <= high * (1 + 1e-5), f"no scale rounds x to h: {low} > {high}")  # 1 / sigma is a float of 24 bits


def reduce_rows(rows):
    """The reduced row echelon form mod q, as {pivot column: row}."""
    pivots = {}
    for row in rows:
        row = remainder(pivots, row)
        pivot = next((j for j, x in enumerate(row) if x), None)
        if pivot is None:
            continue
        inverse = pow(row[pivot], -1, Q)
        row = [x * inverse % Q for x in row]
        for column, other in pivots.items():
            factor = other[pivot]
            if factor:
                pivots[column] = [(a - factor * b) % Q for a, b in zip(other, row)]
        pivots[pivot] = row
    return pivots


def remainder(pivots, row):
    for column, pivot_row in pivots.items():
        factor = row[column]
        if factor:
            row = [(a - factor * b) % Q for a, b in zip(row, pivot_row)]
    return row


def check_candidates(laboratory):
    """A proposal that was made has the state that it had when it was there, whether in a prompt or in an answer."""
    kept = (GROUP, DEEPER_GROUP)
    there, _ = laboratory.record("there", "none", ["--prompt", "To be found again.", "--generate", "3"], kept)
    along = laboratory.folder / "there/truth/evaluations.jsonl"
    tried, _ = laboratory.record("tried", "none", ["--candidates", along, "--tokens", "9"], kept)
    tokens = [t for e in there.evaluations for t in e["tokens"]]
    told = [e for e in tried.evaluations if e["sequences"][0] == 0]  # the first is what begins a document
    check([e["tokens"] for e in told[1:]] == [[t] for t in tokens[:9]] and told[0]["positions"][0] == 0, "what the attacker is told")
    states, wanted = tried.residues(DEEPER_GROUP), there.residues(DEEPER_GROUP)
    row, position, found = 0, -1, 0
    proposals = {}
    for e in tried.evaluations:
        if e["sequences"][0] == 0:
            if position >= 0:
                check(e["positions"] == [position], "positions of what is told")
                check(states[row] == wanted[position], "the state of a token that was told")
                if tokens[position] in proposals:
                    found += 1
                    check(states[proposals[tokens[position]]] == wanted[position], "the state of a proposal that was right")
                    check(sum(states[r] == wanted[position] for r in proposals.values()) == 1, "a wrong proposal has the same state")
            position, proposals = position + 1, {}
        else:
            check(len(e["tokens"]) <= 63 and e["sequences"] == list(range(1, len(e["tokens"]) + 1)), "a batch of proposals")
            proposals |= {t: row + i for i, t in enumerate(e["tokens"])}
        row += len(e["tokens"])
    check(row == len(states) and position == 9 and found >= 3, f"{found} of {position} tokens were among the proposals")
    run = subprocess.run([laboratory.bin / "talaria-lab-runner", "--model", laboratory.folder / "tiny.gguf", "--candidates", laboratory.folder / "tokens.txt"],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    check(run.returncode == 2 and "not a recording's evaluations" in run.stderr, f"candidates along anything: {run.returncode}: {run.stderr[-500:]}")


def main():
    with tempfile.TemporaryDirectory(prefix="talaria-recording-") as name:
        folder = pathlib.Path(name)
        laboratory = Laboratory(sys.argv[1], folder)
        text = folder / "text.txt"
        text.write_text("Nothing of this is secret; it is here to be found again in a recording. " * 8)
        runner = ["--text", text, "--tokens", str(TOKENS), "--context", str(CONTEXT)]
        plain, public = None, None
        for scheme in SCHEMES:
            recording, said = laboratory.record(scheme, scheme, runner)
            check_calls(recording, scheme)
            check(("BROKEN" in said) == (scheme not in ("none", "lattice")), f"{scheme}: the warning")
            check("For research only" in said if scheme == "published" else True, f"{scheme}: the warning names no purpose")
            check((recording.description["lattice"] is None) == (not scheme.startswith("lattice")), f"{scheme}: lattice")
            if scheme.startswith("lattice"):
                a = recording.lattice()
                check(len(a) == 8 * 256 and all(map(any, a)), f"{scheme}: A")
                public = public or a
                check(a == public, f"{scheme}: A is the model's, whatever the scheme")
            if plain is None:
                plain = recording
                hidden = {g: [quantised(row, plain.delta[g]) for row in plain.residues(g)] for g in (GROUP, HEAD_GROUP)}
                for group, rows in hidden.items():
                    for h, x in zip(rows, plain.truth(group)):
                        check_is_rounding(h, x)
                continue
            # The head's input went through every masked product: the same bits, so the scheme is exact.
            check(recording.evaluations == plain.evaluations and recording.delta == plain.delta, f"{scheme}: evaluations")
            for group in (GROUP, HEAD_GROUP):
                check(recording.truth_bytes(group) == plain.truth_bytes(group), f"{scheme}: the rows of group {group} are not those of none")
            delta = plain.delta[GROUP]
            masks = [[(a - delta * b) % Q for a, b in zip(row, h)] for row, h in zip(recording.residues(GROUP), hidden[GROUP])]
            check(all(any(row) for row in masks), f"{scheme}: a row is not masked")
            reused = [a == b for a, b in zip(masks, masks[256:])]
            check(all(reused) if scheme == "lattice-reused" else not any(reused), f"{scheme}: which masks are served again")
            check((recording.description["published"] is None) == (scheme != "published"), f"{scheme}: published")
            if scheme == "published":
                pivots = reduce_rows(recording.public())
                check(len(pivots) == M, "M_pub has not its full rank")
                check(not any(any(remainder(pivots, mask)) for mask in masks), "a published mask is not M_pvt M_pub")
                print("published: M is in the row space of M_pub, which a cloud knows")
            elif scheme == "lattice":
                check(all(any(remainder(pivots, mask)) for mask in masks), "the lattice mask is in M_pub's row space")

        generated, _ = laboratory.record("generated", "none", ["--prompt", "Hello", "--generate", "3"])
        check_calls(generated, "generated")
        positions = [p for e in generated.evaluations for p in e["positions"]]
        check([len(e["tokens"]) for e in generated.evaluations][1:] == [1, 1, 1] and positions == list(range(len(positions))), "generated")
        prompts = folder / "prompts.txt"
        prompts.write_text("Hello\\nyou\n\nThe end\nNever\n")
        both, _ = laboratory.record("both-texts", "lattice", ["--text", text, "--text", text, "--tokens", "4", "--prompts", prompts, "--answers", "2", "--generate", "2"])
        check_calls(both, "both texts")
        check([e["text"] for e in both.evaluations][:2] == [0, 1] and both.evaluations[0]["tokens"] == both.evaluations[1]["tokens"], "two texts")
        answered = both.evaluations[2:]
        starts = [e["positions"][0] for e in answered]
        check({e["text"] for e in answered} == {2} and starts.count(0) == 2 and answered[0]["positions"][0] == 0, "two of three prompts are answered")
        check(all(a == 0 or a > b for a, b in zip(starts[1:], starts)) and {len(e["tokens"]) for e in answered if e["positions"][0] > 0} == {1}, "answers are decoded a token a call")

        listed = folder / "tokens.txt"
        listed.write_text("7 9 7\n80 9")
        single, _ = laboratory.record("single", "none", ["--token-list", listed, "--sequences", "2"])
        check([e["tokens"] for e in single.evaluations] == [[7, 9], [7, 80], [9]], "single tokens")
        check(single.evaluations[0]["positions"] == [0, 0] and single.evaluations[0]["sequences"] == [0, 1], "positions of single tokens")
        rows = single.residues(GROUP)
        check(rows[0] == rows[2] and rows[1] == rows[4] and rows[0] != rows[1], "layer 0 is not a function of the token")

        only, _ = laboratory.record("first-layer", "none", ["--token-list", listed, "--sequences", "2", "--first-layer"], (GROUP, DEEPER_GROUP))
        check(only.residues(GROUP) == rows and only.evaluations == single.evaluations, "rows of the first layer alone")
        check(all(call["group"] == GROUP for call in only.calls), "more than the first layer was evaluated")
        check_candidates(laboratory)

        socket = folder / "refused.sock"
        laboratory.refused(laboratory.cloud_command("none", "none", "0", socket), "is not empty: a recording needs a folder of its own")
        laboratory.refused(laboratory.cloud_command("no-such-group", "none", "99", socket), "there is no group 99: the model has 9")
        laboratory.refused(laboratory.cvm_command("none", "none", "0", socket, runner), "is not empty: a recording needs a folder of its own")
        laboratory.refused(laboratory.cvm_command("both", "both", "0", socket, runner), "--record goes with one scheme, not with both")
        runner = laboratory.bin / "talaria-lab-runner"
        laboratory.refused([runner, "--model", "none.gguf"], "nothing to evaluate: --text, --prompts, --prompt, --token-list, --candidates or --vocabulary")
        run = subprocess.run([runner, "--model", "none.gguf", "--text", text, "--vocabulary"], capture_output=True, text=True)
        check(run.returncode == 2 and "excludes" in run.stderr, f"two things at once: {run.returncode}: {run.stderr}")
        bad = laboratory.cloud_command("bad-m", "published", "0", socket)
        laboratory.refused([part if part != "1/4" else "3/2" for part in bad], "is no number of rows of M_pub")
    print(f"{len(SCHEMES)} schemes recorded")


if __name__ == "__main__":
    main()

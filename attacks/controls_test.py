"""Controls of the attack laboratory on synthetic data: attacks that must succeed, and rows that must give nothing."""
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small products; threads would wait for each other
import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from talaria_attack import candidates, laboratory, leaks, modq, recording, statistics, training  # noqa: E402
from talaria_attack.inverter import Inverter  # noqa: E402

D, VOCABULARY, ROWS, DELTA = 32, 500, 240, 2**17
BY_NAME = {a.NAME: a for a in laboratory.find_attacks()}


def uniform(rng, *shape):
    return rng.integers(0, modq.Q, shape, dtype=np.uint64)


def negacyclic(a):
    """Matrix of s -> s * a in Z[X]/(X^N + 1), rows by coefficient of s."""
    n = len(a)
    out = np.zeros((n, n), np.uint64)
    for i in range(n):
        out[i, i:] = a[:n - i]
        out[i, :i] = modq.sub(np.zeros(i, np.uint64), a[n - i:])
    return out


class Controls(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(7)
        self.table = self.rng.integers(-3000, 3000, (VOCABULARY, D)).astype(np.int32)
        self.tokens = self.rng.integers(0, VOCABULARY, ROWS)
        self.plain = modq.from_signed(self.table[self.tokens].astype(np.int64) * DELTA)

    def learn(self, rows, tokens):
        return Inverter.train(rows, self.table[tokens].astype(np.float32))

    def hits(self, attack, mask, scheme="test", public=None, inverter=None, lattice=None, places=None):
        view = recording.CloudView(scheme, (self.plain + mask) % np.uint64(modq.Q), DELTA, public, lattice, places)
        line = laboratory.run(BY_NAME[attack], view, self.table, self.tokens, [0, ROWS // 2], self.proposals(),
                              inverter)
        self.assertTrue(line["applies"])
        return line["hits"], line["rows"]

    def proposals(self, count=100):
        """The right token, somewhere among others, at every position."""
        tokens = np.stack([self.rng.permutation(np.delete(np.arange(VOCABULARY), t))[:count] for t in self.tokens])
        tokens[np.arange(ROWS), self.rng.integers(0, count, ROWS)] = self.tokens
        return candidates.Candidates(tokens, self.table[tokens].astype(np.int16))

    def assert_all(self, *arguments, **more):
        hits, rows = self.hits(*arguments, **more)
        self.assertEqual(hits, rows)

    def assert_chance(self, *arguments, **more):
        hits, rows = self.hits(*arguments, **more)
        self.assertLessEqual(hits, rows * statistics.interval(rows // VOCABULARY, rows, 1e-4)[1])

    def test_plain_rows_fall(self):
        none = np.zeros_like(self.plain)
        for attack in ("exact table", "nearest neighbour", "row differences", "row space", "Gram matrix", "static basis", "vocabulary matching"):
            with self.subTest(attack):
                self.assert_all(attack, none)

    def test_turned_rows_fall_to_their_gram_matrix(self):
        turn = np.linalg.qr(self.rng.normal(size=(D, D)))[0]
        rows = modq.from_signed(np.rint(self.table[self.tokens] @ turn * DELTA).astype(np.int64))
        self.assert_all("Gram matrix", modq.sub(rows, self.plain))
        self.assert_chance("nearest neighbour", modq.sub(rows, self.plain))

    def test_rows_of_known_tokens_name_their_equals(self):
        self.tokens[ROWS // 2:] = self.rng.permutation(self.tokens[:ROWS // 2])
        self.plain = modq.from_signed(self.table[self.tokens].astype(np.int64) * DELTA)
        self.assert_all("repeated rows", np.zeros_like(self.plain))
        mask = uniform(self.rng, VOCABULARY, D)[self.tokens]  # one secret row for each token
        self.assert_all("repeated rows", mask)
        self.assert_chance("nearest neighbour", mask)

    def test_a_secret_basis_is_learned_from_known_tokens(self):
        for m in (1, 16, 31):
            with self.subTest(m=m):
                mask = modq.matmul(uniform(self.rng, ROWS, m), uniform(self.rng, m, D))
                self.assert_all("static basis", mask)  # nobody is told the basis
        mask = modq.matmul(uniform(self.rng, ROWS, 16), uniform(self.rng, 16, D))
        error = modq.from_signed(self.rng.binomial(42, 0.5, (ROWS, D)).astype(np.int64) - 21)
        self.assert_chance("static basis", (mask + error) % np.uint64(modq.Q))

    def test_published_rows_fall_in_blocks(self):
        for m in (1, 16, 24):
            with self.subTest(m=m):
                public = uniform(self.rng, m, D)
                self.assert_all("row space", modq.matmul(uniform(self.rng, ROWS, m), public), public=public)

    def test_network_learns_what_no_linear_map_does(self):
        tokens = self.rng.integers(0, VOCABULARY, 20000)
        length = lambda t: np.abs(self.table[t].astype(np.int64)) * DELTA  # every sign is lost
        inverter = self.learn(length(tokens).astype(np.uint64), tokens)
        mask = modq.sub(length(self.tokens).astype(np.uint64), self.plain)
        hits, rows = self.hits("learned inverter", mask, inverter=inverter)
        self.assertGreater(hits, 0.8 * rows)
        hits, rows = self.hits("linear probe", mask)
        self.assertLess(hits, 0.3 * rows)

    def test_learned_inverter_learns_rows_that_are_made(self):
        view = recording.CloudView("none", self.plain, DELTA)
        self.assert_all("learned inverter", np.zeros_like(self.plain), inverter=self.learn(*training.made(view, self.table, 4000)))
        view = recording.CloudView("published", self.plain, DELTA, uniform(self.rng, 4, D))
        rows, tokens = training.made(view, self.table, 4000)
        n = modq.null_vectors(view.public, 1)
        self.assertTrue(np.array_equal(modq.matmul(rows, n), modq.matmul(modq.from_signed(self.table[tokens].astype(np.int64) * DELTA), n)))

    def test_linear_probe_learns_plain_rows(self):
        self.assert_all("linear probe", np.zeros_like(self.plain))

    def test_published_mask_falls_to_the_adaptive_attack_for_every_m(self):
        for m in (1, 8, 16, 24, 31):
            with self.subTest(m=m):
                public = uniform(self.rng, m, D)
                mask = modq.matmul(uniform(self.rng, ROWS, m), public)
                self.assert_all("null space", mask, public=public)
                self.assert_all("null-space matching", mask, public=public)
                self.assert_chance("exact table", mask, public=public)
                if m > 1:
                    self.assert_chance("nearest neighbour", mask, public=public)

    def test_error_term_stops_the_null_space(self):
        public = uniform(self.rng, 16, D)
        error = modq.from_signed(self.rng.binomial(42, 0.5, (ROWS, D)).astype(np.int64) - 21)
        mask = (modq.matmul(uniform(self.rng, ROWS, 16), public) + error) % np.uint64(modq.Q)
        self.assert_chance("null space", mask, public=public)
        self.assert_chance("null-space matching", mask, public=public)

    def test_lattice_without_error_and_few_columns_falls(self):
        # N = 8, k = 2: a batch is one long row of 8 * columns entries with 16 unknowns; public is A, expanded.
        columns, n, k = 4, 8, 2
        a = [[uniform(self.rng, n) for _ in range(columns)] for _ in range(k)]
        public = np.block([[negacyclic(x) for x in line] for line in a])
        self.assertEqual(public.shape, (16, D))
        secret = modq.from_signed(self.rng.integers(-1, 2, (ROWS, n * k)))
        self.assert_all("null space", modq.matmul(secret, public), public=public)
        error = modq.from_signed(self.rng.integers(1, 3, (ROWS, D)))
        self.assert_chance("null space", (modq.matmul(secret, public) + error) % np.uint64(modq.Q), public=public)

    def lattice_masks(self, degree, rank, error):
        """A [rank][degree][D], the places of ROWS rows in a stream that begins amid a batch, and their masks s A + E."""
        a = uniform(self.rng, rank, degree, D)
        places = np.arange(ROWS) + 3
        masks = []
        for _ in range(-(-(ROWS + 3) // degree)):
            secret = modq.from_signed(self.rng.integers(-1, 2, (1, rank * degree)))
            masks.append(np.stack([modq.matmul(secret, np.vstack([negacyclic(x) for x in a[:, :, j]]))[0] for j in range(D)], axis=1))
        errors = modq.from_signed(self.rng.binomial(42, 0.5, (ROWS, D)).astype(np.int64) - 21)
        mask = np.concatenate(masks)[places]
        return a, places, modq.add(mask, errors) if error else mask

    def test_known_rows_give_away_a_lattice_mask_without_its_error(self):
        for degree, rank, known in ((8, 2, 1), (64, 2, 5), (32, 8, 9)):
            with self.subTest(degree=degree, rank=rank):
                a, places, mask = self.lattice_masks(degree, rank, error=False)
                self.assert_all("known rows", mask, lattice=a, places=places)
                scored = self.hits("known rows", mask, lattice=a, places=places)[1]
                batches = np.unique(places // degree, return_counts=True)[1]
                self.assertEqual(scored, ROWS - np.minimum(batches, known).sum())
        a, places, mask = self.lattice_masks(8, 2, error=True)
        self.assertEqual(self.hits("known rows", mask, lattice=a, places=places)[0], 0)
        self.assertEqual(self.hits("known rows", uniform(self.rng, ROWS, D), lattice=a, places=places)[0], 0)
        view = recording.CloudView("none", self.plain, DELTA)
        self.assertFalse(laboratory.run(BY_NAME["known rows"], view, self.table, self.tokens, [0])["applies"])

    def test_reused_mask_falls(self):
        mask = np.tile(uniform(self.rng, ROWS // 2, D), (2, 1))
        self.tokens[:ROWS // 2] = np.arange(ROWS // 2)  # no row has its own token's partner
        self.tokens[ROWS // 2:] = np.arange(ROWS // 2)[::-1] + ROWS // 2
        self.plain = modq.from_signed(self.table[self.tokens].astype(np.int64) * DELTA)
        self.assert_all("row differences", mask)

    def test_partners_are_the_first_ones(self):
        rows = self.plain.copy()
        rows[:ROWS // 2] = uniform(self.rng, ROWS // 2, D)
        rows[60] = rows[200]  # equal rows tell nothing
        at = BY_NAME["row differences"]._partner(rows, DELTA)
        for i, row in enumerate(rows):
            is_multiple = np.all(modq.centred(modq.sub(rows, row)) % DELTA == 0, axis=1) & np.any(rows != row, axis=1)
            self.assertEqual(at[i], np.flatnonzero(is_multiple)[0] if is_multiple.any() else -1)

    def test_uniform_rows_give_nothing(self):
        for attack in BY_NAME:
            if not attack.startswith("null") and attack != "known rows":
                with self.subTest(attack):
                    learned = self.learn(uniform(self.rng, 2000, D), self.rng.integers(0, VOCABULARY, 2000)) if attack == "learned inverter" else None
                    self.assert_chance(attack, uniform(self.rng, ROWS, D), inverter=learned)

    def test_null_space_needs_a_public_matrix(self):
        view = recording.CloudView("lattice", self.plain, DELTA)
        self.assertFalse(laboratory.run(BY_NAME["null space"], view, self.table, self.tokens, [0])["applies"])

    def test_full_rank_has_no_null_space(self):
        public = uniform(self.rng, D, D)
        self.assertEqual(self.hits("null space", modq.matmul(uniform(self.rng, ROWS, D), public), public=public)[0], 0)


class Leaks(unittest.TestCase):
    def test_lengths_of_prompts_and_answers_show(self):
        prompts = (5, 3), (128, 2), (300, 1), (129, 0), (2, 0), (7, 4)
        with tempfile.TemporaryDirectory() as folder:
            calls, evaluations, now = [], [], 0
            for prompt, answer in prompts:
                pieces = [min(128, prompt - i) for i in range(0, prompt, 128)]
                for rows in [pieces] + [[1]] * answer:  # a pass: all calls of one group, then all of another
                    now += 1000
                    calls += [{"call": len(calls), "group": g, "rows": r, "time_us": now} for g in (0, 4) for r in rows]
                evaluations.append({"tokens": [0] * prompt, "positions": list(range(prompt))})
                evaluations += [{"tokens": [0], "positions": [prompt + i]} for i in range(answer)]
            for name, lines in (("cloud/calls", calls), ("truth/evaluations", evaluations)):
                path = Path(folder) / f"{name}.jsonl"
                path.parent.mkdir()
                path.write_text("".join(json.dumps(x) + "\n" for x in lines))
            got = leaks.conversations(folder)
            self.assertEqual([(x["prompt_rows"], x["answer_rows"]) for x in got], list(prompts))
            self.assertEqual(got[0]["seconds_per_answer_row"], 0.001)
            self.assertEqual(leaks.check(folder), (6, 6))
            path = Path(folder) / "cloud/calls.jsonl"
            path.write_text("".join(json.dumps(x) + "\n" for x in calls if x["group"] == 0))
            self.assertEqual(leaks.check(folder), (2, 8))  # of one group, the calls of a prompt are taken for prompts

    def test_what_rows_say_by_themselves(self):
        rng = np.random.default_rng(8)
        rows = uniform(rng, 40, 16)
        view = lambda r: recording.CloudView("test", r, DELTA)
        self.assertEqual(leaks.of_rows(view(rows)), {"rows": 40, "distinct": 40, "rank": 16, "full_rank": 16})
        self.assertEqual(leaks.of_rows(view(rows[:5].repeat(8, 0))), {"rows": 40, "distinct": 5, "rank": 2, "full_rank": 16})


class Inverters(unittest.TestCase):
    def test_is_trained_once_and_kept(self):
        rng = np.random.default_rng(6)
        table = rng.integers(-3000, 3000, (50, 4)).astype(np.int32)
        rows = modq.from_signed(table.astype(np.int64) * DELTA)
        calls = []

        def own_prompts():
            calls.append(1)
            return rows, np.arange(50)

        with tempfile.TemporaryDirectory() as folder:
            first, second = (training.inverter(Path(folder) / "i.npz", own_prompts, table).invert(rows) for _ in range(2))
        self.assertEqual(len(calls), 1)
        self.assertTrue(np.array_equal(first, second))
        self.assertLess(np.abs(first - table).max(), 30)


class Arithmetic(unittest.TestCase):
    def test_agrees_with_python_integers(self):
        rng = np.random.default_rng(3)
        edges = np.array([0, 1, 2, 16382, 16383, 2**47, modq.Q - 2, modq.Q - 1], np.uint64)
        a = np.concatenate([np.repeat(edges, 8), uniform(rng, 500)])
        b = np.concatenate([np.tile(edges, 8), uniform(rng, 500)])
        for x, y, p, s, t in zip(a, b, modq.mul(a, b), modq.sub(a, b), modq.add(a, b)):
            self.assertEqual(int(p), int(x) * int(y) % modq.Q)
            self.assertEqual(int(s), (int(x) - int(y)) % modq.Q)
            self.assertEqual(int(t), (int(x) + int(y)) % modq.Q)
        near = modq.Q - 1 - np.arange(200, dtype=np.uint64)  # quotients beside a whole number
        for x in (1, 2, 3, modq.Q // 2, modq.Q // 2 + 1, modq.Q // 3, modq.Q - 1):
            self.assertEqual(modq.mul(near, np.uint64(x)).tolist(), [int(v) * x % modq.Q for v in near])

    def test_products_of_matrices_at_their_edges(self):
        rng = np.random.default_rng(9)
        ones = np.uint64(0xFFFFFFFF) << np.uint64(16) | np.uint64(0x0000BFFF)  # limbs as large as below q they can be
        for terms in (1, 600, 2**13, 2**13 + 1, 20000):
            for value in (np.uint64(modq.Q - 1), ones):
                big = np.full((2, terms), value)
                self.assertTrue(np.all(modq.matmul(big, big.T) == int(value)**2 * terms % modq.Q), (terms, value))
        a, b = uniform(rng, 33, 700), uniform(rng, 700, 5)
        exact = np.array(a.tolist(), object) @ np.array(b.tolist(), object) % modq.Q
        self.assertEqual(modq.matmul(a, b).tolist(), exact.tolist())
        self.assertEqual(modq.matmul(a[:0], b).shape, (0, 5))
        self.assertEqual(modq.matmul(a[:, :0], b[:0]).tolist(), np.zeros((33, 5), int).tolist())

    def test_products_with_small_numbers(self):
        rng = np.random.default_rng(10)
        h = np.concatenate([np.full((1, 576), -2**15), np.full((1, 576), 2**15 - 1), rng.integers(-2**15, 2**15, (20, 576))]).astype(np.int16)
        for b in (uniform(rng, 576, 3), np.full((576, 2), modq.Q - 1, np.uint64)):
            self.assertTrue(np.array_equal(modq.matmul_small(h, b), modq.matmul(modq.from_signed(h.astype(np.int64)), b)))

    def test_reduced_by_halves_is_the_one_reduced_form(self):
        rng = np.random.default_rng(11)
        zero = np.zeros((40, 60), np.uint64)
        small = modq.from_signed(rng.integers(-1, 2, (50, 70)))
        deficient = modq.matmul(uniform(rng, 90, 25), uniform(rng, 25, 64))
        gaps = uniform(rng, 60, 80)
        gaps[:, ::3] = 0
        stairs = np.triu(uniform(rng, 70, 70), 5)[::-1]  # pivots appear from right to left
        known = np.hstack([uniform(rng, 100, 30), np.zeros((100, 1), np.uint64), uniform(rng, 100, 4)])  # a system with no solution
        repeated = np.repeat(uniform(rng, 12, 48), 6, 0)
        for a in (zero, small, deficient, gaps, stairs, known, repeated, repeated.T.copy(), uniform(rng, 64, 64), uniform(rng, 200, 17),
                  uniform(rng, 17, 200), zero[:0], np.zeros((20, 0), np.uint64)):
            (quick, at), (plain, wanted) = modq.reduced(a), modq.reduced_simply(a)
            self.assertEqual(list(at), wanted)
            self.assertTrue(np.array_equal(quick, plain))
        self.assertEqual(len(modq.reduced(deficient)[1]), 25)

    def test_solves_what_can_be_solved(self):
        rng = np.random.default_rng(5)
        a = modq.matmul(uniform(rng, 9, 3), uniform(rng, 3, 5))
        exists, x = modq.solve(a, np.hstack([modq.matmul(a, uniform(rng, 5, 2)), uniform(rng, 9, 1)]))
        self.assertEqual(exists.tolist(), [True, True, False])
        exists, x = modq.solve(a, modq.matmul(a, uniform(rng, 5, 2)))
        self.assertTrue(np.all(exists))
        b = modq.matmul(a, x)
        self.assertTrue(np.array_equal(modq.matmul(a, modq.solve(a, b)[1]), b))

    def test_null_vectors_of_a_rank_deficient_matrix(self):
        rng = np.random.default_rng(4)
        a = modq.matmul(uniform(rng, 6, 3), uniform(rng, 3, 10))
        n = modq.null_vectors(a, 10)
        self.assertEqual(n.shape, (10, 7))
        self.assertFalse(np.any(modq.matmul(a, n)))


class Recordings(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        root = Path(self.folder.name)
        self.cloud = root / "cloud"
        self.cloud.mkdir()
        (root / "truth").mkdir()
        info = {"version": 1, "q": modq.Q, "scheme": "none", "published": None, "lattice": None,
                "groups": [{"index": 0, "d": 2, "members": [], "delta_bits": 1}]}
        (self.cloud / "recording.json").write_text(json.dumps(info))
        (root / "truth" / "evaluations.jsonl").write_text('{"tokens":[1,0]}\n')

    def test_public_matrices_are_read(self):
        self.write(2, 4)
        self.assertIsNone(recording.load_cloud(self.folder.name).lattice)
        info = json.loads((self.cloud / "recording.json").read_text())
        info["lattice"] = {"files": {"2": "lattice-2.residues"}}
        (self.cloud / "recording.json").write_text(json.dumps(info))
        values = np.arange(3 * recording.DEGREE * 2)
        (self.cloud / "lattice-2.residues").write_bytes(b"".join(int(v).to_bytes(6, "little") for v in values))
        a = recording.load_cloud(self.folder.name).lattice
        self.assertEqual(a.shape, (3, recording.DEGREE, 2))
        self.assertTrue(np.array_equal(a.reshape(-1), values))

    def write(self, *residues):
        (self.cloud / "group-0.residues").write_bytes(b"".join(r.to_bytes(6, "little") for r in residues))

    def test_table_is_read_by_token(self):
        self.write(2, modq.Q - 4, 6, 8)
        self.assertEqual(recording.load_table(self.folder.name).tolist(), [[3, 4], [1, -2]])

    def refused(self, message):
        with self.assertRaisesRegex(ValueError, message):
            recording.load_table(self.folder.name)

    def test_candidates_are_read_by_position(self):
        evaluations = ([9], [0]), ([5, 6], [1, 2]), ([7], [1]), ([5], [0]), ([8, 9, 6], [1, 2, 3]), ([6], [0])
        lines = [json.dumps({"tokens": t, "sequences": s}) + "\n" for t, s in evaluations]
        path = Path(self.folder.name) / "truth" / "evaluations.jsonl"
        path.write_text("".join(lines))
        values = range(1, 19)  # nine rows of two; the first, the fifth and the last are nobody's proposals
        self.write(*(2 * v for v in values))
        got = candidates.of_recording(self.folder.name, 0)
        self.assertEqual(got.tokens.tolist(), [[5, 6, 7], [8, 9, 6]])
        self.assertEqual(got.rows.tolist(), [[[3, 4], [5, 6], [7, 8]], [[11, 12], [13, 14], [15, 16]]])
        self.assertEqual(got.proposed([7, 0]), 1)
        got.save(Path(self.folder.name) / "c.npz")
        self.assertEqual(candidates.load(Path(self.folder.name) / "c.npz").rows.tolist(), got.rows.tolist())
        for wrong, message in ((lines[:4], "5 tokens for 9 rows"), (lines[:4] + lines[1:2], "not a recording of"), (lines[:1], "not a recording of")):
            path.write_text("".join(wrong))
            with self.assertRaisesRegex(ValueError, message):
                candidates.of_recording(self.folder.name, 0)

    def test_refusals(self):
        self.write(2, modq.Q)
        self.refused("not below q")
        self.write(2, 4, 6)
        self.refused("not whole rows")
        self.write(2, 4, 6, 7)
        self.refused("not a multiple of Delta")
        with self.assertRaisesRegex(ValueError, "--groups 5"):
            recording.load_cloud(self.folder.name, 5)


if __name__ == "__main__":
    unittest.main()

"""Statistics against values that can be computed by hand, and what a result says of its lines."""
import sys
import tempfile
import unittest
from fractions import Fraction
from math import comb
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from talaria_attack import facts, laboratory, report, statistics  # noqa: E402


def line(scheme, attack, hits, rows=1000, adaptive=False, layer=0, text="t"):
    return {"text": text, "layer": layer, "chance": 0.05, "scheme": scheme, "attack": attack, "adaptive": adaptive, "applies": True, "seconds": 1.0,
            "rows": rows, "hits": hits, "top10": hits, "prompts": 2, "prompts_exact": 0}


class Statistics(unittest.TestCase):
    def test_interval_at_the_ends_is_the_closed_form(self):
        low, high = statistics.interval(0, 2048, 0.001)
        self.assertEqual(low, 0)
        self.assertAlmostEqual(high, 1 - 0.0005 ** (1 / 2048), places=9)
        low, high = statistics.interval(50, 50, 0.001)
        self.assertAlmostEqual(low, 0.0005 ** (1 / 50), places=9)
        self.assertEqual(high, 1)

    def test_interval_covers(self):
        n, alpha = 40, 0.01
        bounds = [statistics.interval(k, n, alpha) for k in range(n + 1)]
        for p in (0.001, 0.02, 0.3, 0.5, 0.97):
            covered = sum(comb(n, k) * p**k * (1 - p)**(n - k) for k, (low, high) in enumerate(bounds) if low <= p <= high)
            self.assertGreaterEqual(covered, 1 - alpha)

    def test_fisher_agrees_with_exact_fractions(self):
        for a, n_a, b, n_b in ((0, 5, 3, 5), (8, 10, 1, 12), (0, 1024, 9, 1024), (3, 7, 3, 7)):
            total = comb(n_a + n_b, a + b)
            probability = {k: Fraction(comb(n_a, k) * comb(n_b, a + b - k), total) for k in range(max(0, a + b - n_b), min(n_a, a + b) + 1)}
            exact = sum(p for p in probability.values() if p <= probability[a])
            self.assertAlmostEqual(statistics.differs(a, n_a, b, n_b), float(exact), places=9)

    def test_holm_is_the_textbook_example(self):
        self.assertEqual([round(p, 6) for p in statistics.holm([0.01, 0.04, 0.03, 0.005])], [0.03, 0.06, 0.06, 0.02])
        self.assertEqual(statistics.holm([0.5, 0.9]), [1.0, 1.0])
        self.assertEqual(statistics.holm([]), [])


class Judgement(unittest.TestCase):
    def judged(self, *lines):
        lines = list(lines)
        return laboratory.judge(lines), lines

    def test_a_line_that_differs_is_found_and_chance_is_not(self):
        family, (none, lattice, control) = self.judged(line("none", "table", 990), line("lattice", "table", 3), line(laboratory.CONTROL, "table", 1))
        self.assertTrue(none["differs_from_control"])
        self.assertFalse(none["within_control_interval"])
        self.assertFalse(lattice["differs_from_control"])
        self.assertTrue(lattice["within_control_interval"])
        self.assertNotIn("p", control)
        self.assertEqual((family["tests"], family["intervals"]), (2, 3))

    def test_the_control_is_of_the_same_text_layer_and_attack(self):
        _, lines = self.judged(line("lattice", "table", 3), line(laboratory.CONTROL, "table", 0, text="other"), line(laboratory.CONTROL, "other", 0),
                               line(laboratory.CONTROL, "table", 0, layer=1))
        self.assertNotIn("p", lines[0])

    def facts(self, *lines):
        _, lines = self.judged(*lines)
        return {f["fact"].split(":")[0]: f for f in facts.of(lines)}

    def test_facts_hold_only_when_measured(self):
        for fact in self.facts(line(laboratory.CONTROL, "table", 0)).values():
            self.assertFalse(fact["holds"])
            self.assertEqual(fact["against"], ["not measured"])

    def test_a_lattice_mask_that_leaks_is_reported(self):
        got = self.facts(line("lattice", "table", 500), line(laboratory.CONTROL, "table", 0))["the lattice mask"]
        self.assertFalse(got["holds"])
        self.assertEqual(got["against"], ["lattice, t, layer 0, table: 500 of 1000"])

    def test_one_text_below_the_threshold_is_enough(self):
        got = self.facts(line("none", "a", 990), line("none", "b", 10), line("none", "a", 100, text="u"))["unprotected rows of layer 0"]
        self.assertEqual(got["against"], ["none, u, layer 0, a: 100 of 1000"])


class Report(unittest.TestCase):
    def result(self):
        lines = [line("none", "table", 990), line("lattice", "table", 3), line(laboratory.CONTROL, "table", 1), line("lattice", "null", 0) | {"applies": False},
                 line("none", "matching", 600, layer=1) | {"proposed": 800}]
        made = {"date": "2026-01-01", "model": "M", "quick": False, "tokens": 1000, "deep_tokens": 50, "context": 50, "cpu": "c", "cores": 2, "recording_seconds": 60, "proposal_seconds": 30, "attack_seconds": 60,
                "texts": [{"name": "t", "what": ""}]}
        return {"version": 2, "made": made, "lines": lines} | laboratory.judge(lines) | {"facts": facts.of(lines), "leaks": [
            {"scheme": "none", "prompts": 2, "lengths_right": 2, "seconds_per_answer_row": None, "of_rows": {"rows": 10, "distinct": 4, "rank": 4, "full_rank": 10}}]}

    def test_document_keeps_what_is_written_by_hand(self):
        with tempfile.TemporaryDirectory() as folder:
            document = Path(folder) / "d.md"
            document.write_text(f"before\n{report.BEGIN}\nreplaced\n{report.END}\nafter\n")
            report.write(self.result(), document)
            text = document.read_text()
            self.assertTrue(text.startswith("before\n") and text.endswith("\nafter\n"))
            self.assertNotIn("replaced", text)
            self.assertIn("| none | **99.00** |", text)
            self.assertIn("| lattice | 0.30 |", text)
            self.assertIn("Of the lattice mask's 1 lines 1 lie inside their negative control's interval, 0 above and 0 below it.", text)
            self.assertIn("|  | among the model's proposals | 80.00 % |", text)
            self.assertIn("| none | matching | 60.00 (75.00) |", text)
            self.assertIn("| none | 2 of 2 |  | 4 of 10 | 4 of 10 |", text)
            document.write_text("nothing to replace")
            with self.assertRaisesRegex(ValueError, "no generated part"):
                report.write(self.result(), document)

    def test_details_have_every_line_that_applies(self):
        text = report.details(self.result())
        self.assertEqual(sum(row.startswith("| 0 | t |") for row in text.splitlines()), 3)
        self.assertEqual({row.count("|") for row in text.splitlines() if row.startswith("|")}, {14})
        self.assertRegex(text, r"\| 1 \| t \| none \| matching \|.* 80.00 % \|")

    def test_another_version_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "r.json"
            report.write_json({"version": 1}, path)
            with self.assertRaisesRegex(ValueError, "version 1, and this program reads 2"):
                report.load(path)


if __name__ == "__main__":
    unittest.main()

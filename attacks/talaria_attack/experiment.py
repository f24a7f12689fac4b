"""What is recorded and attacked: texts, schemes, layers."""
import json
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Text:
    name: str
    file: Path
    what: str


@dataclass(frozen=True)
class Scheme:
    name: str       # of its recording's folder
    scheme: str     # --scheme of talaria-cvm-lab
    m: str = ""     # --m


TEXTS = (
    Text("wikitext-2", ROOT / "testdata/wikitext2-test.txt", "articles of Wikipedia, WikiText-2's test split"),
    Text("image prompts", ROOT / "testdata/prompts/image-prompts.txt", "prompts for image generation"),
    Text("clinical notes", ROOT / "testdata/prompts/clinical-notes.txt", "clinical notes of invented patients"),
    Text("model's answers", ROOT / "testdata/prompts/model-answers.txt", "answers that the model wrote, as text"),
)
# Prompts whose answers the model writes under each scheme while it is recorded: one row a call.
DECODED = Text("decoded answers", ROOT / "testdata/prompts/questions.txt", "prompts, and answers as they are decoded, a row a call")

SCHEMES = (
    Scheme("none", "none"),
    Scheme("published-1-4", "published", "1/4"),
    Scheme("published-1-2", "published", "1/2"),
    Scheme("published-3-4", "published", "3/4"),
    Scheme("published-d-1", "published", "d-1"),
    Scheme("lattice", "lattice"),
    Scheme("lattice-reused", "lattice-reused"),
    Scheme("lattice-no-error", "lattice-no-error"),
)


@dataclass(frozen=True)
class Plan:
    schemes: tuple = SCHEMES
    tokens: int = 2048       # of each text, at layer 0
    deep_tokens: int = 200   # of each text, at the deeper layers
    # Of a prompt. At most 63: from 64 query rows on llama.cpp's attention sums in tiles, in another order than for a decode
    # step, and rows of deeper layers are compared bit for bit.
    context: int = 50
    training_rows: int = 102_400  # of the attacker's own prompts, for learned inverters at layer 0
    answers: int = 6         # prompts that are answered
    answer_tokens: int = 48  # of an answer at most

    def quick(self):
        return replace(self, tokens=500, deep_tokens=50, training_rows=2000, answers=1)

    def runner(self):
        """What talaria-lab-runner evaluates, in the order of texts()."""
        files = [part for text in TEXTS for part in ("--text", str(text.file))]
        return files + ["--prompts", str(DECODED.file), "--answers", str(self.answers), "--generate", str(self.answer_tokens),
                        "--tokens", str(self.tokens), "--context", str(self.context)]

    @staticmethod
    def texts():
        return TEXTS + (DECODED,)


def layers_of(store):
    """{layer: index of the group that takes the state entering its attention}: the first, the second, the middle, the last."""
    groups = json.loads((Path(store) / "manifest.json").read_text())["groups"]
    found = {}
    for index, group in enumerate(groups):
        for matrix in group["matrices"]:
            part = matrix["name"].split(".")
            if part[0] == "blk" and part[2] == "attn_q":
                found[int(part[1])] = index
    if not found:
        raise ValueError(f"{store}: no matrix blk.*.attn_q.weight: the laboratory does not know this architecture")
    last = max(found)
    return {layer: found[layer] for layer in dict.fromkeys((0, min(1, last), (last + 1) // 2, last))}

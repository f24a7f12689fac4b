"""The whole experiment: recordings of every scheme over the real protocol, every attack on each, tables and plots."""
import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import candidates, experiment, facts, laboratory, leaks, recorder, recording, report, training, weights
from .progress import Progress


TRAINING = "training-lattice"


def reproduce(options):
    plan = experiment.Plan().quick() if options.quick else experiment.Plan()
    plan = replace(plan, tokens=options.tokens or plan.tokens, deep_tokens=options.deep_tokens or plan.deep_tokens)
    attacks = [a.NAME for a in laboratory.find_attacks()]
    check_names("attack", options.attack, attacks)
    check_names("scheme", options.scheme, [s.name for s in plan.schemes])
    check_names("text", options.text, [t.name for t in plan.texts()])
    if options.scheme:
        plan = replace(plan, schemes=tuple(s for s in plan.schemes if s.name in options.scheme or s.name == "none"))
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    recorder.check_programs(options.programs)
    recorder.check_disk(work, needed_bytes(plan, work, provision=not options.store))
    store = Path(options.store or work / "store")
    if not options.store and not (store / "manifest.json").exists():
        print("talaria-attack: provisioning the model, once", flush=True)
        recorder.provision(options.programs, options.model, store)
    recorder.check_store(store)
    layers = experiment.layers_of(store)

    (work / "lines").mkdir(exist_ok=True)
    table = work / "table.npy"
    with tempfile.NamedTemporaryFile(dir=work, suffix=".npy", delete=False) as new:
        np.save(new, weights.table(store))
    os.replace(new.name, table)
    lines = run_all(options, plan, recorder.Recorder(options.programs, store, work), layers, table)
    if options.record_only:
        return 0

    result = {"version": 2, "made": made(options, plan, store, work, lines), "lines": sort(lines, plan)}
    result |= laboratory.judge(result["lines"])
    result["facts"] = facts.of(result["lines"])
    result["leaks"] = [] if options.attack else leaks_of(plan, work, layers[0])
    report.write_json(result, work / "result.json")
    for fact in result["facts"]:
        print(("holds          " if fact["holds"] else "DOES NOT HOLD  ") + fact["fact"])
        for line in fact["against"][:10]:
            print("                 " + line)
    print(f"{work / 'result.json'}: talaria-attack report turns it into tables and plots")
    return 0 if all(f["holds"] for f in result["facts"]) else 1


def check_names(what, wanted, there_are):
    unknown = [name for name in wanted if name not in there_are]
    if unknown:
        raise ValueError(f"there is no {what} {unknown[0]!r}; there are: {', '.join(there_are)}")


def run_all(options, plan, make, layers, table):
    """Records, and attacks what is recorded as soon as it is. The lines, in no order."""
    texts = [i for i, text in enumerate(plan.texts()) if not options.text or text.name in options.text]
    jobs = [] if options.record_only else [(s, t, layer) for layer in layers for t in texts for s in (*plan.schemes, None)]
    learns = any(s.name == "lattice" for s in plan.schemes) and any(getattr(a, "NEEDS_INVERTER", False) for a in wanted_attacks(options.attack, 0))
    progress = Progress(len(plan.schemes) + len(texts) + learns + len(jobs))
    done, tasks = set(), []  # done: names of recordings
    groups, deeper = list(layers.values()), [layers[layer] for layer in layers if layer > 0]
    # Spawned, not forked: a forked process would keep open what another thread is just starting a program with.
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as attackers, ThreadPoolExecutor(recorder.jobs_that_fit(options.jobs)) as recorders:
        def finished(name):
            progress.say(f"recorded {name}")
            done.add(name)
            for job in [j for j in jobs if needs(plan, learns, *j) <= done]:
                jobs.remove(job)
                scheme, text, layer = job
                task = attackers.submit(attack_one, plan, make.work, table, scheme, text, layer, layers[layer], tuple(options.attack))
                task.add_done_callback(lambda _, x=job: progress.say(f"attacked {x[0].name if x[0] else 'uniform rows'}, {plan.texts()[x[1]].name}, layer {x[2]}"))
                tasks.append(task)

        # Rows of scheme none first: the others' candidates are along its texts.
        plain = next(s for s in plan.schemes if s.scheme == "none")
        make.record(plain.name, plain.scheme, plain.m, groups, plan.runner())
        recordings = {recorders.submit(make.record, s.name, s.scheme, s.m, groups, plan.runner()): s.name for s in plan.schemes if s is not plain}
        if learns:
            recordings[recorders.submit(make_training, plan, make, table, layers[0])] = TRAINING
        recordings |= {recorders.submit(make_candidates, plan, make, make.work / plain.name, t, deeper): candidates_name(t) for t in texts}
        finished(plain.name)
        try:
            for recording_task in as_completed(recordings):
                recording_task.result()
                finished(recordings[recording_task])
        except BaseException:
            recorders.shutdown(wait=False, cancel_futures=True)
            attackers.shutdown(wait=False, cancel_futures=True)
            raise
        return [line for task in tasks for line in task.result()]


def needs(plan, learns, scheme, text, layer):
    """Names of the recordings that a job needs."""
    lattice_learned = learns and layer == 0 and scheme is not None and scheme.name == "lattice"
    return {s.name for s in stand_ins(plan, scheme)} | ({candidates_name(text)} if layer > 0 else {TRAINING} if lattice_learned else set())


def stand_ins(plan, scheme):
    """Whose recordings a view is made of. Uniform rows take the place of the first published scheme's, beside the first lattice scheme's
    A, so that attacks on M_pub and on A have a negative control too."""
    if scheme is not None:
        return [scheme]
    firsts = [next((s for s in plan.schemes if s.scheme.startswith(kind)), None) for kind in ("published", "lattice")]
    return [s for s in firsts if s is not None] or [plan.schemes[0]]


def candidates_name(text):
    return f"candidates-{text}"


def make_candidates(plan, make, plain, text, groups):
    """What the model proposes along the first deep_tokens of a text, and its states: kept as arrays, the recording is removed."""
    _, tokens, starts = part_of(plain, text, plan.deep_tokens)
    ends = [*starts[1:], len(tokens)]
    along = make.work / f"{candidates_name(text)}.jsonl"
    along.write_text("".join(json.dumps({"tokens": tokens[a:b], "positions": list(range(b - a))}) + "\n" for a, b in zip(starts, ends)))
    longest = max(b - a for a, b in zip(starts, ends))

    def keep_arrays(folder):
        for group in groups:
            candidates.of_recording(folder, group).save(folder / f"group-{group}.npz")
        for part in ("cloud", "truth"):
            shutil.rmtree(folder / part)

    make.record(candidates_name(text), "none", "", groups, ["--candidates", str(along), "--context", str(longest)], keep_arrays)


def make_training(plan, make, table, group):
    """Rows of the attacker's own prompts under the lattice mask; those of the other schemes the attacker makes itself."""
    tokens = training.tokens_to_record(len(np.load(table, mmap_mode="r")), plan.training_rows)
    listed = make.work / f"{TRAINING}.tokens"
    listed.write_text(" ".join(map(str, tokens)) + "\n")
    make.record(TRAINING, "lattice", "", [group], ["--token-list", str(listed), "--first-layer"], lambda folder: (folder / f"truth/group-{group}.f32").unlink())


def inverter_of(plan, work, scheme, view, table):
    """Trained once a scheme. None for schemes that are positive controls of other attacks."""
    if scheme is not None and scheme.scheme not in ("none", "published", "lattice"):
        return None

    def own_prompts():
        return training.recorded(work / TRAINING) if scheme and scheme.scheme == "lattice" else training.made(view, table, plan.training_rows)
    return training.inverter(work / f"inverter-{scheme.name if scheme else 'uniform'}-{plan.training_rows}.npz", own_prompts, table)


def part_of(folder, text, limit):
    """(rows, tokens, first row of each prompt) of a text: whole prompts, until there are `limit` tokens."""
    rows, tokens, starts = [], [], []
    for first, end, of_prompt in recording.prompts_of(recording.load_evaluations(folder), text):
        if len(tokens) >= limit:
            break
        starts.append(len(tokens))
        rows += range(first, end)
        tokens += of_prompt
    return rows, tokens, starts


def attack_one(plan, work, table, scheme, text, layer, group, only):
    """Lines of one scheme (None: uniform rows), text and layer."""
    folder, *others = (work / s.name for s in stand_ins(plan, scheme))
    rows, tokens, starts = part_of(folder, text, plan.tokens if layer == 0 else plan.deep_tokens)
    view = recording.load_cloud(folder, group).part(rows)
    if scheme is None:
        view = laboratory.uniform_control(view, *(recording.load_cloud(other, group).lattice for other in others))
    tokens = np.array(tokens)
    proposed = candidates.load(work / candidates_name(text) / f"group-{group}.npz") if layer > 0 else None
    table = np.load(table, mmap_mode="r")
    inverter = None
    shared = {"text": plan.texts()[text].name, "layer": layer, "chance": float(np.bincount(tokens).max() / len(tokens))}
    lines = []
    for a in wanted_attacks(only, layer):
        kept = work / "lines" / f"{attempt(a, work, plan, scheme, text, layer)}.json"
        if not kept.exists():
            if inverter is None and getattr(a, "NEEDS_INVERTER", False) and layer == 0:
                inverter = inverter_of(plan, work, scheme, view, table)
            report.write_json(shared | laboratory.run(a, view, table, tokens, starts, proposed, inverter), kept)
        lines.append(json.loads(kept.read_text()))
    return lines


def wanted_attacks(only, layer):
    return [a for a in laboratory.find_attacks() if (not only or a.NAME in only) and (layer == 0 or getattr(a, "DEEPER", False))]


def attempt(attack, work, plan, scheme, text, layer):
    """Digest of what a line depends on, so that only what changed is run again: the attack, what it stands on, and the recordings."""
    here = Path(__file__).parent
    files = [Path(attack.__file__), *(here / f"{m}.py" for m in ("candidates", "fingerprint", "inverter", "laboratory", "modq", "training", "weights")),
             *(work / name / "made.json" for name in sorted(needs(plan, getattr(attack, "NEEDS_INVERTER", False), scheme, text, layer)))]
    digest = hashlib.sha256(repr((plan.tokens, plan.deep_tokens, plan.training_rows, scheme, text, layer)).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def leaks_of(plan, work, group):
    """What row counts, repetitions and ranks say, of every scheme."""
    return [leaks.report(work / scheme.name, group) for scheme in plan.schemes]


def sort(lines, plan):
    texts = [t.name for t in plan.texts()]
    return sorted(lines, key=lambda x: (texts.index(x["text"]), x["layer"], x["scheme"] == laboratory.CONTROL, x["scheme"], x["attack"]))


def needed_bytes(plan, work, provision):
    """Of what is not there yet: six bytes a residue and four a plain number, for SmolLM2's width."""
    texts = range(len(plan.texts()))
    rows = sum(4 * len(texts) * plan.tokens for s in plan.schemes if not (work / s.name).exists())
    rows += sum(3 * 253 * plan.deep_tokens for t in texts if not (work / candidates_name(t)).exists())
    rows += plan.training_rows if not (work / TRAINING).exists() else 0
    return rows * 576 * 10 + 2e8 + (2.9e9 if provision and not (work / "store").exists() else 0)


def made(options, plan, store, work, lines):
    """What a reader needs to know of how a result came about."""
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return {"date": time.strftime("%Y-%m-%d", time.gmtime()), "model": json.loads((store / "manifest.json").read_text())["model_name"],
            "quick": options.quick, "tokens": plan.tokens, "deep_tokens": plan.deep_tokens, "context": plan.context, "cpu": cpu, "cores": os.cpu_count(),
            "recording_seconds": round(sum(json.loads(f.read_text())["seconds"] for f in work.glob("*/made.json"))),
            "proposal_seconds": round(sum(json.loads(f.read_text())["seconds"] for f in work.glob("candidates-*/made.json"))),
            "attack_seconds": round(sum(x["seconds"] for x in lines)), "texts": [{"name": t.name, "what": t.what} for t in plan.texts()]}

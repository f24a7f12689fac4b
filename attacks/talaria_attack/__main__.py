"""talaria-attack: what a cloud learns from what it records.

  talaria-attack run --vocabulary V --recording R [--recording R2 ...] --out result.json
  talaria-attack report result.json --document doc/attacks.md --plot doc/attacks.png

Recordings come from talaria-cloud-lab and talaria-cvm-lab (doc/recording.md). V is the attacker's own run over the whole
vocabulary, scheme none. Exit codes: 0 done; 2 usage or unusable input.
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np

from . import laboratory, recording


def run(options):
    table = recording.load_table(options.vocabulary)
    attacks = laboratory.find_attacks()
    lines, chance, control = [], 0.0, None
    reference = None
    for folder in options.recording:
        view = recording.load_cloud(folder)
        tokens, starts = recording.load_tokens(folder)
        if len(tokens) != len(view.rows):
            raise ValueError(f"{folder}: {len(tokens)} tokens for {len(view.rows)} rows")
        if reference is None:
            reference = tokens
        elif not np.array_equal(reference, tokens):
            raise ValueError(f"{folder}: not the same text as {options.recording[0]}")
        chance = float(np.bincount(tokens).max() / len(tokens))
        control = control or (laboratory.uniform_control(view), tokens, starts)
        lines += [report_line(a, view, table, tokens, starts) for a in attacks]
    lines += [report_line(a, control[0], table, *control[1:]) for a in attacks]
    result = laboratory.judge(lines, chance)
    result["note"] = options.note
    Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


def report_line(attack, view, table, tokens, starts):
    line = laboratory.run(attack, view, table, tokens, starts)
    print(json.dumps(line), flush=True)
    return line


def report(options):
    from . import report as writer
    result = writer.load(options.result)
    if options.document:
        writer.write(result, options.document)
    else:
        print(writer.table(result))
    if options.plot:
        writer.plot(result, options.plot)


def main():
    parser = argparse.ArgumentParser(prog="talaria-attack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    r = commands.add_parser("run", help="attack recordings of one text under several schemes, and the negative control")
    r.add_argument("--vocabulary", required=True, metavar="DIR", help="recording of every token, scheme none")
    r.add_argument("--recording", required=True, action="append", metavar="DIR", help="may be given again; all of the same text")
    r.add_argument("--out", required=True, metavar="JSON")
    r.add_argument("--note", default="", help="one sentence for the report: which text and model")
    r.set_defaults(do=run)
    p = commands.add_parser("report", help="write the table and the plot from a run's JSON")
    p.add_argument("result", metavar="JSON")
    p.add_argument("--document", metavar="MD", help="replace the generated part of this file; default: print")
    p.add_argument("--plot", metavar="PNG", help="needs matplotlib")
    p.set_defaults(do=report)
    options = parser.parse_args()
    try:
        options.do(options)
    except (OSError, ValueError, KeyError) as error:
        print(f"talaria-attack: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""talaria-attack: what a cloud learns from what it records.

  talaria-attack reproduce --work DIR       record every scheme, run every attack: result.json in DIR
  talaria-attack report DIR/result.json     tables and plots of it

Experiments of your own: doc/recording.md says how recordings are made, CONTRIBUTING.md how an attack is added.
Exit codes: 0 done; 1 done, and a fact of the report does not hold; 2 usage or unusable input; 130 interrupted.
"""
import argparse
import os
import sys
from pathlib import Path

# Attacks run in as many processes as --jobs says; each has one thread.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("TALARIA_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "talaria")


def reproduce(options):
    from . import reproduce as experiment
    return experiment.reproduce(options)


def report(options):
    from . import report as writer
    result = writer.load(options.result)
    if options.document:
        writer.write(result, options.document)
    else:
        print(writer.summary(result))
    if options.details:
        writer.write(result, options.details, details=True)
    if options.plots:
        writer.plot(result, options.plots)
    return 0


def parser():
    p = argparse.ArgumentParser(prog="talaria-attack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(required=True, metavar="COMMAND")
    r = commands.add_parser(
        "reproduce", formatter_class=argparse.RawDescriptionHelpFormatter,
        help="record every scheme on a real model, run every attack on each, and say which facts hold",
        description="Provisions the demo's model (or takes --store), records every scheme with talaria-cloud-lab and talaria-cvm-lab over the\n"
                    "real protocol, and runs every attack on every text and layer, and on uniform rows. A recording that is in --work\n"
                    "already is used again; an interrupted run goes on where it was. Needs 4.5 GB of memory a job, and the disk below.",
        epilog="Examples:\n"
               "  attacks/talaria-attack reproduce --work /tmp/attack --quick      # 500 tokens of a text, 50 at deeper layers\n"
               "  attacks/talaria-attack reproduce --work /tmp/attack              # everything\n"
               "  attacks/talaria-attack report /tmp/attack/result.json --document doc/attacks.md \\\n"
               "    --details doc/attacks/results.md --plots doc/attacks")
    r.add_argument("--work", required=True, metavar="DIR", help="recordings and result.json; up to 7 GB (--quick: 1.6), and 2.9 GB of store without --store")
    r.add_argument("--quick", action="store_true", help="500 tokens of a text at layer 0, 50 at deeper layers, one decoded answer")
    r.add_argument("--store", metavar="DIR", help="a provisioned store (read only); default: DIR/store, made from --model")
    r.add_argument("--model", metavar="GGUF", default=CACHE / "models/SmolLM2-135M-Instruct.Q4_1.gguf", help="default: the demo's (scripts/setup)")
    r.add_argument("--programs", metavar="DIR", default=ROOT / "build/release/bin", help="default: build/release/bin")
    r.add_argument("--tokens", type=int, metavar="N", help="of each text at layer 0, in place of 2048 (--quick: 500)")
    r.add_argument("--deep-tokens", type=int, metavar="N", help="of each text at deeper layers, in place of 200 (--quick: 50); 252 evaluations each")
    r.add_argument("--attack", metavar="NAME", action="append", default=[], help="only this attack; may be given again")
    r.add_argument("--scheme", metavar="NAME", action="append", default=[], help="only this scheme, beside none; likewise")
    r.add_argument("--text", metavar="NAME", action="append", default=[], help="attack only this text; likewise")
    r.add_argument("--record-only", action="store_true", help="stop when the recordings are there")
    r.add_argument("--jobs", type=int, default=min(2, os.cpu_count()), metavar="N", help="recordings, and attacks, at once (default: %(default)s)")
    r.set_defaults(do=reproduce)
    p2 = commands.add_parser("report", help="tables and plots from a result.json, never by hand")
    p2.add_argument("result", metavar="JSON")
    p2.add_argument("--document", metavar="MD", help="replace the generated part of this file; default: print it")
    p2.add_argument("--details", metavar="MD", help="write every line, with its interval and seconds, to this file")
    p2.add_argument("--plots", metavar="DIR", help="write layer0.png and deeper.png there (needs matplotlib)")
    p2.set_defaults(do=report)
    return p


def main():
    options = parser().parse_args()
    for name in ("jobs", "tokens", "deep_tokens"):
        if (getattr(options, name, None) or 1) < 1 or getattr(options, name, None) == 0:
            print(f"talaria-attack: --{name.replace('_', '-')} must be 1 or more", file=sys.stderr)
            return 2
    try:
        return options.do(options)
    except (OSError, ValueError, KeyError) as error:
        print(f"talaria-attack: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("talaria-attack: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

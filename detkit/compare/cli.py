"""The verb `detkit compare` and its sub-verbs `run` (the default) and `report`."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

MAY_DIFFER = ("data", "code", "config")
TUNABLE = ("weight", "lr")
MOST_JOBS, MOST_SEEDS = 1000, 10_000
EPILOG = """examples:
  detkit compare quickstart focal bce --seeds 3
  detkit compare quickstart --grid losses.classification.gamma=0,1,2 --baseline config
  detkit compare report runs/compare-shapes
  detkit compare report runs/first runs/second --output runs/both

`detkit compare CONFIG ...` is short for `detkit compare run CONFIG ...`, whose --help lists the options.

A bench may be stopped at any time: the same command continues it. exit codes of both sub-verbs: 0 no verdict is
withheld; 1 a verdict is withheld (a run failed or is missing, the baseline diverged, the runs were not given the same,
a file was changed afterwards), and the reports say why; 2 wrong input; 130 after Ctrl-C"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True)
    parser.set_defaults(verb="run")
    add_run_arguments(verbs.add_parser("run", help="train variants x seeds and report (the default)"))
    add_report_arguments(verbs.add_parser("report", help="write the reports again, or of several benches as one"))
    for sub in verbs.choices.values():
        sub.epilog, sub.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="config under all variants: a file or a name (detkit list configs)")
    parser.add_argument("variants", nargs="*", metavar="VARIANT or key=value",
                        help="file or name of an overlay is a variant, key=value holds for all of them")  # fmt: skip
    parser.add_argument("--seeds", default="3", metavar="N or A,B,C", help="their number or a list; default 3: 0,1,2")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=A,B,C", help="a variant for each value")
    parser.add_argument("--baseline", metavar="NAME", help="default: the first variant; `config`: the config itself")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/compare-<name of the config>")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time; default 1")
    parser.add_argument("--launcher", choices=("local", "ray"), default="local",
                        help="processes on this machine, or a Ray cluster (pip install 'detkit[ray]')")  # fmt: skip
    parser.add_argument("--tune", default="", metavar="weight,lr",
                        help="each variant first chooses these on held-out training data")  # fmt: skip
    parser.add_argument("--title", help="headline of the report")
    parser.add_argument("--allow", default="", metavar="code",
                        help="resume interrupted runs although the code has changed; the report shows it")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the plan and the estimated time")


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folder of a bench")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: the bench's folder; required for several")
    parser.add_argument("--allow", default="", metavar=",".join(MAY_DIFFER),
                        help="differences between the runs that are shown instead of refused")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Runs the sub-verb, with detkit's log on stdout."""
    log, handler = logging.getLogger("detkit"), logging.StreamHandler(sys.stdout)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        return report(args) if args.verb == "report" else bench(args)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def bench(args: argparse.Namespace) -> int:
    """Makes the plan and the missing runs."""
    from detkit.compare.launchers import LAUNCHERS
    from detkit.compare.plan import make_plan
    from detkit.compare.run import describe, run_bench
    from detkit.config import find_config

    if args.config == "report" and not Path(args.config).exists():
        raise ValueError("write `report` first: detkit compare report DIR ...")
    if not 1 <= args.jobs <= MOST_JOBS:
        raise ValueError(f"--jobs: {args.jobs} must be between 1 and {MOST_JOBS}")
    overrides = [text for text in args.variants if "=" in text and not Path(text).exists()]
    files = [text for text in args.variants if text not in overrides]
    plan = make_plan(
        args.config, files, grids=args.grid, overrides=overrides, seeds=parse_seeds(args.seeds),
        baseline=args.baseline, title=args.title,
    )  # fmt: skip
    folder = args.output or Path("runs") / f"compare-{find_config(args.config).stem}"
    tune, launcher = words_of("--tune", args.tune, TUNABLE), LAUNCHERS[args.launcher]
    allow = words_of("--allow, in a bench", args.allow, ("code",))
    if args.dry_run:
        print(describe(plan, folder, jobs=args.jobs, tune=tune, launcher=launcher))
        return 0
    command = shlex.join(["detkit", *sys.argv[1:]])
    return run_bench(plan, folder, jobs=args.jobs, command=command, launcher=launcher, tune=tune, allow=allow)


def parse_seeds(text: str) -> list[int]:
    """`3` -> 0, 1, 2; `4,7` -> 4, 7; `4,` -> 4."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    is_list = "," in text
    if not parts or not all(map(str.isdecimal, parts)) or not (is_list or 1 <= int(text) <= MOST_SEEDS):
        raise ValueError(f"--seeds: {text!r} must be a count from 1 to {MOST_SEEDS} or a list such as 0,1,2")
    return [int(part) for part in parts] if is_list else list(range(int(text)))


def words_of(option: str, text: str, known: tuple[str, ...]) -> list[str]:
    """`a,b` -> [a, b]; ValueError for an unknown word."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in words if word not in known]:
        raise ValueError(f"{option}: {', '.join(unknown)} is not one of {', '.join(known)}")
    return words


def report(args: argparse.Namespace) -> int:
    """Writes the reports of one bench or several again from the runs, and prints the verdicts."""
    from detkit.compare.plan import PLAN
    from detkit.compare.report import REPORTS
    from detkit.compare.run import report as write_report
    from detkit.utils.outputs import check_can_write, refuse_foreign

    allow = words_of("--allow", args.allow, MAY_DIFFER)
    if len(args.folders) > 1 and args.output is None:
        raise ValueError("--output is required to report several benches")
    output = args.output or args.folders[0]
    if not (output / PLAN).is_file():
        refuse_foreign("--output", output, REPORTS)
    check_can_write("--output", output)
    return write_report(args.folders, output, allow)

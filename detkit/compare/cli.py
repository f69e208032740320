"""The verb `detkit compare`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

MAY_DIFFER = ("data", "code", "config")
TUNABLE = ("weight", "lr")
MOST_JOBS, MOST_SEEDS = 1000, 10_000
EPILOG = """examples:
  detkit compare configs/quickstart/shapes.yaml configs/losses/focal.yaml configs/losses/bce.yaml --seeds 3
  detkit compare configs/quickstart/shapes.yaml --grid losses.classification.gamma=0,1,2 --baseline config
  detkit compare report runs/compare-shapes
  detkit compare report runs/first runs/second --output runs/both

It may be stopped anywhere: the same command continues it. exit codes, of a bench and of `report`: 0 no verdict is
withheld; 1 one is (a run failed or is missing, the baseline diverged, the runs were not given the same, a file was
changed afterwards), and the reports say why; 2 wrong input; 130 after Ctrl-C"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("config", help="config that every variant is laid over; or the word `report`")
    parser.add_argument("variants", nargs="*", metavar="FILE or key=value",
                        help="a YAML file is a variant, key=value holds for all; after `report`: folders")  # fmt: skip
    parser.add_argument("--seeds", default="3", metavar="N or A,B,C", help="how many (0, 1, ...), or which; default 3")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=A,B,C", help="a variant for each value")
    parser.add_argument("--baseline", metavar="NAME", help="default: the first; `config`: the config itself")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/compare-<name of the config>")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time; default 1")
    parser.add_argument("--launcher", choices=("local", "ray"), default="local",
                        help="processes of this machine, or a Ray cluster (pip install 'detkit[ray]')")  # fmt: skip
    parser.add_argument("--tune", default="", metavar="weight,lr",
                        help="each variant first chooses these for itself, on held-out training data")  # fmt: skip
    parser.add_argument("--title", help="headline of the report")
    parser.add_argument("--allow", default="", metavar="data,code,config",
                        help="what may differ between runs and is shown; without `report`, code alone: runs that were "
                        "cut off resume although it has changed")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and the time it will take")


def run(args: argparse.Namespace) -> int:
    """Runs the bench, or writes the report of one again."""
    with on_stdout():
        return report(args) if args.config == "report" else bench(args)


@contextlib.contextmanager
def on_stdout() -> Iterator[None]:
    """Meanwhile, what detkit logs goes to stdout."""
    log, handler = logging.getLogger("detkit"), logging.StreamHandler(sys.stdout)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def bench(args: argparse.Namespace) -> int:
    """Plans, and runs what isn't done."""
    from detkit.compare.launchers import LAUNCHERS, SHARES
    from detkit.compare.plan import make_plan
    from detkit.compare.run import describe, run_bench

    if not 1 <= args.jobs <= MOST_JOBS:
        raise ValueError(f"--jobs: {args.jobs} is not between 1 and {MOST_JOBS}")
    overrides = [text for text in args.variants if "=" in text and not Path(text).exists()]
    files = [text for text in args.variants if text not in overrides]
    plan = make_plan(
        args.config, files, grids=args.grid, overrides=overrides, seeds=parse_seeds(args.seeds),
        baseline=args.baseline, title=args.title,
    )  # fmt: skip
    folder = args.output or Path("runs") / f"compare-{Path(args.config).stem}"
    tune, share = words_of("--tune", args.tune, TUNABLE), SHARES[args.launcher]
    allow = words_of("--allow, in a bench", args.allow, ("code",))
    if args.dry_run:
        print(describe(plan, folder, jobs=args.jobs, tune=tune, share=share))
        return 0
    command = shlex.join(["detkit", *sys.argv[1:]])
    return run_bench(plan, folder, jobs=args.jobs, command=command, launcher=LAUNCHERS[args.launcher],
                     tune=tune, share=share, allow=allow)  # fmt: skip


def parse_seeds(text: str) -> list[int]:
    """`3` -> 0, 1, 2; `4,7` -> 4, 7; `4,` -> 4."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"--seeds: {text!r} is neither a count nor a list such as 0,1,2") from None
    if "," in text:
        return numbers
    if not numbers or not 1 <= numbers[0] <= MOST_SEEDS:
        raise ValueError(f"--seeds: {text!r} is not between 1 and {MOST_SEEDS} seeds")
    return list(range(numbers[0]))


def words_of(option: str, text: str, known: tuple[str, ...]) -> list[str]:
    """`a,b` -> [a, b]; ValueError for a word that isn't known."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in words if word not in known]:
        raise ValueError(f"{option}: {', '.join(unknown)} is none of {', '.join(known)}")
    return words


def report(args: argparse.Namespace) -> int:
    """Writes the reports of one bench or several again from the runs, and says the verdicts."""
    from detkit.compare.plan import PLAN
    from detkit.compare.report import REPORTS
    from detkit.compare.run import report as write_report
    from detkit.utils.outputs import check_can_write, refuse_foreign

    folders = [Path(text) for text in args.variants]
    allow = words_of("--allow", args.allow, MAY_DIFFER)
    if not folders:
        raise ValueError("detkit compare report takes the folder of a bench, or several")
    if len(folders) > 1 and args.output is None:
        raise ValueError("--output: where should the report of several benches go?")
    output = args.output or folders[0]
    if not (output / PLAN).is_file():
        refuse_foreign("--output", output, REPORTS)
    check_can_write("--output", output)
    return write_report(folders, output, allow)

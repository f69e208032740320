"""The verb `detkit train`."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """exit codes: 0 finished; 2 wrong input; 3 the loss became infinite or NaN; 130 and 143 after SIGINT
and SIGTERM, with a checkpoint of the last step on disk"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("config", help="config file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. optimizer.lr=1e-3")
    parser.add_argument(
        "--overlay",
        metavar="FILE",
        action="append",
        default=[],
        help="a file laid over the config, as one of configs/losses; may be given more than once",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="run folder; default: runs/<name of config and overlays>, for a config.yaml of its folder",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on with the run in the run folder, exactly")
    start.add_argument("--init-from", metavar="CKPT", help="start a new run from these weights alone")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is in the run folder")


def run(args: argparse.Namespace) -> int:
    """Trains, evaluates and leaves everything in the run folder; gives back the exit code."""
    from detkit.config import load_config

    if args.resume and args.overwrite:
        raise ValueError("--resume goes on with a run and --overwrite deletes it: choose one")
    config = load_config(args.config, args.overrides, overlays=args.overlay)
    for path in ("train", "optimizer", "schedule", "data.train", "data.val"):
        config.require(path)
    name = "-".join(run_name(Path(file)) for file in [args.config, *args.overlay])
    folder = Path(args.output) if args.output else Path("runs") / name
    from detkit.train.session import train

    return train(config, folder, resume=args.resume, init_from=args.init_from, overwrite=args.overwrite)


def run_name(config: Path) -> str:
    """`a/shapes.yaml` -> shapes; `projects/my_net/config.yaml` -> my_net, as every project has a config.yaml."""
    return config.stem if config.stem != "config" else config.resolve().parent.name

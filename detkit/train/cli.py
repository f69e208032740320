"""The verb `detkit train`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.train.auto import MINUTES

if TYPE_CHECKING:
    from detkit.config import Config
    from detkit.distributed.coordinator import Coordinator

EPILOG = """exit codes: 0 finished; 1 crashed; 2 wrong input; 3 the loss became infinite or NaN; 4 a process or machine
is missing; 5 the disk is full; 6 a loader worker died; 7 a process hung; 130 and 143 after SIGINT and SIGTERM, with a
checkpoint of the last step on disk"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    text = "config file or name (detkit list configs); or data, as a folder or annotations.json, whose config it writes"
    parser.add_argument("config", help=text)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. optimizer.lr=1e-3")
    text = "a file or name laid over the config, as focal or bce_mining; may be given more than once"
    parser.add_argument("--overlay", metavar="FILE", action="append", default=[], help=text)
    text = "run folder; default: runs/<config name>; for a file named config.yaml, its folder's name"
    parser.add_argument("--output", metavar="DIR", help=text)
    start = parser.add_mutually_exclusive_group()
    text = "resume the run in the output folder (bit-exact on one machine)"
    start.add_argument("--resume", action="store_true", help=text)
    start.add_argument(
        "--init-from",
        metavar="CKPT",
        help="start a new run from these weights alone: a run, a checkpoint, or a model's name or address",
    )
    text = "with --resume: accept changed code; the run records the change"
    parser.add_argument("--allow", choices=("code",), action="append", default=[], help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is in the run folder")
    text = "record a profiler trace of STEPS steps (default 5) after warm-up; print the costliest operations"
    parser.add_argument("--profile", metavar="STEPS", type=int, nargs="?", const=5, help=text)
    group = parser.add_argument_group("data instead of a config (docs/own-data.md)")
    text = f"minutes for everything, looking at the data included (default {MINUTES:g})"
    group.add_argument("--minutes", type=float, metavar="M", help=text)
    group.add_argument("--config-only", action="store_true", help="write the config and print it; do not train")
    group = parser.add_argument_group("several processes (docs/distributed.md)")
    group.add_argument("--procs", type=int, metavar="N", help="train with N processes on this machine")
    group.add_argument("--nodes", metavar="M", help="machines, or MIN:MAX to continue with fewer; needs --rdzv")
    group.add_argument("--node-rank", type=int, metavar="R", help="index of this machine (0-based), used in messages")
    group.add_argument("--rdzv", metavar="HOST:PORT", help="rendezvous: address of one machine and a free port there")
    group.add_argument("--max-restarts", type=int, metavar="N", help="restarts after a failure (default 3)")
    group.add_argument("--local-addr", metavar="A", help="this machine's address, where it can't be found out")
    text = "compare code, config and data of all ranks and test the network, without training"
    group.add_argument("--check", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    """Trains, evaluates and leaves everything in the run folder; returns the exit code."""
    from detkit.distributed.process_info import find_process_info, launcher_node_rank

    process = find_process_info(os.environ)
    if names_data(args):
        from detkit.train.auto.command import config_of_data

        if (config := config_of_data(args, process)) is None:
            return 0
        args.config, args.overrides = str(config), []
        args.output = str(config.parent)
    if args.procs is not None or args.nodes is not None:
        return start(args, launcher_node_rank(process, parse_nodes(args.nodes or "1")[1]))
    for flag in ("node_rank", "rdzv", "max_restarts", "local_addr"):
        if getattr(args, flag) is not None:
            raise ValueError(f"--{flag.replace('_', '-')} requires --procs or --nodes")
    if process.is_worker:
        from detkit.distributed.worker import run_worker

        return run_worker(process, lambda coordinator: work(args, coordinator))
    from detkit.distributed.coordinator import Coordinator

    return work(args, Coordinator(process))


def names_data(args: argparse.Namespace) -> bool:
    """Whether the command names data instead of a config; ValueError for options that need data."""
    from detkit.config import find_config
    from detkit.train.auto.source import names_data

    if names_data(args.config):
        return True
    find_config(args.config)
    for flag, given in (("--minutes", args.minutes is not None), ("--config-only", args.config_only)):
        if given:
            raise ValueError(
                f"{flag} goes with a data set; {args.config} is a config, whose length is train.iterations"
            )
    return False


def start(args: argparse.Namespace, node_rank: int) -> int:
    """Checks what can be checked without a model, then runs this same command in several processes."""
    from detkit.distributed.launch import launch
    from detkit.distributed.launch_options import LaunchOptions
    from detkit.hub import local_path
    from detkit.train.torch_setup import uses_gpu

    config, _ = read(args)
    if args.init_from and not args.resume:
        local_path(args.init_from)  # once, before several processes want it
    least, most = parse_nodes(args.nodes or "1")
    options = config.options("train")
    given = {k: v for k, v in (("procs", args.procs), ("max_restarts", args.max_restarts)) if v is not None}
    return launch(
        worker_words(args),
        LaunchOptions(
            min_nodes=least,
            max_nodes=most,
            node_rank=args.node_rank if args.node_rank is not None else node_rank,
            rdzv=args.rdzv,
            local_addr=args.local_addr,
            threads=options.threads,
            on_gpu=uses_gpu(options.device),
            check=args.check,
            **given,
        ),
    )


def read(args: argparse.Namespace) -> tuple[Config, Path]:
    """The config, checked, and the run folder."""
    from detkit.config import load_config

    if args.resume and args.overwrite:
        raise ValueError("--resume continues a run and --overwrite deletes it: choose one")
    if args.allow and not args.resume:
        raise ValueError("--allow code requires --resume: a new run has no earlier code to differ from")
    for flag in ("output", "init_from"):
        if getattr(args, flag) is not None and not getattr(args, flag).strip():
            raise ValueError(f"--{flag.replace('_', '-')}: {getattr(args, flag)!r} must not be empty")
    config = load_config(args.config, args.overrides, overlays=args.overlay)
    check_trainable(config, resume=args.resume)
    return config, Path(args.output) if args.output else run_folder([args.config, *args.overlay])


def check_trainable(config: Config, *, resume: bool) -> None:
    """Raises ValueError for a config that lacks a section, or whose schedule does not fit a new run's length."""
    for path in ("train", "optimizer", "schedule", "data.train", "data.val"):
        config.require(path)
    if not resume:
        config.check()


def work(args: argparse.Namespace, coordinator: Coordinator) -> int:
    """The training itself, in each of its processes."""
    config, folder = read(args)
    from detkit.train.run import check, train

    if args.check:
        return check(config, coordinator)
    return train(
        config, folder, resume=args.resume, init_from=args.init_from, overwrite=args.overwrite, coordinator=coordinator,
        profile=args.profile, allow=args.allow,
    )  # fmt: skip


def worker_words(args: argparse.Namespace) -> list[str]:
    """The words of this command without those that launch."""
    words = ["train", args.config, *args.overrides]
    for flag in ("overlay", "output", "init_from", "allow", "profile"):
        value = getattr(args, flag)
        for item in value if isinstance(value, list) else [] if value is None else [value]:
            words += [f"--{flag.replace('_', '-')}", str(item)]
    return words + [f"--{flag}" for flag in ("resume", "overwrite", "check") if getattr(args, flag)]


def parse_nodes(text: str) -> tuple[int, int]:
    """`2` -> (2, 2), `1:4` -> (1, 4)."""
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    if match is None:
        raise ValueError(f"--nodes: {text} must be a number of machines, or MIN:MAX")
    return int(match[1]), int(match[2] or match[1])


def run_folder(files: Iterable[str | os.PathLike[str]]) -> Path:
    """The run folder of a config and its overlays, as runs/quickstart-bce."""
    from detkit.config import find_config

    return Path("runs") / "-".join(run_name(find_config(file)) for file in files)


def run_name(config: Path) -> str:
    """`a/shapes.yaml` -> shapes; `projects/my_net/config.yaml` -> my_net, as every project has a config.yaml."""
    return config.stem if config.stem != "config" else config.resolve().parent.name

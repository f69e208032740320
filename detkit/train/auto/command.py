"""`detkit train DATA`: the config that it writes into the run folder, and trains from there."""

from __future__ import annotations

import argparse
import logging
import re
import shlex
from pathlib import Path

from detkit.distributed.process_info import ProcessInfo
from detkit.registry import Positive
from detkit.registry.arguments import checked
from detkit.runs.folder import check_folder, write_text
from detkit.train.auto import FILE, MINUTES
from detkit.train.auto.configure import Configurator
from detkit.utils.console import print_line, printable
from detkit.utils.outputs import refuse_foreign

log = logging.getLogger("detkit")


def config_of_data(args: argparse.Namespace, process: ProcessInfo) -> Path | None:
    """Writes the config for the data that the command names, prints it, and returns its file.

    None if that is all the command asks for (`--config-only`). With `--resume` it is the file that is there.
    """
    folder = Path(args.output) if args.output else Path("runs") / run_name(args.config)
    file = folder / FILE
    if args.resume:
        return resumed(file, args)
    if args.overlay:
        raise ValueError(f"--overlay needs a config: write one by --config-only, then train {printable(file)}")
    if process.is_worker:
        raise ValueError(
            f"{printable(args.config)} is a data set, and several processes must train from one config: write it "
            f"first by `{command_line(args)} --config-only`, then train {printable(file)}"
        )
    minutes = MINUTES if args.minutes is None else args.minutes
    checked("--minutes", minutes, Positive)
    check_folder(folder, resume=False, overwrite=args.overwrite)
    refuse_foreign("--output", folder, [FILE])
    configurator = Configurator(args.config, args.overrides, minutes, folder)
    config = configurator.run()
    text = configurator.text(config, command_line(args))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
    for line in (*configurator.notes, *configurator.choices.lines(config), f"wrote {printable(file)}, with every key"):
        print_line(line)
    return None if args.config_only else file


def resumed(file: Path, args: argparse.Namespace) -> Path:
    """The config of an earlier `detkit train DATA`; its values are fixed, so nothing may change them."""
    if not file.is_file():
        raise FileNotFoundError(
            f"--resume: {printable(file)} is not there: no run of {printable(args.config)} began there"
        )
    if args.overrides or args.minutes is not None:
        raise ValueError(
            f"--resume trains {printable(file)} as it is: leave out {' '.join(args.overrides) or '--minutes'}"
        )
    return file


def run_name(place: str) -> str:
    """Name of the run folder: that of the data's folder, or of its file."""
    path = Path(place).resolve()
    generic = path.is_file() and path.stem.strip("_.").lower() in ("data", "dataset", "annotations", "train", "coco")
    name = path.parent.name if generic else path.stem if path.is_file() else path.name
    return re.sub(r"[^\w.+-]+", "_", name) or "data"


def command_line(args: argparse.Namespace) -> str:
    """The command, to be put into the file."""
    words = ["detkit", "train", args.config, *args.overrides]
    words += ["--minutes", f"{args.minutes:g}"] if args.minutes is not None else []
    words += ["--output", args.output] if args.output else []
    return shlex.join(words)

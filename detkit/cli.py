"""The `detkit` command. A verb's module, and with it torch, is imported only when that verb is used."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from detkit.registry.arguments import nearest
from detkit.utils.console import guarded_streams
from detkit.utils.errors import error_lines, exit_code, is_out_of_memory
from detkit.utils.exit_codes import ExitCode, stopped_by
from detkit.utils.quiet import silence_libraries
from detkit.version import __version__

VERBS: dict[str, tuple[str, str]] = {
    "train": ("detkit.train.cli", "train a detector from a config"),
    "eval": ("detkit.evaluate.cli", "COCO metrics of a run or checkpoint"),
    "bench": ("detkit.bench.cli", "speed by stage, memory, parameters and multiply-adds of a run or config"),
    "predict": ("detkit.predict.cli", "detect in files, folders and globs"),
    "demo": ("detkit.predict.demo.cli", "a page in the browser: drop an image, see what a detector finds"),
    "compare": ("detkit.compare.cli", "which loss is better, and how sure are we? variants x seeds, with statistics"),
    "new": ("detkit.scaffold.cli", "write a project with your own part: code, config, README and test"),
    "list": (
        "detkit.config.cli:list",
        "registered parts: name, origin, one line; or the configs that come with detkit",
    ),
    "explain": ("detkit.config.explain.cli", "what a part, a key of a config or an argument means"),
    "config": ("detkit.config.cli:config", "show a config with its origins, or check configs"),
    "data": ("detkit.data.cli", "make or look at data sets"),
    "show": ("detkit.show.cli", "draw and count how anchors are matched to objects"),
    "anchors": ("detkit.analyze.cli", "how well anchors fit the training boxes; find better ones"),
    "convert": ("detkit.interop.cli", "weights of torchvision or Detectron2 to a checkpoint"),
    "push": ("detkit.runs.cli", "a run as safetensors with a model card, into a folder or a hub repository"),
    "check-part": ("detkit.testing.cli", "check whether a registered part keeps its contract"),
    "doctor": ("detkit.native.doctor", "show what is installed and how it was built"),
}
WRITING_VERBS = ("train", "predict", "compare", "new", "convert", "push")
"""Verbs whose results are in files, so that lost output is not an error."""
EXAMPLES = """examples:
  detkit train quickstart --output runs/first
  detkit train quickstart backbone.depth=34 optimizer.lr=1e-3
  detkit eval runs/first
  detkit predict runs/first photos/ --score 0.5
  detkit compare quickstart focal bce
  detkit config show quickstart --origin
  detkit explain SigmoidFocalLoss
  detkit new backbone my_net

`detkit VERB --help` prints the options of a verb."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; user errors print one line and give exit code 2, or their own."""
    words = list(sys.argv[1:] if argv is None else argv)
    with guarded_streams() as (out, _):
        code = command(words)
        out.flush()
        return lost_output(words, out.lost) if code == 0 and out.lost is not None else code


def command(words: Sequence[str]) -> int:
    """The verb and its words -> exit code."""
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"detkit {__version__}")
        return 0
    verb = words[0]
    if verb not in VERBS:
        print(f"error: unknown verb {verb!r}{nearest(verb, list(VERBS))} Verbs: {', '.join(VERBS)}", file=sys.stderr)
        return ExitCode.WRONG_INPUT
    silence_libraries()
    location, line = VERBS[verb]
    module_name, _, prefix = location.partition(":")
    module = importlib.import_module(module_name)
    parser = Parser(prog=f"detkit {verb}", description=line)
    suffix = f"_{prefix}" if prefix else ""
    getattr(module, f"add_arguments{suffix}")(parser)
    parsed = parse(parser, words[1:])
    run = getattr(module, f"run{suffix}")
    if os.environ.get("DETKIT_TRACEBACK"):
        return int(run(parsed))
    try:
        check_current_folder()
        return int(run(parsed))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return stopped_by(signal.SIGINT)
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        for line in error_lines(error):
            print(f"error: {line}", file=sys.stderr)
        return exit_code(error)


def check_current_folder() -> None:
    """FileNotFoundError that says so if the current folder was deleted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError("the current folder was deleted: change to another one") from None


def lost_output(words: Sequence[str], reason: Exception) -> int:
    """Exit code of a command that went well while nobody could read it: 0 if its results are in files."""
    if words[0] in WRITING_VERBS or (any(word.startswith("--json") for word in words) and "-" not in words):
        return 0
    if isinstance(reason, BrokenPipeError):  # as in `detkit list | head`
        return 141
    print(f"error: the output can't be written: {error_lines(reason)[0]}", file=sys.stderr)
    return exit_code(reason)


class Parser(argparse.ArgumentParser):
    """Does not accept abbreviated options, and suggests the nearest one for an unknown one."""

    subparsers: Any = None

    def __init__(self, **more: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **more})

    def add_subparsers(self, **options: Any) -> Any:
        self.subparsers = super().add_subparsers(**options)
        return self.subparsers

    def error(self, message: str) -> NoReturn:
        """Usage, the error with a suggestion, and exit code 2."""
        unknown = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        if message.startswith("unrecognized arguments") and unknown:
            message += nearest(unknown[0], re.findall(r"--[\w-]+", self.format_usage())).rstrip(".")
        super().error(message)


def overview() -> str:
    """The text of `detkit --help`."""
    verbs = "\n".join(f"  {verb:10} {line}" for verb, (_, line) in VERBS.items())
    return f"usage: detkit VERB ...\n\ndetkit {__version__}: dense object detection\n\nverbs:\n{verbs}\n\n{EXAMPLES}"


def parse(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Parses arguments and options in any order, also those of a sub-verb, where argparse requires an order.

    A verb with a default sub-verb may be called without naming it.
    """
    verbs = parser.subparsers
    if verbs is None:
        return parser.parse_intermixed_args(words)
    if not words or words[0] not in verbs.choices:
        default = parser.get_default(verbs.dest)
        if default is None or (words and words[0] in ("-h", "--help")):
            return parser.parse_args(words)
        words = [default, *words]
    chosen: Parser = verbs.choices[words[0]]
    return chosen.parse_intermixed_args(words[1:], argparse.Namespace(**{verbs.dest: words[0]}))


if __name__ == "__main__":
    sys.exit(main())

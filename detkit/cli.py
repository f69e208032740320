"""The `detkit` command. A verb's module, and with it torch, is imported only when that verb is used."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from detkit import __version__
from detkit.arguments import nearest
from detkit.quiet import hush_libraries

VERBS: dict[str, tuple[str, str]] = {
    "train": ("detkit.train.cli", "train a detector from a config"),
    "eval": ("detkit.evaluate.cli", "COCO metrics of a run or checkpoint"),
    "predict": ("detkit.detectors.predict_cli", "detect in files, folders and globs"),
    "compare": ("detkit.compare.cli", "which loss is better, and how sure are we? variants x seeds, with statistics"),
    "new": ("detkit.scaffold.cli", "a project of your own: part, config, README and test"),
    "list": ("detkit.config_cli:list", "registered parts: name, origin, one line"),
    "config": ("detkit.config_cli:config", "show a config with its origins, or check configs"),
    "data": ("detkit.data.cli", "make or look at data sets"),
    "anchors": ("detkit.anchors.cli", "how well anchors fit the training boxes; anchors that fit"),
    "convert": ("detkit.interop.cli", "weights of torchvision or Detectron2 to a checkpoint"),
    "check-part": ("detkit.testing.cli", "does a registered part keep its contract?"),
    "doctor": ("detkit.ops.doctor", "what is installed, what was built against what"),
}
EXAMPLES = """examples:
  detkit train configs/quickstart/shapes.yaml --output runs/first
  detkit train configs/quickstart/shapes.yaml backbone.depth=34 optimizer.lr=1e-3
  detkit eval runs/first
  detkit predict runs/first photos/ --score 0.5
  detkit compare configs/quickstart/shapes.yaml configs/losses/focal.yaml configs/losses/bce.yaml
  detkit config show configs/quickstart/shapes.yaml --origin
  detkit new backbone my_net

`detkit VERB --help` says more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; user errors print one line and give exit code 2, or their own."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return 0 if args else 2
    if args[0] == "--version":
        print(f"detkit {__version__}")
        return 0
    verb = args[0]
    if verb not in VERBS:
        print(f"error: unknown verb {verb!r}{nearest(verb, list(VERBS))} Verbs: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    hush_libraries()
    location, line = VERBS[verb]
    module_name, _, prefix = location.partition(":")
    module = importlib.import_module(module_name)
    parser = Parser(prog=f"detkit {verb}", description=line)
    suffix = f"_{prefix}" if prefix else ""
    getattr(module, f"add_arguments{suffix}")(parser)
    parsed = parse(parser, args[1:])
    run = getattr(module, f"run{suffix}")
    if os.environ.get("DETKIT_TRACEBACK"):
        return int(run(parsed))
    try:
        code = int(run(parsed))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as in `detkit list | head`; no second error when Python closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        for line in getattr(error, "errors", None) or [error]:
            print(f"error: {line}", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))


class Parser(argparse.ArgumentParser):
    """Takes no option by its first letters only, and says which one a misspelt one is near to."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **more})

    def error(self, message: str) -> NoReturn:
        """Usage, the error with a suggestion, and exit code 2."""
        unknown = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        if message.startswith("unrecognized arguments") and unknown:
            message += nearest(unknown[0], list(self._option_string_actions)).rstrip(".")
        super().error(message)


def overview() -> str:
    """The text of `detkit --help`."""
    verbs = "\n".join(f"  {verb:10} {line}" for verb, (_, line) in VERBS.items())
    return f"usage: detkit VERB ...\n\ndetkit {__version__}: dense object detection\n\nverbs:\n{verbs}\n\n{EXAMPLES}"


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Arguments and options of a verb in any order, also those of a sub-verb, which argparse itself wants ordered."""
    subs = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not subs:
        return parser.parse_intermixed_args(words)
    if not words or words[0] not in subs[0].choices:
        return parser.parse_args(words)
    chosen: argparse.ArgumentParser = subs[0].choices[words[0]]
    return chosen.parse_intermixed_args(words[1:], argparse.Namespace(**{subs[0].dest: words[0]}))


if __name__ == "__main__":
    sys.exit(main())

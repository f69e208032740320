"""The verb `detkit explain`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from detkit.config.config import load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a part (FPN), a key (train, losses.box, train.precision), a registry "
                        "(backbones) or an argument (gamma); none: what there is")  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of --config, as for detkit train")
    parser.add_argument("--config", help="also show the values of this config, and where each came from")
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE_OR_FILE",
                        help="module or file to import first, as `imports:` in a config")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="also write it to FILE as JSON; - prints JSON instead of text")
    parser.add_argument("--all", action="store_true", help="every part and every section of options")
    parser.add_argument("--output", metavar="FOLDER", help="with --all: write Markdown pages into FOLDER")


def run(args: argparse.Namespace) -> int:
    """Prints what a name means, or writes the reference."""
    from detkit.config.explain.explanation import everything, explain, overview
    from detkit.config.imports import import_entry
    from detkit.utils.outputs import check_output_file, write_marked_json

    _check(args)
    if args.json not in (None, "-"):
        check_output_file("--json", args.json, inputs=[args.config] if args.config else [])
    for entry in args.imports:
        import_entry(entry, Path.cwd(), "--import")
    if args.output:
        return _write_pages(Path(args.output))
    config = load_config(args.config, args.overrides) if args.config else None
    explanation = everything(config) if args.all else explain(args.name, config) if args.name else overview(config)
    if args.json == "-":
        print(json.dumps(explanation.to_dict(), indent=1))
        return 0
    print(explanation.text(min(100, shutil.get_terminal_size((100, 24)).columns)))
    if args.json:
        write_marked_json(args.json, explanation.to_dict())
    return 0


def _check(args: argparse.Namespace) -> None:
    """Moves an override from the place of the name to the overrides; ValueError for words that do not go together."""
    if args.name and "=" in args.name:
        args.name, args.overrides = None, [args.name, *args.overrides]
    if args.overrides and not args.config:
        raise ValueError(f"{args.overrides[0]!r} needs --config CONFIG, which it overrides; explain takes one name")
    if args.all and args.name:
        raise ValueError(f"--all explains everything: leave out {args.name!r}")
    if args.output and not args.all:
        raise ValueError("--output needs --all: it writes the pages of all parts and options")


def _write_pages(folder: Path) -> int:
    from detkit import registry
    from detkit.config.explain.reference import write_reference
    from detkit.utils.console import plural

    registry.load_plugins()
    print(f"{plural(len(write_reference(folder)), 'page')} in {folder}")
    return 0

"""The verb `detkit push`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from detkit.hub.prefixes import DETECTRON2, TORCHVISION
from detkit.utils.console import printable

if TYPE_CHECKING:
    from detkit.runs.export import Model

EPILOG = """examples:
  detkit push runs/first hf://me/my-detector --private
  detkit push runs/first --to exported
  detkit push torchvision:retinanet_resnet50_fpn_v2 --to retinanet_v2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", metavar="RUN", help="run folder (its best checkpoint), checkpoint, or a model's name")
    parser.add_argument("target", nargs="?", metavar="hf://OWNER/NAME", help="hub repository; made if it is not there")
    parser.add_argument("--to", metavar="FOLDER", help="write the files into a folder instead of uploading them")
    parser.add_argument("--private", action="store_true", help="make a new repository private")


def run(args: argparse.Namespace) -> int:
    """Writes or uploads model.safetensors, config.json and README.md."""
    if (args.target is None) == (args.to is None):
        raise ValueError("push needs either a repository, hf://OWNER/NAME, or --to FOLDER")
    if args.to is not None and args.private:
        raise ValueError("--private is for a repository; --to writes a folder")
    from detkit.runs.export import FILES, export, push, target_of

    if args.target is not None:
        target_of(args.target)
    model = read_model(args.source)
    if args.to is not None:
        where = printable(export(model, args.to, option="--to"))
        print(f"{where}: {', '.join(FILES)}; load it with: detkit predict {where} IMAGES")
        return 0
    url = push(model, args.target, private=args.private)
    print(f"{url}: {', '.join(FILES)}; load it with: detkit predict {printable(args.target)} IMAGES")
    return 0


def read_model(source: str) -> Model:
    """A run with its figures, or whatever else is a model."""
    from detkit.hub import local_path
    from detkit.interop import load_any
    from detkit.runs.export import Model
    from detkit.runs.folder import CONFIG
    from detkit.runs.run import Run

    if not source.startswith((TORCHVISION, DETECTRON2)) and (local_path(source) / CONFIG).is_file():
        return Run(source).exportable()
    return Model(load_any(source))

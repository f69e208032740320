"""The verb `detkit data`: a table of its own verbs, each a module with `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import importlib

VERBS: dict[str, tuple[str, str]] = {
    "make-shapes": (
        "detkit.data.verbs.make_shapes",
        "write the synthetic shapes data set as images and COCO JSON",
    ),
    "check": ("detkit.show.check", "find what is unusable or odd in a data set, or in that of a config"),
    "fetch": ("detkit.data.verbs.fetch", "list small public data sets, or download one"),
    "split": ("detkit.data.verbs.split", "divide a data set without splits, and write the lists down"),
    "show": ("detkit.show.samples", "a page of images with their boxes, before and after augmentation"),
    "convert": ("detkit.data.verbs.convert", "write a data set of any format as YOLO, COCO, Pascal VOC or CSV"),
}
"""Name -> (module, what it does). A module imports torch and the like only when it runs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, (module, line) in VERBS.items():
        importlib.import_module(module).add_arguments(verbs.add_parser(name, help=line))


def run(args: argparse.Namespace) -> int:
    module, _ = VERBS[args.verb]
    return int(importlib.import_module(module).run(args))

"""The verb `detkit data convert`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detkit.data.writers.target import Written

FORMATS = ("coco", "csv", "parquet", "voc", "webdataset", "yolo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="folder or file of a data set of any known format, or a config")
    parser.add_argument("folder", help="where to write: a new or empty folder")
    parser.add_argument("--to", required=True, choices=FORMATS, help="format to write")
    parser.add_argument("--splits", nargs="+", default=[], metavar="SPLIT", help="splits to write (default: all)")
    text = "how images come into the folder (default copy); reference leaves them where they are"
    parser.add_argument("--images", choices=("copy", "hardlink", "symlink", "reference"), default="copy", help=text)
    text = "what becomes of crowd and difficult boxes in yolo, which has none (default drop)"
    parser.add_argument("--ignored", choices=("drop", "objects"), default="drop", help=text)


def run(args: argparse.Namespace) -> int:
    """Converts, reads the result back, and prints what was found, what is lost, and how a config reads it."""
    from detkit.data.reading import describe_place, read_source
    from detkit.data.writers.convert import check_apart, convert, describe_lost
    from detkit.data.writers.target import check_target

    folder = Path(args.folder)
    check_target("folder", folder)
    source = read_source(args.data).choose(args.splits)
    source.check_complete()
    check_apart(folder, Path(args.data), source.splits)
    print("\n".join(describe_place(args.data, source)))
    written = convert(source.splits, folder, args.to, images=args.images, ignored=args.ignored)
    print("\n".join(["", *describe_lost(written), *describe_config(written)]))
    return 0


def describe_config(written: Written) -> list[str]:
    """How a config reads each split."""
    from detkit.data.reading import describe_node

    return ["in a config:", *(f"  {split}: {describe_node(node)}" for split, node in written.nodes.items())]

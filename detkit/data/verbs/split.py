"""The verb `detkit data split`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="folder or file of a data set of any known format")
    parser.add_argument(
        "folder", help="where to write train.txt and val.txt, lists of image names; a new or empty folder"
    )
    parser.add_argument("--split", metavar="SPLIT", help="the split to divide, where the data has several")
    parser.add_argument("--val", type=float, default=0.2, help="fraction for validation (default 0.2)")
    parser.add_argument("--test", type=float, default=0.0, help="fraction for a test (default none)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choice (default 0)")
    parser.add_argument("--random", action="store_true", help="without regard to the classes of the images")


def run(args: argparse.Namespace) -> int:
    """Writes the lists, and prints the classes of each split and how a config reads it."""
    from detkit.data.datasets.base import Subset
    from detkit.data.datasets.image_names import indices_of
    from detkit.data.reading import describe_node, read_one
    from detkit.data.splits import SplitSettings, split_lists, split_nodes
    from detkit.data.writers.target import check_target

    options = SplitSettings(
        val=args.val, test=args.test, seed=args.seed, stratified=not args.random, file=str(Path(args.folder).absolute())
    )
    check_target("folder", Path(args.folder))
    node, dataset = read_one(args.data, args.split)
    lists = split_lists(dataset, options)
    for split, names in lists.items():
        print(f"{split}: {Subset(dataset, indices_of(dataset, names, split), split).counts()}")
    nodes = split_nodes(node, lists, options)
    print("\n".join(["in a config:", *(f"  {split}: {describe_node(part)}" for split, part in nodes.items())]))
    return 0

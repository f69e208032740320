"""The verb `detkit data`."""

from __future__ import annotations

import argparse
from pathlib import Path

from detkit.arguments import within
from detkit.outputs import check_can_write

MOST_IMAGES = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    shapes = verbs.add_parser("make-shapes", help="write the embedded data set as images and COCO JSON")
    shapes.add_argument("folder", help="where to write train/, val/ and annotations/")
    shapes.add_argument("--train", type=int, default=1000, help="training images (default 1000)")
    shapes.add_argument("--val", type=int, default=200, help="validation images (default 200)")
    shapes.add_argument("--seed", type=int, default=0, help="another seed, other pictures")
    shapes.add_argument("--size", type=int, default=160, help="side of an image in pixels (default 160)")
    check = verbs.add_parser("check", help="read every image and box that a config trains and evaluates on")
    check.add_argument("config", help="config file")
    check.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as for detkit train")


def run(args: argparse.Namespace) -> int:
    """Does what the sub-verb says; returns 1 from `check` if an image can't be used."""
    return make_shapes(args) if args.verb == "make-shapes" else check(args)


def make_shapes(args: argparse.Namespace) -> int:
    """Writes both splits and says how to train on them."""
    from typing import Literal

    from detkit.data.datasets.shapes import ShapesDataset

    folder = Path(args.folder)
    within("--train", args.train, 1, MOST_IMAGES)
    within("--val", args.val, 1, MOST_IMAGES)
    within("--size", args.size, 64, 2048)
    within("--seed", args.seed, 0, 2**63 - 1)
    check_can_write("folder", folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; choose a new folder")
    splits: tuple[tuple[Literal["train", "val"], int], ...] = (("train", args.train), ("val", args.val))
    for split, count in splits:
        dataset = ShapesDataset(num_images=count, split=split, seed=args.seed, size=args.size)
        dataset.write_coco(folder / split, folder / "annotations" / f"instances_{split}.json")
        print(dataset.summary())
    print(
        f"in a config:\n  dataset: {{type: CocoDataset, "
        f"annotations: {folder}/annotations/instances_train.json, images: {folder}/train}}"
    )
    return 0


def check(args: argparse.Namespace) -> int:
    """Reads every image of both splits; prints each that fails, and the summary of each split."""
    from detkit.config import load_config
    from detkit.data.datasets.base import check_same_classes
    from detkit.registry import DATASETS

    config = load_config(args.config, args.overrides)
    sets = [config.build(DATASETS, f"data.{split}.dataset") for split in ("train", "val")]
    check_same_classes(*sets)
    wrong = 0
    for dataset in sets:
        for index in range(len(dataset)):
            try:
                dataset.checked_image(index)
            except (ValueError, OSError) as error:
                wrong += 1
                print(f"{dataset.records.path(index)}: {error}")
        print(dataset.summary())
    print(f"{wrong} images can't be used" if wrong else "every image can be used")
    return 1 if wrong else 0

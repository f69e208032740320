"""The verb `detkit data make-shapes`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from detkit.registry.arguments import checked
from detkit.registry.bounds import Seed
from detkit.utils.outputs import check_can_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="where to write train/, val/ and annotations/")
    parser.add_argument("--train", type=int, default=1000, help="training images (default 1000)")
    parser.add_argument("--val", type=int, default=200, help="validation images (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pictures (default 0)")
    parser.add_argument("--size", type=int, default=160, help="side of an image in pixels (default 160)")


def run(args: argparse.Namespace) -> int:
    """Writes both splits and prints how to train on them."""
    from detkit.data.datasets.shapes import ImageSize, NumImages, ShapesDataset

    folder = Path(args.folder)
    for name, bounds in (("train", NumImages), ("val", NumImages), ("size", ImageSize), ("seed", Seed)):
        checked(f"--{name}", getattr(args, name), bounds)
    check_can_write("folder", folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; choose a new folder")
    splits: list[tuple[Literal["train", "val"], int]] = [("train", args.train), ("val", args.val)]
    for split, count in splits:
        dataset = ShapesDataset(num_images=count, split=split, seed=args.seed, size=args.size)
        dataset.write_coco(folder / split, folder / "annotations" / f"instances_{split}.json")
        print(dataset.summary())
    folder = folder.resolve()
    paths = f"annotations: {folder}/annotations/instances_train.json, images: {folder}/train"
    print(f"in a config:\n  dataset: {{type: CocoDataset, {paths}}}")
    return 0

"""The verb `detkit data show`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from detkit.registry import NonNegativeInt, PositiveInt
from detkit.registry.arguments import checked, nearest
from detkit.utils.console import plural, printable
from detkit.utils.outputs import check_output_file

if TYPE_CHECKING:
    from detkit.config import Config
    from detkit.data.datasets.base import DetectionDataset
    from detkit.data.transforms.base import Transform
    from detkit.visualize.page import Section


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "folder or file of a data set of any known format, or a config (detkit list configs)"
    parser.add_argument("data", metavar="DATA|CONFIG", help=text)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of a config, as for detkit train")
    parser.add_argument("--split", help="whose images; default: train, or the first that there is")
    parser.add_argument("--images", type=int, default=12, metavar="N", help="number of images (default 12)")
    text = "epochs whose augmentation is shown beside an image of a config (default 3; 0 for none)"
    parser.add_argument("--draws", type=int, default=3, metavar="N", help=text)
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="only images with an object of this class")
    parser.add_argument("--side", type=int, default=320, help="longer side of a picture in pixels (default 320)")
    parser.add_argument("--html", default="samples.html", metavar="FILE", help="where the pictures go (samples.html)")


def run(args: argparse.Namespace) -> int:
    """Writes a page with images and their boxes, as they are and, for a config, as the network sees them."""
    from detkit.visualize.page import is_page, write_page

    for name, bounds in (("images", PositiveInt), ("side", PositiveInt), ("draws", NonNegativeInt)):
        checked(f"--{name}", getattr(args, name), bounds)
    check_output_file("--html", args.html, inputs=[args.data], owned=is_page)
    config, split, dataset, transforms = read(args)
    indices = choose(dataset, args.class_name, args.images)
    seed = config.seed if config is not None and split == "train" else 0
    draws = args.draws if config is not None else 0
    sections = [section(dataset, transforms, index, seed, draws, args.side) for index in indices]
    lines = [f"{split}: {dataset.counts()}", *dataset.problems.lines()]
    write_page(args.html, f"Samples of {args.data}", lines, sections)
    print(f"{split}: {dataset.counts()}\n{plural(len(indices), 'image')} of {len(dataset)}: {printable(args.html)}")
    return 0


def read(args: argparse.Namespace) -> tuple[Config | None, str, DetectionDataset, list[Transform]]:
    """The config, if it is one, and the chosen split with its transforms."""
    from detkit.data.build import build_dataset, build_transforms
    from detkit.show.check import read as read_splits

    config, source, notes = read_splits(args.data, args.overrides)
    print("\n".join(notes), end="\n" if notes else "")
    splits = source.splits
    if args.split in source.unread:
        raise source.unread[args.split]
    split = args.split or ("train" if "train" in splits else next(iter(splits)))
    if split not in splits:
        raise ValueError(f"--split: {split!r} is not among {', '.join(splits)}{nearest(split, list(splits))}")
    if config is None:
        return None, split, splits[split], []
    return config, split, build_dataset(config, split), build_transforms(config, split)


def choose(dataset: DetectionDataset, class_name: str | None, most: int) -> list[int]:
    """Images in a random order that is always the same, those with an object of a class if one is given."""
    from detkit.data.seeding import permutation

    order: list[int] = permutation(0, 0, len(dataset)).tolist()
    if class_name is None:
        return order[:most]
    names = dataset.classes.names
    if class_name not in names:
        raise ValueError(f"--class: {class_name!r} is no class of {dataset.name}{nearest(class_name, list(names))}")
    label = names.index(class_name)
    return [index for index in order if label in dataset.records.annotation(index).labels][:most]


def section(
    dataset: DetectionDataset, transforms: list[Transform], index: int, seed: int, draws: int, side: int
) -> Section:
    """An image with its boxes, and what the transforms make of it in the first epochs."""
    import torch

    from detkit.data.loader import FailedSample, Samples
    from detkit.structures import Targets
    from detkit.visualize.draw import draw_detections
    from detkit.visualize.page import Figure, Section

    a, path = dataset.records.annotation(index), dataset.records.path(index)
    try:
        image = dataset.checked_image(index)
    except (ValueError, OSError) as error:
        return Section(path, f"can't be read: {error}")
    boxes, labels, ignored = torch.tensor(a.boxes), torch.tensor(a.labels), torch.tensor(a.is_ignore)
    targets = Targets(boxes[~ignored], labels[~ignored], boxes[ignored])
    objects = len(targets.boxes)
    picture = draw_detections(image, targets, dataset.classes, side=side)
    figures = [Figure(picture, f"on disk: {image.width}x{image.height}, {plural(objects, 'object')}")]
    samples = Samples(dataset, transforms, seed)
    for epoch in range(draws):
        sample = samples[(epoch, index)]
        if isinstance(sample, FailedSample):
            raise sample.error()
        height, width = sample.image.shape[-2:]
        lost = objects - len(sample.targets.boxes)
        text = f"epoch {epoch}: {width}x{height}, {plural(len(sample.targets.boxes), 'object')}"
        text += f", {lost} lost" if lost else ""
        figures.append(Figure(draw_detections(sample.image, sample.targets, dataset.classes, side=side), text))
    return Section(path, "", figures)

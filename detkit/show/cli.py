"""The verb `detkit show`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.registry import NonNegativeInt, PositiveInt
from detkit.registry.arguments import checked
from detkit.utils.outputs import check_output_file, write_marked_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detkit.config import Config
    from detkit.data.loader import Sample
    from detkit.detectors.dense import DenseDetector
    from detkit.structures import ClassMap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    text = "draw and count which anchors are positive, forced, ignored or in the class loss"
    matches = verbs.add_parser("matches", help=text)
    text = "config file or name, with its initial weights; or a run, with its best ones"
    matches.add_argument("source", metavar="CONFIG|RUN", help=text)
    matches.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as for detkit train")
    matches.add_argument("--split", choices=("train", "val"), default="train", help="whose images (default train)")
    matches.add_argument("--images", type=int, default=8, metavar="N", help="number of images (default 8)")
    text = "epoch whose augmentation and order of images is shown (default 0)"
    matches.add_argument("--epoch", type=int, default=0, metavar="E", help=text)
    matches.add_argument("--side", type=int, default=400, help="longer side of a picture in pixels (default 400)")
    matches.add_argument("--html", default="matches.html", metavar="FILE", help="where the pictures go (matches.html)")
    matches.add_argument("--json", metavar="FILE", help="also write all counts to FILE")


def run(args: argparse.Namespace) -> int:
    """Draws and counts the matched anchors of a few images."""
    from detkit.show.draw_matches import panels
    from detkit.show.matches import LEGEND, Counts, count_levels, describe_unmatched, match_image, table, to_json
    from detkit.visualize.page import Section, is_page, write_page

    for name, bounds in (("images", PositiveInt), ("side", PositiveInt), ("epoch", NonNegativeInt)):
        checked(f"--{name}", getattr(args, name), bounds)
    check_output_file("--html", args.html, inputs=[args.source], owned=is_page)
    if args.json is not None:
        check_output_file("--json", args.json, inputs=[args.source])
    detector, config, classes = read_detector(args.source, args.overrides)
    shapes = detector.neck.out_shapes
    levels = [f"{name}, 1/{shape.stride}" for name, shape in shapes.items()]
    options = config.options("data.loader")
    samples = read_samples(config, args.split, classes, args.images, args.epoch)
    images = [match_image(detector, sample, options) for sample in samples]
    totals = dict.fromkeys(levels, Counts())
    for image in images:
        totals = {k: totals[k] + c for k, c in zip(levels, count_levels(image, len(levels)), strict=True)}
    parts = f"{type(detector.assigner).__name__}, {type(detector.class_loss).__name__}"
    head = f"{len(images)} images of {args.split} as the network sees them in epoch {args.epoch}; {parts}"
    unmatched = describe_unmatched(images, classes.names)
    lines = [head, *([unmatched] if unmatched else []), LEGEND]
    sections = [Section(m.sample.path, "", panels(m, classes, levels, args.side)) for m in images]
    write_page(args.html, f"Matches of {args.source}", lines, sections, "\n".join(table(totals)))
    if args.json is not None:
        content = {name: vars(counts) for name, counts in totals.items()}
        write_marked_json(args.json, {"levels": content, "images": [to_json(m, levels, classes.names) for m in images]})
    print("\n".join([head, *table(totals), *lines[1:], f"pictures: {args.html}"]))
    return 0


def read_detector(source: str, overrides: list[str]) -> tuple[DenseDetector, Config, ClassMap]:
    """The detector of a run with its weights, or of a config with its initial ones, in eval mode."""
    from detkit.config import load_config
    from detkit.data.build import build_dataset
    from detkit.data.reading import is_config
    from detkit.detectors.build import build_detector
    from detkit.predict.detector import load_detector
    from detkit.train.random import seed_everything

    path = Path(source)
    if path.exists() and not is_config(path):
        return load_detector(source, device="cpu", overrides=overrides)
    config = load_config(source, overrides)
    classes = build_dataset(config, "train").classes
    seed_everything(config.seed)
    return build_detector(config, len(classes)).eval(), config, classes


def read_samples(config: Config, split: str, classes: ClassMap, images: int, epoch: int) -> Iterator[Sample]:
    """The first samples of an epoch, after the transforms of the split; ValueError for one that can't be read."""
    from detkit.data.build import build_transforms, usable_dataset
    from detkit.data.loader import FailedSample, Samples
    from detkit.data.seeding import permutation

    dataset = usable_dataset(config, split, classes)
    samples = Samples(dataset, build_transforms(config, split), config.seed if split == "train" else 0)
    order = permutation(config.seed, epoch, len(dataset)).tolist() if split == "train" else range(len(dataset))
    for index in order[:images]:
        sample = samples[(epoch, index)]
        if isinstance(sample, FailedSample):
            raise sample.error()
        yield sample

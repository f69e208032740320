"""The verb `detkit anchors`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict

from annotated_types import Interval

from detkit.registry import FractionAboveZero, NonNegativeInt
from detkit.registry.arguments import checked
from detkit.utils.outputs import check_output_file, write_marked_json

if TYPE_CHECKING:
    from torch import Tensor

    from detkit.analyze.anchor_coverage import Coverage, Sample
    from detkit.anchors.base import AnchorGenerator
    from detkit.data.datasets.base import DetectionDataset
    from detkit.data.transforms.base import Transform

IMAGES = 2000
IMAGES_HELP = f"number of images to look at (default {IMAGES}; 0: all)"
IOU_HELP = "IoU from which an anchor counts as a match; default: the assigner's"
PerCell = Annotated[int, Interval(ge=1, le=1000)]
SIZES = (("small, below 32^2 px on disk", 0, 32**2), ("medium", 32**2, 96**2), ("large, from 96^2 px", 96**2, 1e12))
"""COCO's size groups, by annotated area."""
SHAPES = (
    ("very tall, from 3:1", 3, 1e12), ("tall", 1.5, 3), ("square, 2:3 to 3:2", 1 / 1.5, 1.5), ("wide", 1 / 3, 1 / 1.5),
    ("very wide, below 1:3", 0, 1 / 3),
)  # fmt: skip
"""Groups by height over width, as the network sees the object."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    check = verbs.add_parser("check", help="fraction of training objects with an anchor of the positive IoU")
    fit = verbs.add_parser("fit", help="anchors by k-means on IoU, as YAML to paste into the config")
    for verb in (check, fit):
        verb.add_argument("config", help="config file or name (detkit list configs)")
        verb.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as for detkit train")
        verb.add_argument("--images", type=int, default=IMAGES, metavar="N", help=IMAGES_HELP)
        verb.add_argument("--iou", type=float, help=IOU_HELP)
    check.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    fit.add_argument("--per-cell", type=int, metavar="N", help="anchors per cell; default: as many as the config has")


def run(args: argparse.Namespace) -> int:
    from detkit.analyze.anchor_coverage import measure, with_lost

    checked("--images", args.images, NonNegativeInt)
    if args.verb == "fit":
        checked("--per-cell", args.per_cell, PerCell | None)
    if args.verb == "check" and args.json is not None:
        check_output_file("--json", args.json, inputs=[args.config])
    case = read_case(args)
    coverage = measure(case.generator, case.strides, case.samples)
    if args.verb == "check":
        coverage = with_lost(coverage, case.lost.boxes, case.lost.area)
    if not len(coverage.iou):
        raise ValueError(f"no objects in {coverage.images} training images: nothing to compare anchors with")
    if args.verb == "fit":
        for sentence in case.lost.sentences:
            print("# " + sentence.replace("\n", "\n# "))
        return print_fit(case, args.per_cell, coverage)
    report = to_json(coverage, case)
    if args.json is not None:
        write_marked_json(args.json, {"images": coverage.images, "of_images": case.images, **report})
    print(format_table(report, coverage.images, case.images))
    print("".join(f"{sentence}\n" for sentence in case.lost.sentences), end="")
    return 0


@dataclass(frozen=True)
class LostObjects:
    """Objects that never reach the network: boxes (N, 4) and area (N,) on disk, and sentences about them."""

    boxes: Tensor
    area: Tensor
    sentences: list[str]


def lost_objects(dataset: DetectionDataset, transforms: list[Transform], seed: int, limit: int | None) -> LostObjects:
    """The lost objects of the images that `read_samples` looks at."""
    import torch

    from detkit.data.audit import audit_objects
    from detkit.data.seeding import permutation

    report = audit_objects(dataset, transforms, seed=seed, indices=permutation(seed, 0, len(dataset)).tolist()[:limit])
    annotations = [(dataset.records.annotation(index), lost.row) for index, lost in report.never]
    return LostObjects(
        torch.tensor([a.boxes[row].tolist() for a, row in annotations]).reshape(-1, 4),
        torch.tensor([float(a.area[row]) for a, row in annotations]),
        [s for s in (report.describe(dataset), report.describe_chance()) if s],
    )


@dataclass(frozen=True)
class Case:
    """Anchors of a config and the objects they are compared with.

    positive: IoU from which an anchor counts as a match. forces_best: whether the assigner makes an object's best
    anchor positive below that, too. images: images in the training split.
    """

    generator: AnchorGenerator
    strides: list[int]
    positive: float
    forces_best: bool
    samples: list[Sample]
    images: int
    lost: LostObjects


def read_case(args: argparse.Namespace) -> Case:
    """Reads the config and the annotations that the command line names."""
    from detkit.analyze.anchor_coverage import read_samples
    from detkit.config import load_config
    from detkit.data.build import build_transforms, usable_dataset
    from detkit.detectors.build import build_pyramid
    from detkit.registry import ASSIGNERS

    config = load_config(args.config, args.overrides)
    assigner = ASSIGNERS.build(config.assigner)
    positive = assigner.positive_iou if args.iou is None else args.iou
    if positive is None:
        raise ValueError(f"{type(assigner).__name__} has no IoU threshold for positives; give one with --iou")
    checked("--iou", positive, FractionAboveZero)
    _, neck, anchors, _ = build_pyramid(config)
    strides = [shape.stride for shape in neck.out_shapes.values()]
    dataset, transforms = usable_dataset(config, "train"), build_transforms(config, "train")
    limit, loader = args.images or None, config.options("data.loader")
    return Case(
        anchors,
        strides,
        positive,
        assigner.forces_best,
        list(read_samples(dataset, transforms, loader, seed=config.seed, limit=limit, read_images=True)),
        len(dataset),
        lost_objects(dataset, transforms, config.seed, limit),
    )


class Figures(TypedDict):
    """Figures of a group of objects; the fractions of a group without objects are null."""

    objects: int
    reached: float | None
    mean_best_iou: float | None
    forced: int
    lost: int


class Report(TypedDict):
    """The figures of all objects and of every group."""

    positive_iou: float
    all: Figures
    size: dict[str, Figures]
    shape: dict[str, Figures]
    level: dict[str, Figures]


def to_json(coverage: Coverage, case: Case) -> Report:
    """All figures, as `--json` writes them."""
    from detkit import boxes as box_ops
    from detkit.analyze.anchor_coverage import NO_LEVEL

    width, height = box_ops.sides(coverage.boxes).unbind(1)
    ratio = height / width
    on_no_level = coverage.level == NO_LEVEL

    def figures(mask: Tensor) -> Figures:
        iou = coverage.iou[mask]
        count, reached, overlapped = len(iou), int((iou >= case.positive).sum()), int((iou > 0).sum())
        return {
            "objects": count,
            "reached": reached / count if count else None,
            "mean_best_iou": float(iou.mean()) if count else None,
            "forced": overlapped - reached if case.forces_best else 0,
            "lost": count - overlapped if case.forces_best else count - reached,
        }

    return {
        "positive_iou": case.positive,
        "all": figures(coverage.iou >= 0),
        "size": {name: figures((coverage.area >= low) & (coverage.area < high)) for name, low, high in SIZES},
        "shape": {name: figures((ratio >= low) & (ratio < high)) for name, low, high in SHAPES},
        "level": {f"stride {s}": figures(coverage.level == i) for i, s in enumerate(case.strides)}
        | ({"none, never reach the network": figures(on_no_level)} if bool(on_no_level.any()) else {}),
    }


def format_table(report: Report, images: int, total: int) -> str:
    """The figures of `to_json` as a table with its legend."""
    matched = f"IoU >= {report['positive_iou']:g}"
    lines = [
        f"training objects of {images} of {total} images, as the network sees them",
        f"{'':32} {'objects':>8} {matched:>11} {'mean IoU':>9} {'low-quality':>12} {'unmatched':>10}",
    ]
    lines.append(_row("all objects", report["all"]))
    by_level = "by level of the best anchor"
    for title, groups in (
        ("by size", report["size"]),
        ("by height : width", report["shape"]),
        (by_level, report["level"]),
    ):
        lines += [title, *(_row(f"  {name}", figures) for name, figures in groups.items())]
    lines.append(
        f"{matched}: objects whose best anchor has at least this IoU; low-quality: less, but matched, because the "
        "assigner makes an object's best anchor positive; unmatched: no anchor is positive, or the object never "
        "reaches the network"
    )
    return "\n".join(lines)


def _row(name: str, f: Figures) -> str:
    if f["reached"] is None:
        return f"{name:32} {0:8d} {'-':>11} {'-':>9} {'-':>12} {'-':>10}"
    figures = f"{100 * f['reached']:9.1f} % {f['mean_best_iou']:9.3f} {f['forced']:12d} {f['lost']:10d}"
    return f"{name:32} {f['objects']:8d} {figures}"


def print_fit(case: Case, per_cell: int | None, before: Coverage) -> int:
    """Fits anchors and prints them as YAML, with the coverage before and after as comments."""
    from detkit.analyze.anchor_fit import fit, to_yaml

    now = max(case.generator.per_cell)
    per_cell = now if per_cell is None else per_cell
    sizes, after = fit(case.samples, case.strides, per_cell, case.positive)
    for name, count, coverage in (("before", now, before), ("after", per_cell, after)):
        print(
            f"# {name + ':':7} {100 * coverage.recall(case.positive):.1f} % of {len(coverage.iou)} objects in "
            f"{coverage.images} images have an anchor of IoU >= {case.positive:g}, mean best IoU "
            f"{float(coverage.iou.mean()):.3f}, {count} anchors per cell"
        )
    print(to_yaml(sizes, case.strides))
    return 0

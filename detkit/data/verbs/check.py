"""The verb `detkit data check`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detkit.config import Config
    from detkit.data.datasets.base import DetectionDataset

ALL_WELL = "every image and every object can be used"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="config file or name (detkit list configs)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as for detkit train")


def run(args: argparse.Namespace) -> int:
    """Reads every image of both splits; prints, split by split, what fails, is left out or changed. 1 if any fails."""
    from detkit.config import load_config
    from detkit.data.build import SPLITS, build_datasets, warn_of_shared_images
    from detkit.data.datasets.problems import DROPPED
    from detkit.utils.console import plural

    with log_on_stdout():
        config = load_config(args.config, args.overrides)
        sets = build_datasets(config)
        reports = [check_split(config, split, dataset) for split, dataset in zip(SPLITS, sets, strict=True)]
        warn_of_shared_images(*sets)
    bad, skipped, lost = (sum(column) for column in zip(*reports, strict=True))
    dropped = sum(dataset.problems.count(DROPPED) for dataset in sets)
    configured = skipped + sum(dataset.problems.lost_count for dataset in sets) - dropped
    wrong = [f"{plural(bad, 'image')} can't be used"] * bool(bad)
    wrong += [f"{plural(dropped, 'box', 'boxes')} can't be used"] * bool(dropped)
    wrong += [f"{plural(lost, 'object')} can't reach the network"] * bool(lost)
    left_out = plural(configured, "image or object is", "images or objects are")
    well = f"{left_out} left out as configured; all others can be used" if configured else ALL_WELL
    print("; ".join(wrong) or well)
    return 1 if wrong else 0


@contextmanager
def log_on_stdout() -> Iterator[None]:
    """Prints the log as notes of the report, but for what readers count, which is printed below its split."""
    log, problems = logging.getLogger("detkit"), logging.getLogger("detkit.problems")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    log.addHandler(handler)
    problems.disabled = True
    try:
        yield
    finally:
        log.removeHandler(handler)
        problems.disabled = False


def check_split(config: Config, split: str, dataset: DetectionDataset) -> tuple[int, int, int]:
    """Prints the problems of a split.

    Returns how many images can't be used, how many are left out instead, and how many objects never reach the network.
    """
    from detkit.data.audit import DRAWS, audit_objects
    from detkit.data.build import build_transforms
    from detkit.data.datasets.base import describe_differences
    from detkit.data.scan import WithoutBadImages, scan_images
    from detkit.utils.console import plural

    result = scan_images(dataset, range(len(dataset)))
    skips = dataset.image_options.bad_images == "skip"
    failures = [f"left out: {why}" if skips else why for why in result.bad.values()]
    if len(result.bad) == len(dataset):
        print_split(split, [f"{dataset.name}: none of the {len(dataset)} images can be used", *failures])
        return len(result.bad), 0, 0
    readable = WithoutBadImages(dataset, result.bad) if result.bad else dataset
    lines = [f"{dataset.name}: {(readable if skips else dataset).counts()}", *failures]
    if result.repaired:
        lines.append(f"{plural(len(result.repaired), 'damaged image')} repaired:")
        lines += [f"  {why}" for why in result.repaired.values()]
    transforms, is_train = build_transforms(config, split), split == "train"
    lost = audit_objects(readable, transforms, seed=config.seed if is_train else 0, draws=DRAWS if is_train else 1)
    lines += [text for text in (lost.describe(readable), lost.describe_chance()) if text]
    print_split(split, lines + dataset.problems.lines() + describe_differences(dataset.records))
    return (0, len(result.bad), len(lost.never)) if skips else (len(result.bad), 0, len(lost.never))


def print_split(split: str, lines: list[str]) -> None:
    print(f"{split}: " + "\n".join(lines).replace("\n", "\n  "))

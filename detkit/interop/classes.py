"""Which class columns of a foreign head are kept, and what they are called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detkit.interop.coco import COCO_CLASSES
from detkit.structures import ClassMap

TORCHVISION_COCO_COLUMNS = 91


@dataclass(frozen=True)
class Columns:
    """`keep`: class columns of the foreign head, in the order of the labels of `classes`."""

    keep: tuple[int, ...]
    classes: ClassMap


def read_classes(text: str) -> dict[int, str] | list[str]:
    """`a,b,c` -> names; a COCO annotation file -> its categories, id -> name."""
    path = Path(text)
    if path.suffix != ".json":
        names = [name.strip() for name in text.split(",")]
        if not all(names):
            raise ValueError(f"--classes {text!r}: want NAME,NAME,... or a COCO annotation file (.json)")
        return names
    if not path.is_file():
        raise ValueError(f"--classes: no such file: {path}")
    try:
        categories = json.loads(path.read_text(encoding="utf-8"))["categories"]
        return {int(c["id"]): str(c["name"]) for c in sorted(categories, key=lambda c: c["id"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--classes {path}: not a COCO annotation file with `categories`: {error!r}") from error


def torchvision_columns(
    columns: int, given: dict[int, str] | list[str] | None = None, keep_all: bool = False
) -> Columns:
    """torchvision's columns are the data set's category ids, 0 being a background that is never positive.

    COCO's 91 columns are cut to the 80 that have a class. A list of names is for all columns, or for
    all but column 0. Without names, and with `keep_all`, every column stays and unknown ones get a
    name made of their number.
    """
    coco = columns == TORCHVISION_COCO_COLUMNS
    if given is None or keep_all:
        known = given if isinstance(given, dict) else (COCO_CLASSES if coco else {})
        if coco and not keep_all:
            return Columns(tuple(known), ClassMap(tuple(known.values()), tuple(known)))
        names = [known.get(i, f"unused-{i}" if known else f"class-{i}") for i in range(columns)]
        return Columns(tuple(range(columns)), ClassMap(tuple(names), tuple(range(columns))))
    if isinstance(given, list):
        if len(given) not in (columns, columns - 1):
            raise ValueError(
                f"--classes: {len(given)} names for {columns} class columns; want {columns}, or "
                f"{columns - 1} without the background that torchvision puts into column 0"
            )
        given = dict(enumerate(given, start=columns - len(given)))
    if not given or min(given) < 0 or max(given) >= columns:
        raise ValueError(
            f"--classes: category ids {min(given, default=None)} to {max(given, default=None)} for class "
            f"columns 0 to {columns - 1}; torchvision's columns are category ids"
        )
    return Columns(tuple(given), ClassMap(tuple(given.values()), tuple(given)))


def detectron2_columns(columns: int, given: dict[int, str] | list[str] | None = None) -> Columns:
    """Detectron2's columns are the classes in ascending category id; 80 of them are taken for COCO's."""
    if given is None:
        unknown = {i: f"class-{i}" for i in range(1, columns + 1)}
        given = COCO_CLASSES if columns == len(COCO_CLASSES) else unknown
    if len(given) != columns:
        raise ValueError(f"--classes: {len(given)} classes for a model of {columns}")
    classes = given if isinstance(given, dict) else dict(enumerate(given, start=1))
    return Columns(tuple(range(columns)), ClassMap(tuple(classes.values()), tuple(classes)))


def keep_columns(tensor: Tensor, columns: int, keep: Sequence[int]) -> Tensor:
    """Rows of a class convolution's weight or bias, (anchors * columns, ...), of the kept columns only."""
    kept = tensor.reshape(-1, columns, *tensor.shape[1:])[:, torch.tensor(list(keep))]
    return kept.reshape(-1, *tensor.shape[1:])

"""Class columns of a foreign head: which are kept, and the names of their classes."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detkit.structures import ClassMap

COCO_COLUMNS, TORCHVISION_COCO_COLUMNS = 80, 91


@dataclass(frozen=True)
class Columns:
    """The columns of a foreign head that are kept, in the order of the labels of `classes`."""

    keep: tuple[int, ...]
    classes: ClassMap


@functools.cache
def coco_classes() -> dict[int, str]:
    """COCO's category ids, 1 to 90 with ten left out, and names, in the order of the 80 labels."""
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

    categories = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return {i: name for i, name in enumerate(categories) if name not in ("__background__", "N/A")}


def read_classes(text: str) -> dict[int, str] | list[str]:
    """Reads `a,b,c` as names, and a COCO annotation file as categories, id -> name."""
    path = Path(text)
    if path.suffix != ".json":
        names = [name.strip() for name in text.split(",")]
        if not all(names):
            raise ValueError(f"--classes: {text!r} must be NAME,NAME,... or a COCO annotation file (.json)")
        return names
    if not path.is_file():
        raise ValueError(f"--classes: file not found: {path}")
    try:
        categories = json.loads(path.read_text(encoding="utf-8"))["categories"]
        return {int(c["id"]): str(c["name"]) for c in sorted(categories, key=lambda c: c["id"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--classes {path} is not a COCO annotation file with `categories`: {error!r}") from error


def torchvision_columns(
    columns: int, given: dict[int, str] | list[str] | None = None, keep_all: bool = False
) -> Columns:
    """The columns of a torchvision head, which are the data set's category ids; 0, background, is never positive.

    COCO's 91 columns are cut to the 80 that have a class. A list of names is for all columns, or for all but column 0.
    Without names, and with `keep_all`, every column stays and unknown ones get a name made of their number.
    """
    is_coco = columns == TORCHVISION_COCO_COLUMNS
    if given is None or keep_all:
        known = given if isinstance(given, dict) else (coco_classes() if is_coco else {})
        if is_coco and not keep_all:
            return Columns(tuple(known), ClassMap(tuple(known.values()), tuple(known)))
        names = [known.get(i, f"unused-{i}" if known else f"class-{i}") for i in range(columns)]
        return Columns(tuple(range(columns)), ClassMap(tuple(names), tuple(range(columns))))
    if isinstance(given, list):
        if len(given) not in (columns, columns - 1):
            raise ValueError(
                f"--classes: {len(given)} names for {columns} class columns: must be {columns}, or "
                f"{columns - 1} without the background in torchvision's column 0"
            )
        given = dict(enumerate(given, start=columns - len(given)))
    if not given or min(given) < 0 or max(given) >= columns:
        raise ValueError(
            f"--classes: category ids {min(given, default=None)} to {max(given, default=None)} for class "
            f"columns 0 to {columns - 1}; torchvision's columns are category ids"
        )
    return Columns(tuple(given), ClassMap(tuple(given.values()), tuple(given)))


def detectron2_columns(columns: int, given: dict[int, str] | list[str] | None = None) -> Columns:
    """The columns of a Detectron2 head, which are the classes in ascending category id; 80 columns are COCO's."""
    if given is None:
        given = coco_classes() if columns == COCO_COLUMNS else {i: f"class-{i}" for i in range(1, columns + 1)}
    if len(given) != columns:
        raise ValueError(f"--classes: {len(given)} classes, but the model has {columns}")
    classes = given if isinstance(given, dict) else dict(enumerate(given, start=1))
    return Columns(tuple(range(columns)), ClassMap(tuple(classes.values()), tuple(classes)))


def keep_columns(tensor: Tensor, columns: int, keep: Sequence[int]) -> Tensor:
    """Cuts the weight or bias of a class convolution, (anchors * columns, ...), to the kept columns."""
    kept = tensor.reshape(-1, columns, *tensor.shape[1:])[:, torch.tensor(list(keep))]
    return kept.reshape(-1, *tensor.shape[1:])

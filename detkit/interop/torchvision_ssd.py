"""SSD weights of torchvision: `ssd300_vgg16` and `ssdlite320_mobilenet_v3_large`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from detkit.interop.classes import keep_columns, torchvision_columns
from detkit.interop.files import Converted, assemble
from detkit.interop.names import TORCHVISION_SSD, TORCHVISION_SSDLITE
from detkit.structures import ClassMap

SSD_MODELS = ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large")
_CLASS_OUT = "head.classification_head.module_list."
_BOX_OUT = "head.regression_head.module_list."
_FULL, _LITE = "0.weight", "0.1.weight"
"""Names of the first level's last weight in SSD and in SSDlite."""


def is_ssd(state: Mapping[str, Tensor]) -> bool:
    """Whether a torchvision state dict has an SSD's head, full or lite."""
    return any(f"{_CLASS_OUT}{name}" in state and f"{_BOX_OUT}{name}" in state for name in (_FULL, _LITE))


def convert_ssd(
    source: str,
    state: dict[str, Tensor],
    classes: dict[int, str] | list[str] | None,
    keep_all_columns: bool,
    notes: list[str],
) -> Converted:
    """Converts torchvision's SSD; see `convert_torchvision`. Its column 0, background, becomes the last one.

    COCO's ten columns without a class are left out of the softmax, so scores are higher by their share;
    keep_all_columns keeps them. Raises ValueError if torchvision builds no SSD with these tensors.
    """
    lite = f"{_CLASS_OUT}{_LITE}" in state
    first = _LITE if lite else _FULL
    columns = len(state[f"{_CLASS_OUT}{first}"]) // (len(state[f"{_BOX_OUT}{first}"]) // 4)
    kept = torchvision_columns(columns, classes, keep_all_columns)
    named = {i: name for i, name in zip(kept.keep, kept.classes.names, strict=True) if i}
    if named.get(1) == "class-1":
        notes.append(f"{columns - 1} classes have no names: set them with --classes")
    if len(named) != columns - 1:
        notes.append(f"{len(named)} of {columns - 1} classes kept, and background: the ones with a name")
    state = dict(state)
    last = re.compile(re.escape(_CLASS_OUT) + (r"\d+\.1\." if lite else r"\d+\.") + "(weight|bias)$")
    for key in filter(last.match, list(state)):
        state[key] = keep_columns(state[key], columns, [*named, 0])
    tree = "torchvision_ssdlite320_mobilenet_v3.yaml" if lite else "torchvision_ssd300_vgg16.yaml"
    rules = TORCHVISION_SSDLITE if lite else TORCHVISION_SSD
    return assemble(source, state, tree, [], ClassMap(tuple(named.values()), tuple(named)), rules, notes)

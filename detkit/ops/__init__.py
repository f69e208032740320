"""Native ops behind Python functions.

nms, batched_nms: greedy suppression with torchvision's results. nms_mask: the same on sorted boxes, with an output of
fixed size. nms_padded: a fixed number of indices. soft_nms, diou_nms, matrix_nms: other ways of suppression.
vote_boxes: moves what is kept to the mean of what is removed.
sigmoid_focal_sum: focal loss over integer labels.
The functions are loaded on first use: importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detkit.ops.sigmoid_focal import sigmoid_focal_sum
    from detkit.ops.suppression.diou import diou_nms
    from detkit.ops.suppression.hard import batched_nms, nms, nms_mask
    from detkit.ops.suppression.matrix import matrix_nms
    from detkit.ops.suppression.padded import nms_padded
    from detkit.ops.suppression.soft import soft_nms
    from detkit.ops.suppression.voting import vote_boxes

_MODULES = {
    "batched_nms": "suppression.hard",
    "diou_nms": "suppression.diou",
    "matrix_nms": "suppression.matrix",
    "nms": "suppression.hard",
    "nms_mask": "suppression.hard",
    "nms_padded": "suppression.padded",
    "sigmoid_focal_sum": "sigmoid_focal",
    "soft_nms": "suppression.soft",
    "vote_boxes": "suppression.voting",
}
__all__ = [
    "batched_nms", "diou_nms", "matrix_nms", "nms", "nms_mask", "nms_padded", "sigmoid_focal_sum", "soft_nms",
    "vote_boxes",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'detkit.ops' has no attribute {name!r}")
    globals()[name] = function = getattr(import_module(f"detkit.ops.{_MODULES[name]}"), name)
    return function

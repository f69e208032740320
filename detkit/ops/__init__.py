"""Native ops behind Python functions.

nms, batched_nms: greedy suppression with torchvision's results. nms_mask: the same on sorted boxes, with an output of
fixed size. nms_padded: a fixed number of indices. soft_nms, diou_nms, matrix_nms: other ways of suppression.
sigmoid_focal_sum: focal loss over integer labels.
"""

from detkit.ops.sigmoid_focal import sigmoid_focal_sum
from detkit.ops.suppression.diou import diou_nms
from detkit.ops.suppression.hard import batched_nms, nms, nms_mask
from detkit.ops.suppression.matrix import matrix_nms
from detkit.ops.suppression.padded import nms_padded
from detkit.ops.suppression.soft import soft_nms

__all__ = [
    "batched_nms", "diou_nms", "matrix_nms", "nms", "nms_mask", "nms_padded", "sigmoid_focal_sum", "soft_nms",
]  # fmt: skip

"""Native ops and their Python faces.

nms, batched_nms: greedy suppression with torchvision's results. nms_mask: the same on sorted boxes, and of
fixed size.
The functions are loaded on first use, so that `detkit doctor` can be asked without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detkit.ops.hard_nms import batched_nms, nms, nms_mask

__all__ = ["batched_nms", "nms", "nms_mask"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'detkit.ops' has no attribute {name!r}")
    from detkit.ops import hard_nms

    for public in __all__:
        globals()[public] = getattr(hard_nms, public)
    return globals()[name]

"""Pixels of any kind as a PIL image."""

from __future__ import annotations

from typing import Any

from PIL import Image


def as_pil(image: Any) -> Image.Image:
    """A PIL image, uint8 array (H, W[, 3]) or uint8 tensor (3, H, W) or (H, W) -> RGB PIL image, a copy."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    array = image.permute(1, 2, 0) if hasattr(image, "permute") and image.ndim == 3 else image
    shape, dtype = getattr(array, "shape", None), str(getattr(array, "dtype", type(image).__name__))
    is_image = shape is not None and 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4)))
    if not is_image or dtype.rpartition(".")[2] != "uint8":
        raise ValueError(
            f"an image must be a path, a PIL image, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W), "
            f"not {type(image).__name__} of {dtype} {tuple(shape or ())}"
        )
    return Image.fromarray(array.cpu().numpy() if hasattr(array, "cpu") else array).convert("RGB")

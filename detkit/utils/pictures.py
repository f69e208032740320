"""Pixels of any kind as a PIL image."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from detkit.utils.types import Value

FLOATS = ("float16", "bfloat16", "float32", "float64")
SCALE = 255.0


def as_pil(image: Any) -> Image.Image:
    """Pixels -> RGB PIL image, a copy.

    image: a PIL image, an array (H, W) or (H, W, C), or a tensor (H, W) or (C, H, W), with 1, 3 or 4 channels C.
    The type of the numbers says what they mean: uint8 is 0..255, floating point is 0..1. ValueError for any other
    type, shape or range.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    is_tensor = hasattr(image, "permute")
    array = image.permute(1, 2, 0) if is_tensor and image.ndim == 3 else image
    shape: tuple[int, ...] = tuple(getattr(array, "shape", ()))
    dtype = str(getattr(array, "dtype", "")).rpartition(".")[2]
    is_image = 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)))
    if not is_image or dtype not in ("uint8", *FLOATS):
        raise ValueError(_not_an_image(image, is_tensor))
    if is_tensor:
        array = array.detach().cpu()
        array = (array.float() if dtype in FLOATS else array).numpy()
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(_to_bytes(array) if dtype in FLOATS else array).convert("RGB")


def _to_bytes(array: Value) -> Value:
    """Floating-point values 0..1 as uint8, each rounded to the nearest; ValueError for others, with what they are."""
    low, high = float(array.min()), float(array.max())
    if not 0 <= low <= high <= 1:  # false for NaN as well
        if np.isnan(array).any():
            found = "NaN is among these"
        elif low < 0:
            found = f"these are {low:g} to {high:g}: give the image before it is normalised"
        else:
            found = f"these are {low:g} to {high:g}: if 255 is white, divide by 255 or give uint8"
        raise ValueError(f"the floating-point values of an image must be 0 to 1; {found}")
    return (array * SCALE).round().astype(np.uint8)


def _not_an_image(image: Any, is_tensor: bool) -> str:
    """What an image must be, and what this is."""
    shape, dtype = tuple(getattr(image, "shape", ())), getattr(image, "dtype", "")
    given = f"{type(image).__name__} {dtype} {shape}" if hasattr(image, "shape") else repr(image)[:80]
    hint = ""
    if len(shape) == 3 and not is_tensor and shape[0] in (3, 4) and shape[2] not in (3, 4):
        hint = "; an array has its channels last: array.transpose(1, 2, 0)"
    elif len(shape) == 3 and is_tensor and shape[2] in (3, 4) and shape[0] not in (3, 4):
        hint = "; a tensor has its channels first: tensor.permute(2, 0, 1)"
    kinds = "an image must be a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W)"
    return f"{kinds}, of uint8 (0 to 255) or floating point (0 to 1), not {given}{hint}"

"""Image files of every kind to 8-bit RGB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def read_image(path: str | Path) -> Image:
    """A file -> PIL image in RGB, upright by its EXIF orientation.

    Grey, palette and CMYK are converted, 16-bit values lose their lower byte (as Pillow does to 16-bit
    colour), and transparency lies over black. Raises FileNotFoundError, or ValueError that names a file
    that can't be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            assert upright is not None
            return to_rgb(upright)
    except FileNotFoundError:
        raise FileNotFoundError(f"no image file {path}") from None
    except Exception as error:
        # Whatever a decoder trips over, the file is what the user needs to know.
        raise ValueError(f"{path}: not a readable image ({type(error).__name__}: {error})") from error


def to_rgb(image: Image) -> Image:
    """Any PIL mode -> RGB, as `read_image` says; ValueError if the values have no known range."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # The scale must not depend on the image: a dark picture has to stay dark. Mode I is what older
        # Pillows make of a 16-bit file; a value that does not fit is no 16-bit image.
        values = np.asarray(image).astype(np.int64)
        if values.size and not 0 <= values.min() <= values.max() <= 65535:
            raise ValueError(f"32-bit values of {values.min()} to {values.max()}: save it with 8 or 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range: save it with 8 or 16 bits")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    return image.convert("RGB")

"""Decoding of image files of every kind to 8-bit RGB."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import IO, Literal, ParamSpec, TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from detkit.data.datasets.file_formats import describe_text
from detkit.registry import Positive, enforce_bounds

MAX_MEGAPIXELS = 180.0
"""Default of the limit: three bytes a pixel, so half a gigabyte in memory."""
BadImages = Literal["error", "skip", "repair"]
P = ParamSpec("P")
R = TypeVar("R")
END_OF_JPEG = b"\xff\xd9"
PNG_EXIF = {b"eXIf", b"iTXt", b"tEXt", b"zTXt"}
"""Chunks of a PNG that may hold EXIF."""
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""EXIF's tag, and its values for which width and height change places."""
NO_PICTURES = frozenset({"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
"""Formats that Pillow only recognises, or hands to another program."""
HEIF = (".heic", ".heif", ".hif")
HEIF_HINT = "HEIC files need the package pillow-heif: pip install 'detkit[heif]'"


@enforce_bounds
@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images are read.

    Args:
        bad_images: what to do with images that can't be decoded, in training and evaluation alike. error ends the
            command and names them; skip leaves them out with their boxes; repair decodes what is there, the rest grey
            or black, as browsers do, and is an error where nothing is there. skip and repair decode every image once
            at the start.
        max_megapixels: megapixels above which an image is refused before it is decoded.
    """

    bad_images: BadImages = "error"
    max_megapixels: Positive = MAX_MEGAPIXELS


def read_image(path: str | Path, options: ImageOptions | None = None) -> Image.Image:
    """Decodes a file to a PIL image in RGB, upright by its EXIF orientation.

    Grey, palette and CMYK are converted, 16-bit values lose their lower byte (as Pillow does to 16-bit
    colour), and transparency lies over black. Raises FileNotFoundError, or ValueError that names a file
    that can't be read. A damaged file is decoded as far as it goes if the options say repair.
    """
    options = options or ImageOptions()
    try:
        with open_image(path, path, options) as opened:
            opened.load()
            return to_rgb(ImageOps.exif_transpose(opened))
    except (FileNotFoundError, ImageTooLargeError):
        raise
    except Exception as error:
        if options.bad_images != "repair":
            raise unreadable_error(path, error) from error
    return repair_file(path, options)


def repair_file(path: str | Path, options: ImageOptions) -> Image.Image:
    """Decodes a damaged file as far as it goes; ValueError that names the file if nothing can be decoded."""
    try:
        open_image(path, path, options).close()
        # Without its end mark, libjpeg waits for more and keeps the last rows to itself.
        marked = Path(path).read_bytes() + END_OF_JPEG
        with open_image(io.BytesIO(marked), path, options) as opened:
            load_truncated(opened)
            return to_rgb(ImageOps.exif_transpose(opened))
    except Exception as error:
        hint = "it can't be repaired; bad_images: skip leaves it out"
        raise ValueError(f"{unreadable_error(path, error)}; {hint}") from error


def read_size(path: str | Path, options: ImageOptions | None = None) -> tuple[int, int]:
    """(height, width) of an upright image, from the file's header alone; raises as `read_image`."""
    try:
        with open_image(path, path, options or ImageOptions()) as opened:
            turned = header_exif(opened).get(ORIENTATION, 1) in SIDEWAYS
            return (opened.width, opened.height) if turned else (opened.height, opened.width)
    except (FileNotFoundError, ImageTooLargeError):
        raise
    except Exception as error:
        raise unreadable_error(path, error) from error


def header_exif(opened: ImageFile.ImageFile) -> Image.Exif:
    """The EXIF of an image that is opened and not decoded: Pillow would decode a PNG for it, large or damaged."""
    late = opened.format == "PNG" and opened.fp is not None and png_chunks(opened.fp) & PNG_EXIF
    return opened.getexif() if late else Image.Image.getexif(opened)


def png_chunks(file: IO[bytes]) -> set[bytes]:
    """The kinds of chunks from the first of pixels on, found by their lengths."""
    start, position = file.tell(), 8
    chunks: set[bytes] = set()
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or not head[4:].isalpha():
            break
        if chunks or head[4:] == b"IDAT":
            chunks.add(head[4:])
        position += 12 + int.from_bytes(head[:4], "big")
    file.seek(start)
    return chunks


def size_if_readable(path: str | Path) -> tuple[int, int]:
    """(height, width) by the header; (-1, -1) where it can't be read, which opening the image reports."""
    try:
        return read_size(path)
    except (ValueError, OSError):
        return (-1, -1)


def upright_size(path: str | Path) -> tuple[int, int]:
    """(height, width) by the header of an image, however large it is; (-1, -1) where it can't be read."""
    try:
        return read_size(path)
    except ImageTooLargeError:
        # A PNG's late EXIF is not looked at, because Pillow would decode the image for it.
        with open_image(path, path, ImageOptions(max_megapixels=math.inf)) as opened:
            turned = Image.Image.getexif(opened).get(ORIENTATION, 1) in SIDEWAYS
            return (opened.width, opened.height) if turned else (opened.height, opened.width)
    except (ValueError, OSError):
        return (-1, -1)


class ImageTooLargeError(ValueError):
    """An image has more pixels than the limit, by its header."""


def unreadable_error(path: str | Path, error: Exception) -> ValueError:
    """The error of any decoder, with the name of the file in front."""
    hint = f"; {HEIF_HINT}" if Path(path).suffix.lower() in HEIF and not reads_heif() else ""
    text = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError) and not hint:
        return ValueError(f"{path}: not a readable image: {describe_file(path)}")
    return ValueError(f"{path}: not a readable image ({type(error).__name__}: {text}){hint}")


def describe_file(path: str | Path) -> str:
    """What a file is that Pillow does not know, in words."""
    with open(path, "rb") as file:
        start = file.read(1000)
    if not start:
        return "the file is empty"
    try:
        known = describe_text(start.decode())
    except UnicodeDecodeError:
        known = None
    return f"the file is {known or 'of an unknown type, or its beginning is damaged'}"


def open_image(source: str | Path | IO[bytes], path: str | Path, options: ImageOptions) -> ImageFile.ImageFile:
    """Reads the header of an image; `path` is what messages name."""
    reads_heif()
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError("it is a folder or a device, not a file")  # reading /dev/zero would never end
    try:
        opened = _with_globals(Image.open, _decompression_bomb_check=lambda size: None)(source)
    except FileNotFoundError:
        raise FileNotFoundError(f"no image file {path}") from None
    if opened.format in NO_PICTURES:
        raise ValueError(f"the file is of the format {opened.format}, which is not read")
    check_pixels(opened, path, options.max_megapixels)
    return opened


def check_pixels(image: Image.Image, path: str | Path, limit: float) -> None:
    """Raises ImageTooLargeError for more than `limit` megapixels."""
    megapixels = image.width * image.height / 1e6
    if megapixels > limit:
        size, needed = f"{image.width}x{image.height}", int(megapixels) + 1
        image.close()
        raise ImageTooLargeError(
            f"{path}: the image has {megapixels:.1f} megapixels ({size}), the limit is {limit:g}. Set "
            f"data.images.max_megapixels={needed}, or --max-megapixels {needed} of detkit predict, to allow it; "
            f"it takes {3 * megapixels / 1e3:.2g} GB of memory"
        )


def load_truncated(image: ImageFile.ImageFile) -> None:
    """Decodes an image whose file may end too early."""
    if type(image).load is ImageFile.ImageFile.load or not getattr(image, "use_load_libtiff", True):
        _with_globals(ImageFile.ImageFile.load, LOAD_TRUNCATED_IMAGES=True)(image)
    else:
        image.load()


def _with_globals(function: Callable[P, R], **values: object) -> Callable[P, R]:
    """A copy of one of Pillow's functions that sees other values of its module's globals.

    Pillow's switches are global: set for one image, they would change what every thread of the process reads.
    """
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__, {**function.__globals__, **values}, argdefs=function.__defaults__)


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts any PIL mode to RGB, as `read_image` describes; ValueError if the values have no known range."""
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


@cache
def reads_heif() -> bool:
    """Whether pillow-heif is installed; makes Pillow use it."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True

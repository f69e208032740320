"""Decoding of image files of every kind to 8-bit RGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import IO, Literal, ParamSpec, TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from detkit.data.datasets.file_formats import describe_text
from detkit.registry import PathStr, Positive, enforce_bounds

MAX_MEGAPIXELS = 180.0
"""Default of the limit: three bytes a pixel, so half a gigabyte in memory."""
BadImages = Literal["error", "skip", "repair"]
Size = tuple[int, int]
"""(height, width), pixels."""
Target = Callable[[int, int], Size | None]
"""(height, width) of an image -> the (height, width) to which it is going to be resized; None for no fixed size."""
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
        outside: whether an absolute path or .. in annotations may lead to an image outside of the data's folders.
        scaled_decoding: decodes a JPEG at 1/2, 1/4 or 1/8 of its size where the first transform resizes it to less
            than that. Faster, with slightly other pixels than a decoding in full.
        cache: keeps decoded images, resized where the transforms begin with a resize to a fixed size, so that later
            epochs decode nothing. memory keeps them in the memory of this training, disk in files that all processes
            and later runs share; null keeps none.
        cache_gb: gigabytes that the images of a split may take in the cache; the others are decoded each time.
        cache_folder: folder of the disk cache, which must be on this machine's own disk to be of use; null takes the
            folder images in the cache of downloads.
    """

    bad_images: BadImages = "error"
    max_megapixels: Positive = MAX_MEGAPIXELS
    outside: bool = False
    scaled_decoding: bool = False
    cache: Literal["memory", "disk"] | None = None
    cache_gb: Positive = 8.0
    cache_folder: PathStr | None = None


def read_image(path: str | Path, options: ImageOptions | None = None) -> Image.Image:
    """Decodes a file to a PIL image in RGB, upright by its EXIF orientation.

    Grey, palette and CMYK are converted, 16-bit values lose their lower byte (as Pillow does to 16-bit
    colour), and transparency lies over black. Raises FileNotFoundError, or ValueError that names a file
    that can't be read. A damaged file is decoded as far as it goes if the options say repair.
    """
    return read_scaled(path, path, options or ImageOptions())[0]


def read_scaled(
    source: str | Path | bytes, path: str | Path, options: ImageOptions, target: Target | None = None
) -> tuple[Image.Image, Size]:
    """`read_image` of a file, or of its bytes, and the (height, width) of the image in full.

    Args:
        path: what messages name.
        target: the (height, width) to which an image of a (height, width) is going to be resized; a JPEG is decoded at
            the smallest of 1, 1/2, 1/4 and 1/8 of its size that is not below it.
    """
    try:
        with open_image(_opened(source), path, options) as opened:
            size = size_of_opened(opened)
            if target is not None and (wanted := target(*size)) is not None and opened.format == "JPEG":
                turned = size != (opened.height, opened.width)
                opened.draft(None, wanted if turned else (wanted[1], wanted[0]))  # no mode: as in the file
            opened.load()
            return to_rgb(ImageOps.exif_transpose(opened)), size
    except (FileNotFoundError, ImageTooLargeError):
        raise
    except Exception as error:
        if options.bad_images != "repair":
            raise unreadable_error(path, error, source) from error
    repaired = repair_file(path, options, source if isinstance(source, bytes) else None)
    return repaired, (repaired.height, repaired.width)


def _opened(source: str | Path | bytes) -> str | Path | IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def repair_file(path: str | Path, options: ImageOptions, content: bytes | None = None) -> Image.Image:
    """Decodes a damaged file as far as it goes; ValueError that names the file if nothing can be decoded.

    content: the file's bytes if it is not on disk.
    """
    source = path if content is None else content
    try:
        open_image(_opened(source), path, options).close()
        # Without its end mark, libjpeg waits for more and keeps the last rows to itself.
        marked = (Path(path).read_bytes() if content is None else content) + END_OF_JPEG
        with open_image(io.BytesIO(marked), path, options) as opened:
            load_truncated(opened)
            return to_rgb(ImageOps.exif_transpose(opened))
    except Exception as error:
        hint = "it can't be repaired; bad_images: skip leaves it out"
        raise ValueError(f"{unreadable_error(path, error, source)}; {hint}") from error


def read_size(source: str | Path | bytes, options: ImageOptions | None = None, *, name: str = "") -> Size:
    """(height, width) of an upright image, from the header of its file or of its bytes; raises as `read_image`.

    name: what messages call an image that is given as bytes.
    """
    path = name if isinstance(source, bytes) else source
    try:
        with open_image(_opened(source), path, options or ImageOptions()) as opened:
            return size_of_opened(opened)
    except (FileNotFoundError, ImageTooLargeError):
        raise
    except Exception as error:
        raise unreadable_error(path, error, source) from error


def size_of_opened(opened: ImageFile.ImageFile) -> Size:
    """(height, width) of an image that is opened and not decoded, after EXIF rotation."""
    turned = header_exif(opened).get(ORIENTATION, 1) in SIDEWAYS
    return (opened.width, opened.height) if turned else (opened.height, opened.width)


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


def upright_size(source: str | Path | bytes, *, name: str = "") -> Size:
    """`read_any_size`, but (-1, -1) for an image that can't be read, which opening it reports."""
    try:
        return read_any_size(source, name=name)
    except (ValueError, OSError):
        return (-1, -1)


def read_any_size(source: str | Path | bytes, *, name: str = "") -> Size:
    """`read_size`, however large the image is: to be known, not to be decoded."""
    try:
        return read_size(source, name=name)
    except ImageTooLargeError:
        # A PNG's late EXIF is not looked at, because Pillow would decode the image for it.
        path = name if isinstance(source, bytes) else source
        with open_image(_opened(source), path, ImageOptions(max_megapixels=1e30)) as opened:
            turned = Image.Image.getexif(opened).get(ORIENTATION, 1) in SIDEWAYS
            return (opened.width, opened.height) if turned else (opened.height, opened.width)


class ImageTooLargeError(ValueError):
    """An image has more pixels than the limit, by its header."""


def unreadable_error(path: str | Path, error: Exception, source: str | Path | bytes | None = None) -> ValueError:
    """The error of any decoder, with the name of the file in front. source: the file's bytes if it is not on disk."""
    hint = f"; {HEIF_HINT}" if Path(path).suffix.lower() in HEIF and not reads_heif() else ""
    text = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError) and not hint:
        return ValueError(f"{path}: not a readable image: {describe_file(path if source is None else source)}")
    return ValueError(f"{path}: not a readable image ({type(error).__name__}: {text}){hint}")


def describe_file(source: str | Path | bytes) -> str:
    """What a file, or its bytes, is that Pillow does not know, in words."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
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

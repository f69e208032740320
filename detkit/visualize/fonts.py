"""Fonts that have the letters of a name, whatever its script."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from detkit.utils.console import printable

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
INVISIBLE = ("Z", "C", "M")
"""Categories of characters that need no glyph of their own: spaces, controls, marks that are put on letters."""
log = logging.getLogger("detkit")


@lru_cache(maxsize=64)
def find_font(size: int, text: str = "") -> Font:
    """DejaVu Sans, which comes with matplotlib, or a font of the system that has all letters of the text.

    Without matplotlib, or if no font has them, Pillow's own. size: pixels.
    """
    file = font_file(letters(text))
    if file is None:
        file = default_file()
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def drawn_name(name: str, label: int) -> str:
    """A class's name as it is drawn; `class 3`, after a warning, if no font of this machine has its letters."""
    if font_file(letters(name)) is not None or name.isascii():
        return name
    warn_once(name)
    return f"class {label}"


@cache
def warn_once(name: str) -> None:
    """Reports a name that can't be drawn; names after the first one are not reported."""
    if warn_once.cache_info().currsize == 0:
        log.warning(
            "no font of this machine has the letters of %s: such classes are drawn by their number; "
            "install a font of their script, such as Noto",
            printable(name),
        )


def letters(text: str) -> frozenset[str]:
    """The characters of a text that need a glyph."""
    return frozenset(c for c in text if unicodedata.category(c)[0] not in INVISIBLE)


@cache
def font_file(characters: frozenset[str]) -> str | None:
    """The first font that has all characters, DejaVu Sans before those of the system; None if none has."""
    codes = np.array(sorted(map(ord, characters)), np.uint32)
    for file in font_files():
        if len(codes) == 0 or np.isin(codes, charmap(file)).all():
            return file
    return None


def font_files() -> Iterator[str]:
    """The font files of matplotlib and the system, lazily, as the system's are looked up for rare letters only."""
    if default := default_file():
        yield default
    yield from system_fonts()


@cache
def system_fonts() -> tuple[str, ...]:
    """Font files of the system, upright ones of usual weight first, then by name."""
    from matplotlib.font_manager import findSystemFonts

    unusual = ("bold", "italic", "oblique", "light", "thin", "black", "condensed", "mono")
    return tuple(sorted(findSystemFonts(), key=lambda f: (any(word in Path(f).name.lower() for word in unusual), f)))


@cache
def charmap(file: str) -> NDArray[np.uint32]:
    """The character codes of a font; none for a file that can't be used, as a font of pictures only."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(file, 12)
        return np.array(sorted(FT2Font(file).get_charmap()), np.uint32)
    except (OSError, RuntimeError, ValueError):
        return np.zeros(0, np.uint32)


@cache
def default_file() -> str | None:
    """DejaVu Sans of matplotlib."""
    spec = find_spec("matplotlib")
    file = Path(spec.origin if spec and spec.origin else "").parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return str(file) if file.is_file() else None

"""The colours of classes: the same in every picture, and apart for people who see red and green alike."""

from __future__ import annotations

import colorsys

Color = tuple[int, int, int]

INK: Color = (32, 36, 44)
PAPER: Color = (255, 255, 255)
MUTED: Color = (110, 118, 130)
CLASS_COLORS: tuple[Color, ...] = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (240, 228, 66),
    (0, 0, 255), (105, 30, 0), (135, 240, 150), (90, 30, 75), (45, 30, 165), (90, 120, 255), (150, 240, 255),
    (225, 15, 75), (90, 240, 195),
)  # fmt: skip
"""Seven of Okabe and Ito (Color Universal Design, 2008), then those that are farthest from all before them, in CIELAB
as seen with normal sight, protanopia and deuteranopia (Machado et al. 2009)."""
SHADES = (0.28, 0.45, 0.65)
"""Lightness of further colours, in turn, as people who confuse hues tell them apart by it."""


def class_color(label: int) -> Color:
    """The color of a class: of the list, then around the hue circle in three shades."""
    if label < len(CLASS_COLORS):
        return CLASS_COLORS[label]
    hue = (label * 0.618034) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, SHADES[label % len(SHADES)], 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_color(background: Color) -> Color:
    """Black or white, whichever has more contrast on a color (WCAG 2.1)."""
    red, green, blue = (linear(value) for value in background)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return INK if luminance > 0.2 else PAPER


def linear(value: int) -> float:
    """An sRGB value 0..255 -> light 0..1."""
    part = value / 255
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)

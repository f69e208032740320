"""Findings as pictures: the image, or the part around a small box, with its boxes and their names."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from detkit.data.datasets.images import open_image, to_rgb
from detkit.data.doctor.findings import Corners, Mark, Picture
from detkit.data.doctor.subject import Subject
from detkit.utils.console import printable
from detkit.visualize.colors import MUTED, PAPER, Color
from detkit.visualize.fonts import Font, find_font
from detkit.visualize.page import jpeg_uri

SIDE = 420
"""Pixels of the longer side of a picture."""
FAULT: Color = (214, 39, 40)
OTHER: Color = (31, 119, 220)
SMALL = 0.2
"""Part of the image's side below which the surroundings of the suspect boxes are shown instead of all of it."""
CONTEXT = 2.0
"""Sides of the suspect box around it that are shown with it."""
NAMED = 12
"""Boxes that are named beside the suspect ones; of more, only the suspect ones are."""


def data_uri(picture: Picture, subject: Subject) -> str | None:
    """A picture as the address of a JPEG that contains it; None if the image can't be read."""
    try:
        image = load(picture, subject)
    except (ValueError, OSError):
        return None
    return jpeg_uri(draw(image, picture.marks), quality=82)


def load(picture: Picture, subject: Subject) -> Image.Image:
    """The image, upright unless it is to be shown as it is stored; ValueError if it is not of the data."""
    found = subject.places.get(picture.path)
    if found is None:
        raise ValueError(f"{picture.path!r} is not an image of the data")
    split, index = found
    if not picture.turned or not split.dataset.reads_files:
        return split.dataset.load_image(index)
    with open_image(picture.path, picture.path, split.dataset.image_options) as opened:
        opened.load()
        return to_rgb(opened.copy())


def draw(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """The picture: a copy of the image or of a part of it, scaled, with boxes."""
    region = visible_part(image.size, [mark.box for mark in marks if mark.suspect])
    left, top, right, bottom = region
    scale = SIDE / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    shown = image.resize(size, Image.Resampling.BICUBIC, box=region, reducing_gap=2)
    pen = ImageDraw.Draw(shown)
    names = len(marks) <= NAMED
    for mark in marks:
        x1, y1, x2, y2 = ((v - o) * scale for v, o in zip(ordered(mark.box), (left, top, left, top), strict=True))
        colour = FAULT if mark.suspect else OTHER
        pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=PAPER)
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=3 if mark.suspect else 2)
        if (mark.suspect or names) and x1 < size[0] and y1 < size[1] and x2 > 0 and y2 > 0:
            write_name(pen, mark.text, (x1, y1), size, colour, find_font(12, mark.text))
    return shown


def write_name(
    pen: ImageDraw.ImageDraw, text: str, at: tuple[float, float], size: tuple[int, int], colour: Color, font: Font
) -> None:
    """A name on a tag above the corner `at`, kept inside the picture."""
    left, top, right, bottom = pen.textbbox((0, 0), printable(text), font=font)
    width, height = right - left + 6, bottom - top + 5
    x, y = min(max(at[0], 0), max(size[0] - width, 0)), min(max(at[1] - height, 0), max(size[1] - height, 0))
    pen.rectangle((x, y, x + width, y + height), fill=colour if colour == FAULT else MUTED)
    pen.text((x + 3 - left, y + 2 - top), printable(text), fill=PAPER, font=font)


def visible_part(size: tuple[int, int], suspects: Sequence[Corners]) -> Corners:
    """What is shown of an image of (width, height): all of it, or what surrounds its small suspect boxes."""
    whole = 0.0, 0.0, float(size[0]), float(size[1])
    boxes = [ordered(box) for box in suspects]
    if not boxes or any(not all(map(is_finite, box)) for box in boxes):
        return whole
    x1, y1, x2, y2 = (f(box[k] for box in boxes) for k, f in enumerate((min, min, max, max)))
    side = max(x2 - x1, y2 - y1)
    if side > SMALL * max(size) or x2 < 0 or y2 < 0 or x1 > size[0] or y1 > size[1]:
        return whole
    reach = max(side * (0.5 + CONTEXT), 0.15 * max(size), 16)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return max(0.0, x - reach), max(0.0, y - reach), min(whole[2], x + reach), min(whole[3], y + reach)


def is_finite(value: float) -> bool:
    return abs(value) < 1e9


def ordered(box: Corners) -> Corners:
    """The box with its corners in order, and what is not finite as 0."""
    x1, y1, x2, y2 = (v if is_finite(v) else 0.0 for v in box)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)

"""Boxes and names on one image."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw

from detkit.structures import ClassMap, Detections, Targets
from detkit.utils.console import printable
from detkit.utils.pictures import as_pil
from detkit.visualize.colors import Color, class_color, text_color
from detkit.visualize.fonts import drawn_name, find_font

Box = tuple[float, float, float, float]


def draw_detections(
    image: Any, objects: Detections | Targets, classes: ClassMap, *, min_score: float = 0.0, side: int | None = None
) -> Image.Image:
    """A copy of the image (PIL, (H, W, 3) uint8 array or (3, H, W) uint8 tensor) with boxes and names.

    objects: in pixels of that image; `Targets` have no scores, their ignore regions are drawn hatched.
    min_score: lowest score that is drawn. side: pixels of the longer side of the picture; the names are written
    after scaling, so they stay readable.
    """
    picture = as_pil(image)
    scale = side / max(picture.size) if side else 1.0
    if scale != 1:
        width, height = (max(1, round(length * scale)) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    size = max(11, round(max(picture.size) / 48))
    width = max(2, round(max(picture.size) / 250))
    if isinstance(objects, Targets):
        for box in objects.ignore.tolist():
            _hatch(picture, _ordered([v * scale for v in box]))
    entries = _entries(objects, classes, min_score)
    # Large boxes first, so that small ones and their names stay visible.
    entries.sort(key=lambda e: -(e[0][2] - e[0][0]) * (e[0][3] - e[0][1]))
    boxes = [_ordered([v * scale for v in box]) for box, _, _ in entries]
    for (x1, y1, x2, y2), (_, label, _) in zip(boxes, entries, strict=True):
        # A thin line around it, white or black, so that dark colors show on dark images and light ones on light.
        color = class_color(label)
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=text_color(color))
        draw.rectangle((x1, y1, x2, y2), outline=color, width=width)
    # Names keep off each other and off objects so small that a name would hide them.
    taken = [b for b in boxes if (b[2] - b[0]) * (b[3] - b[1]) < 16 * size**2]
    for box, (_, label, text) in zip(boxes, entries, strict=True):
        _draw_name(draw, box, text, class_color(label), size, taken, picture.size)
    return picture


def _entries(objects: Detections | Targets, classes: ClassMap, min_score: float) -> list[tuple[list[float], int, str]]:
    """Box, label and text of every object to draw."""
    boxes, labels = objects.boxes.tolist(), objects.labels.tolist()
    names = [printable(drawn_name(classes.names[k], k)) for k in labels]
    if isinstance(objects, Targets):
        return list(zip(boxes, labels, names, strict=True))
    entries = zip(boxes, labels, names, objects.scores.tolist(), strict=True)
    return [(box, k, f"{name} {score:.2f}") for box, k, name, score in entries if score >= min_score]


def _ordered(box: list[float]) -> Box:
    """The box with its corners in order, as PIL demands."""
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _draw_name(
    draw: ImageDraw.ImageDraw,
    box: Box,
    text: str,
    color: Color,
    size: int,
    taken: list[Box],
    limits: tuple[int, int],
) -> None:
    """Writes the name on a filled tag, above the box or at the first free spot around it. size: of the letters."""
    font = find_font(size, text)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 5
    x1, y1, x2, y2 = box
    spots = [
        (x1, y1 - high), (x1, y2), (x1, y1), (x2 - wide, y1 - high), (x2 - wide, y2), (x2, y1),
        (x1 - wide, y1),
    ]  # fmt: skip

    def clamped(spot: tuple[float, float]) -> Box:
        x, y = min(max(spot[0], 0), max(limits[0] - wide, 0)), min(max(spot[1], 0), max(limits[1] - high, 0))
        return x, y, x + wide, y + high

    def overlap(tag: Box) -> float:
        return sum(
            max(0.0, min(tag[2], t[2]) - max(tag[0], t[0])) * max(0.0, min(tag[3], t[3]) - max(tag[1], t[1]))
            for t in taken
        )

    tag = min(map(clamped, spots), key=overlap)
    taken.append(tag)
    draw.rectangle(tag, fill=color)
    draw.text((tag[0] + 3 - left, tag[1] + 2 - top), text, fill=text_color(color), font=font)


def _hatch(picture: Image.Image, box: Box) -> None:
    """Draws grey diagonal lines over an ignore region."""
    x1, y1, x2, y2 = map(round, box)
    wide, high = max(1, x2 - x1), max(1, y2 - y1)
    mask = Image.new("L", (wide, high), 0)
    draw = ImageDraw.Draw(mask)
    for start in range(-high, wide, 9):
        draw.line((start, high, start + high, 0), fill=150, width=2)
    draw.rectangle((0, 0, wide - 1, high - 1), outline=220, width=2)
    picture.paste((235, 235, 235), (x1, y1), mask)

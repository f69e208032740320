"""Pictures of an image's matched anchors."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from detkit.show.matches import ImageMatches, count, count_levels
from detkit.structures import ClassMap
from detkit.utils.console import plural
from detkit.utils.pictures import as_pil
from detkit.visualize.colors import class_color
from detkit.visualize.draw import draw_detections
from detkit.visualize.page import Figure

Color = tuple[int, int, int]
FORCED: Color = (0, 0, 0)
"""No class has it."""
IGNORED: Color = (90, 90, 90)
IN_REGION: Color = (170, 60, 200)
MINED: Color = (200, 20, 20)
FADED = 0.55
"""How far a picture is faded, so that thin lines show."""
MOST_DRAWN = 400
"""Anchors of one picture; of more, every n-th is drawn."""


def panels(matches: ImageMatches, classes: ClassMap, levels: Sequence[str], side: int) -> list[Figure]:
    """Ground truth, the positives of each level that has some, ignored and mined anchors; `side` pixels each."""
    targets = matches.sample.targets
    truth = draw_detections(matches.sample.image, targets, classes, side=side)
    regions = f", {plural(len(targets.ignore), 'ignore region')}" if len(targets.ignore) else ""
    figures = [Figure(truth, f"ground truth: {plural(len(targets.boxes), 'object')}{regions}")]
    for i, (name, counts) in enumerate(zip(levels, count_levels(matches, len(levels)), strict=True)):
        if counts.positive:
            forced = f", {counts.forced} of them forced (black)" if counts.forced else ""
            caption = f"{name}: {counts.positive} positive{forced}"
            figures.append(Figure(draw_positives(matches, matches.level == i, side), caption))
    total = count(matches)
    if total.ignored or total.in_region:
        caption = f"ignored: {total.ignored} by the assigner (grey), {total.in_region} in ignore regions (violet)"
        layers = [(matches.ignored, IGNORED), (matches.in_region & (matches.labels < -1), IN_REGION)]
        figures.append(Figure(draw_anchors(matches, layers, side), caption))
    if total.mined < total.background:
        caption = f"background in the class loss: {total.mined} of {total.background} anchors"
        mined = matches.background & matches.counted
        figures.append(Figure(draw_anchors(matches, [(mined, MINED)], side), caption))
    return figures


def draw_positives(matches: ImageMatches, chosen: Tensor, side: int) -> Image.Image:
    """The positives among some anchors, in the colours of their classes, with the objects; forced ones in black."""
    layers = [
        (chosen & (matches.labels == k), class_color(k)) for k in sorted(set(matches.sample.targets.labels.tolist()))
    ]
    layers = [(mask & ~matches.forced, color) for mask, color in layers]
    return draw_anchors(matches, [*layers, (chosen & matches.forced, FORCED)], side)


def draw_anchors(matches: ImageMatches, layers: Sequence[tuple[Tensor, Color]], side: int) -> Image.Image:
    """Anchors on the faded image, with the objects as thin black frames. layers: which anchors, in which colour."""
    picture = as_pil(matches.sample.image)
    scale = side / max(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    picture = Image.blend(picture, Image.new("RGB", picture.size, (255, 255, 255)), FADED)
    draw = ImageDraw.Draw(picture, "RGBA")
    for box in (matches.sample.targets.boxes * scale).tolist():
        draw.rectangle(box, outline=(0, 0, 0, 255), width=2)
    for mask, color in layers:
        anchors = matches.anchors[mask] * scale
        step = -(-len(anchors) // MOST_DRAWN) or 1
        for x1, y1, x2, y2 in anchors[::step].tolist():
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            draw.rectangle((x1, y1, x2, y2), outline=(*color, 110), width=1)
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(*color, 255))
    return picture

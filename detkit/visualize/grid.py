"""A sheet of pictures: ground truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from detkit.structures import ClassMap, Detections, Targets
from detkit.utils import outputs
from detkit.utils.console import printable
from detkit.visualize.colors import INK, MUTED, PAPER, class_color
from detkit.visualize.draw import draw_detections
from detkit.visualize.fonts import drawn_name, find_font

LEGEND = 13
"""Pixels of the letters of the legend."""


def picture_grid(
    rows: Sequence[tuple[Any, Targets, Detections]],
    classes: ClassMap,
    path: str | Path,
    *,
    min_score: float = 0.3,
    columns: int = 2,
    tile: int = 400,
    title: str = "",
    ledger: outputs.Ledger | None = None,
) -> Path:
    """Draws ground truth beside prediction for each (image, targets, detections), as one PNG.

    Boxes in pixels of the image. columns: pairs side by side. tile: pixels of one picture's longer side.
    ledger: of the folder, if any.
    """
    if not rows:
        raise ValueError("picture_grid needs at least one image")
    pairs = [
        [draw_detections(image, objects, classes, min_score=min_score, side=tile) for objects in (targets, detections)]
        for image, targets, detections in rows
    ]
    columns = min(columns, len(pairs))
    width, height = (max(p.size[k] for pair in pairs for p in pair) for k in (0, 1))
    gap, wide_gap, margin = 6, 28, 24
    head_font, title_font = find_font(14), find_font(20, title)
    inner_width = columns * (2 * width + gap) + (columns - 1) * wide_gap
    legend = _legend_rows(classes, inner_width)
    legend_top = margin + (38 if title else 0)
    top = legend_top + 24 * len(legend) + 12 + 24
    lines = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (inner_width + 2 * margin, top + lines * height + (lines - 1) * 14 + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin - 4), printable(title), fill=INK, font=title_font)
    for n, row in enumerate(legend):
        y = legend_top + 24 * n
        for x, label, name in row:
            if label >= 0:
                draw.rectangle((margin + x, y + 3, margin + x + 11, y + 14), fill=class_color(label))
            draw.text((margin + x + 18, y), name, fill=MUTED, font=find_font(LEGEND, name))
    for c in range(columns):
        x = margin + c * (2 * width + gap + wide_gap)
        for offset, text in ((0, "ground truth"), (width + gap, f"prediction (score ≥ {min_score:g})")):
            draw.text((x + offset, top - 22), text, fill=INK, font=head_font)
    for n, pair in enumerate(pairs):
        x = margin + (n % columns) * (2 * width + gap + wide_gap)
        for k, picture in enumerate(pair):
            sheet.paste(picture, (x + k * (width + gap), top + (n // columns) * (height + 14)))
    return outputs.write_png(path, sheet.save, ledger=ledger)


def _legend_rows(classes: ClassMap, width: int) -> list[list[tuple[int, int, str]]]:
    """Rows of (x, label, name), broken to `width`, of the first 20 classes."""
    rows: list[list[tuple[int, int, str]]] = [[]]
    x = 0
    for label, class_name in enumerate(classes.names[:20]):
        name = printable(drawn_name(class_name, label))
        wide = 18 + round(find_font(LEGEND, name).getlength(name)) + 18
        if x + wide > width and rows[-1]:
            rows.append([])
            x = 0
        rows[-1].append((x, label, name))
        x += wide
    if len(classes) > 20:
        rows[-1].append((x, -1, f"and {len(classes) - 20} more"))
    return rows

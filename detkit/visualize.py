"""Pictures for people: boxes on images, ground truth beside prediction, curves of a run."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkit.structures import ClassMap, Detections, Targets

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

Color = tuple[int, int, int]

INK: Color = (32, 36, 44)
PAPER: Color = (255, 255, 255)
MUTED: Color = (110, 118, 130)
FIRST_COLORS: tuple[Color, ...] = (
    (31, 119, 220), (230, 85, 13), (24, 150, 84), (200, 30, 100), (120, 80, 200),
    (0, 150, 170), (190, 140, 0), (140, 86, 75), (90, 110, 20), (214, 39, 40),
)  # fmt: skip


def class_color(label: int) -> Color:
    """The color of a class, the same in every picture: ten chosen by eye, then around the hue circle."""
    if label < len(FIRST_COLORS):
        return FIRST_COLORS[label]
    hue = (label * 0.618034) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, 0.42, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    image: Any,
    found: Detections | Targets,
    classes: ClassMap,
    *,
    min_score: float = 0.0,
    min_side: int = 0,
) -> PILImage:
    """A copy of the image (PIL, (H, W, 3) uint8 array or (3, H, W) uint8 tensor) with boxes and names.

    found: in pixels of that image; `Targets` have no scores, their ignore regions are drawn hatched.
    min_score: detections below it are left out. min_side: enlarge the picture until its shorter side
    has that many pixels, so that the names can be read.
    """
    from PIL import Image, ImageDraw

    picture = _as_pil(image)
    scale = max(1.0, min_side / min(picture.size))
    if scale > 1:
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
        )
    draw = ImageDraw.Draw(picture)
    size = max(11, round(min(picture.size) / 32))
    font, width = _font(size), max(2, round(min(picture.size) / 220))
    if isinstance(found, Targets):
        for box in found.ignore.tolist():
            _hatch(picture, [v * scale for v in box])
    entries = _entries(found, classes, min_score)
    # Large boxes first, so that small ones and their names stay visible.
    entries.sort(key=lambda e: -(e[0][2] - e[0][0]) * (e[0][3] - e[0][1]))
    boxes = [[v * scale for v in box] for box, _, _ in entries]
    for box, (_, label, _) in zip(boxes, entries, strict=True):
        draw.rectangle(_ordered(box), outline=class_color(label), width=width)
    taken: list[tuple[float, float, float, float]] = []
    for box, (_, label, text) in zip(boxes, entries, strict=True):
        _draw_name(draw, box, text, class_color(label), font, taken)
    return picture


def picture_grid(
    rows: Sequence[tuple[Any, Targets, Detections]],
    classes: ClassMap,
    path: str | Path,
    *,
    min_score: float = 0.3,
    columns: int = 2,
    tile: int = 360,
    title: str = "",
) -> Path:
    """Ground truth beside prediction, for each (image, targets, detections), as one PNG.

    Boxes in pixels of the image. columns: pairs side by side. tile: pixels of one picture's longer side.
    """
    from PIL import Image, ImageDraw

    if not rows:
        raise ValueError("picture_grid needs at least one image")
    pairs = [
        [_fit(draw_detections(i, t, classes, min_side=tile), tile),
         _fit(draw_detections(i, d, classes, min_score=min_score, min_side=tile), tile)]
        for i, t, d in rows
    ]  # fmt: skip
    columns = min(columns, len(pairs))
    width, height = (max(p.size[k] for pair in pairs for p in pair) for k in (0, 1))
    gap, wide_gap, margin = 6, 28, 24
    head_font, title_font, legend_font = _font(15), _font(22), _font(14)
    legend = _legend_rows(classes, legend_font, columns * (2 * width + gap) + (columns - 1) * wide_gap)
    top = margin + (38 if title else 0) + 24 * len(legend) + 12 + 24
    lines = -(-len(pairs) // columns)
    sheet = Image.new(
        "RGB",
        (
            2 * margin + columns * (2 * width + gap) + (columns - 1) * wide_gap,
            top + lines * height + (lines - 1) * 14 + margin,
        ),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    y = margin
    if title:
        draw.text((margin, y - 4), title, fill=INK, font=title_font)
        y += 38
    _draw_legend(draw, legend, (margin, y), legend_font)
    for c in range(columns):
        x = margin + c * (2 * width + gap + wide_gap)
        for offset, text in ((0, "ground truth"), (width + gap, f"prediction (score ≥ {min_score:g})")):
            draw.text((x + offset, top - 22), text, fill=INK, font=head_font)
    for n, pair in enumerate(pairs):
        x = margin + (n % columns) * (2 * width + gap + wide_gap)
        for k, picture in enumerate(pair):
            sheet.paste(picture, (x + k * (width + gap), top + (n // columns) * (height + 14)))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _as_pil(image: Any) -> PILImage:
    import numpy as np
    from PIL import Image

    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if hasattr(image, "permute"):
        image = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(image)).convert("RGB")


def _entries(
    found: Detections | Targets, classes: ClassMap, min_score: float
) -> list[tuple[list[float], int, str]]:
    """Box, label and text of everything that is to be drawn."""
    boxes, labels = found.boxes.tolist(), found.labels.tolist()
    if isinstance(found, Targets):
        return [(box, k, classes.names[k]) for box, k in zip(boxes, labels, strict=True)]
    return [
        (box, k, f"{classes.names[k]} {score:.2f}")
        for box, k, score in zip(boxes, labels, found.scores.tolist(), strict=True)
        if score >= min_score
    ]


def _ordered(box: list[float]) -> tuple[float, float, float, float]:
    """A box that PIL accepts, whatever a detector says."""
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _draw_name(
    draw: ImageDraw,
    box: list[float],
    text: str,
    color: Color,
    font: FreeTypeFont | ImageFont,
    taken: list[tuple[float, float, float, float]],
) -> None:
    """The name on a filled tag: above the box, or the first free place around it."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 5
    x1, y1, x2, y2 = _ordered(box)
    limit_x, limit_y = draw.im.size
    places = [(x1, y1 - high), (x1, y2), (x1, y1), (x2 - wide, y1 - high), (x2 - wide, y2), (x2, y1), (x1 - wide, y1)]

    def clamped(place: tuple[float, float]) -> tuple[float, float, float, float]:
        x = min(max(place[0], 0), max(limit_x - wide, 0))
        y = min(max(place[1], 0), max(limit_y - high, 0))
        return x, y, x + wide, y + high

    def overlap(tag: tuple[float, float, float, float]) -> float:
        return sum(
            max(0.0, min(tag[2], t[2]) - max(tag[0], t[0])) * max(0.0, min(tag[3], t[3]) - max(tag[1], t[1]))
            for t in taken
        )

    tag = min(map(clamped, places), key=overlap)
    taken.append(tag)
    draw.rectangle(tag, fill=color)
    draw.text((tag[0] + 3 - left, tag[1] + 2 - top), text, fill=PAPER, font=font)


def _hatch(picture: PILImage, box: list[float]) -> None:
    """Grey diagonal lines over an ignore region."""
    from PIL import Image, ImageDraw

    x1, y1, x2, y2 = (round(v) for v in _ordered(box))
    wide, high = max(1, x2 - x1), max(1, y2 - y1)
    mask = Image.new("L", (wide, high), 0)
    draw = ImageDraw.Draw(mask)
    for start in range(-high, wide, 9):
        draw.line((start, high, start + high, 0), fill=150, width=2)
    draw.rectangle((0, 0, wide - 1, high - 1), outline=220, width=2)
    picture.paste((235, 235, 235), (x1, y1), mask)


def _fit(picture: PILImage, tile: int) -> PILImage:
    from PIL import Image

    scale = tile / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _legend_rows(
    classes: ClassMap, font: FreeTypeFont | ImageFont, width: int
) -> list[list[tuple[int, int, str]]]:
    """Rows of (x, label, name), broken to `width`; beyond 20 classes a legend helps nobody."""
    rows: list[list[tuple[int, int, str]]] = [[]]
    x = 0
    for label, name in enumerate(classes.names[:20]):
        wide = 18 + round(font.getlength(name)) + 18
        if x + wide > width and rows[-1]:
            rows.append([])
            x = 0
        rows[-1].append((x, label, name))
        x += wide
    if len(classes) > 20:
        rows[-1].append((x, -1, f"and {len(classes) - 20} more"))
    return rows


def _draw_legend(
    draw: ImageDraw, rows: list[list[tuple[int, int, str]]], at: tuple[int, int], font: FreeTypeFont | ImageFont
) -> None:
    for n, row in enumerate(rows):
        y = at[1] + 24 * n
        for x, label, name in row:
            if label >= 0:
                draw.rectangle((at[0] + x, y + 3, at[0] + x + 11, y + 14), fill=class_color(label))
            draw.text((at[0] + x + 18, y), name, fill=MUTED, font=font)


def read_metrics(path: str | Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A run's metrics.jsonl -> training lines and evaluation lines, by step.

    After a resume a step can occur twice; the later line counts. A last line that was cut off by a
    crash is left out; any other bad line is an error that names it.
    """
    path = Path(path)
    train: dict[int, dict[str, Any]] = {}
    evals: dict[int, dict[str, Any]] = {}
    lines = path.read_text().splitlines()
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}:{number}: not JSON: {error}") from error
        if "eval" in line:
            evals[int(line["step"])] = line["eval"] | {"step": int(line["step"])}
        if "loss" in line:
            train[int(line["step"])] = line
    return [train[s] for s in sorted(train)], [evals[s] for s in sorted(evals)]


def plot_curves(metrics: str | Path, path: str | Path, *, title: str = "") -> Path:
    """Loss terms, learning rate and AP over steps, from metrics.jsonl, as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train, evals = read_metrics(metrics)
    if not train and not evals:
        raise ValueError(f"{metrics} holds neither training nor evaluation lines")
    figure = Figure(figsize=(13, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, lr_axes, ap_axes = figure.subplots(1, 3)
    _plot_losses(loss_axes, train)
    _plot_lr(lr_axes, train)
    _plot_ap(ap_axes, evals)
    for axes in (loss_axes, lr_axes, ap_axes):
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=13)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _hex(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*class_color(label))


def _smooth(values: list[float], span: int) -> list[float]:
    """Exponential mean of about `span` values, without the bias towards zero at the start."""
    keep = 1 - 1 / max(span, 1)
    total = weight = 0.0
    out = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        out.append(total / weight)
    return out


def _plot_losses(axes: Any, train: list[dict[str, Any]]) -> None:
    """Each term faint as measured and strong as a running mean."""
    axes.set_title("loss", fontsize=11)
    keys = ["loss", *sorted({k for line in train for k in line if k.startswith("loss_")})]
    for n, key in enumerate(keys):
        points = [(line["step"], line[key]) for line in train if line.get(key) is not None]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        name = "total" if key == "loss" else key.removeprefix("loss_").replace("_", " ")
        axes.plot(steps, values, color=_hex(n), alpha=0.25, linewidth=0.8)
        axes.plot(steps, _smooth(list(values), max(1, len(values) // 25)), color=_hex(n), linewidth=1.8, label=name)
    if axes.lines:
        axes.legend(frameon=False)
        if all(y > 0 for line in axes.lines for y in line.get_ydata()):
            axes.set_yscale("log")


def _plot_lr(axes: Any, train: list[dict[str, Any]]) -> None:
    axes.set_title("learning rate", fontsize=11)
    points = [(line["step"], line["lr"]) for line in train if line.get("lr") is not None]
    if points:
        axes.plot(*zip(*points, strict=True), color=_hex(4), linewidth=1.8)
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _plot_ap(axes: Any, evals: list[dict[str, Any]]) -> None:
    axes.set_title("average precision on the validation images", fontsize=11)
    axes.set_ylim(0, 1)
    for n, (key, name) in enumerate((("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75"))):
        points = [(line["step"], line[key]) for line in evals if line.get(key) is not None]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=_hex(n), marker="o", markersize=4, label=f"{name} {values[-1]:.3f}")
    if axes.lines:
        axes.legend(frameon=False, loc="lower right")
    else:
        axes.text(0.5, 0.5, "no evaluation yet", ha="center", va="center", transform=axes.transAxes)

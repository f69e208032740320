"""Drawing of one synthetic image: background, clutter, shapes, crowd. Pillow draws, numpy mixes.

Only integers and a few scalar sines go into pixels, so that a seed gives the same picture on every machine.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from detkit.utils.types import Ints

OVERSAMPLING = 3
LEAST_VISIBLE = 0.7
"""Fraction of an object that later ones must leave uncovered."""
SMALLEST, LARGEST = 12.0, 96.0
CROWD = -2
"""Owner of the pixels of a crowd, which no object may cover."""
Point = tuple[float, float]
Mask = NDArray[np.uint8]


@dataclass
class Scene:
    """An image (size, size, 3) uint8 and its objects: boxes xyxy px, labels, crowd flags, areas in px."""

    pixels: NDArray[np.uint8]
    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    is_crowd: list[bool] = field(default_factory=list)
    area: list[float] = field(default_factory=list)


def rotate(points: list[Point], angle: float) -> list[Point]:
    """Rotates points in the unit disc around its centre and moves them to [0, 1] x [0, 1]."""
    c, s = math.cos(angle), math.sin(angle)
    return [(0.5 + 0.5 * (c * x - s * y), 0.5 + 0.5 * (s * x + c * y)) for x, y in points]


def on_circle(n: int, radius: float = 1.0, start: float = 0.0) -> list[Point]:
    """n points spread evenly over a circle."""
    angles = [2 * math.pi * i / n + start for i in range(n)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def polygon(points: list[Point]) -> Callable[[ImageDraw.ImageDraw, float, float], None]:
    """A function that draws one closed shape."""

    def draw(canvas: ImageDraw.ImageDraw, side: float, angle: float) -> None:
        canvas.polygon([(x * side, y * side) for x, y in rotate(points, angle)], fill=255)

    return draw


def disc(canvas: ImageDraw.ImageDraw, side: float, angle: float) -> None:
    canvas.ellipse((0, 0, side, side), fill=255)


def ring(canvas: ImageDraw.ImageDraw, side: float, angle: float) -> None:
    canvas.ellipse((0, 0, side, side), fill=255)
    canvas.ellipse((side * 0.27, side * 0.27, side * 0.73, side * 0.73), fill=0)


def moon(canvas: ImageDraw.ImageDraw, side: float, angle: float) -> None:
    canvas.ellipse((0, 0, side, side), fill=255)
    dx, dy = 0.42 * side * math.cos(angle), 0.42 * side * math.sin(angle)
    canvas.ellipse((side * 0.1 + dx, side * 0.1 + dy, side * 0.9 + dx, side * 0.9 + dy), fill=0)


STAR = [p for pair in zip(on_circle(5), on_circle(5, 0.42, math.pi / 5), strict=True) for p in pair]
ARM = [(0.32, 0.95), (0.32, 0.32), (0.95, 0.32)]
CROSS = [*ARM, *((x, -y) for x, y in ARM[::-1]), *((-x, -y) for x, y in ARM), *((-x, y) for x, y in ARM[::-1])]
SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, float, float], None]] = {
    "circle": disc,
    "star": polygon(STAR),
    "ring": ring,
    "square": polygon(on_circle(4)),
    "moon": moon,
    "cross": polygon(CROSS),
    "triangle": polygon(on_circle(3)),
}
DRAWERS = list(SHAPES.values())
HUE_SPREAD = 0.06
"""Half the range of a kind's hues, in circles: with seven kinds, those of neighbours almost touch, and the noise
mixes them."""


def draw_scene(rng: Generator, size: int) -> Scene:
    """Draws one image with its objects."""
    scene = Scene(background(rng, size))
    add_clutter(rng, scene.pixels)
    kind = rng.random()
    if kind < 1 / 12:
        return scene
    owner = np.full((size, size), -1, dtype=np.int16)
    if kind < 2 / 12:
        add_crowd(rng, scene, owner)
    full_areas: list[int] = [0] * len(scene.boxes)
    for _ in range(1 + min(int(rng.exponential(3.0)), 9)):
        add_object(rng, scene, owner, full_areas)
    return scene


def background(rng: Generator, size: int) -> NDArray[np.uint8]:
    """Draws (size, size, 3): clouds of two scales, often stripes or checks, fine noise."""
    cells = int(rng.integers(2, 9))
    coarse = Image.fromarray(rng.integers(30, 226, (cells, cells, 3), dtype=np.uint8))
    clouds = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)).astype(np.int16)
    base = rng.integers(40, 216, 3)
    mixed = (clouds * int(rng.integers(20, 61)) + base * 40) // 100
    pattern = rng.random()
    if pattern < 0.6:
        y, x = np.mgrid[0:size, 0:size]
        a, b, period = int(rng.integers(-3, 4)), int(rng.integers(1, 4)), int(rng.integers(9, 40))
        wave = ((a * x + b * y) // period) % 2
        if pattern < 0.3:
            wave = wave ^ (((b * x - a * y) // period) % 2)
        mixed = mixed + wave[..., None] * rng.integers(-22, 23, 3)
    mixed = mixed + rng.integers(-9, 10, (size, size, 1))
    return mixed.clip(0, 255).astype(np.uint8)


def add_clutter(rng: Generator, pixels: NDArray[np.uint8]) -> None:
    """Draws lines, arcs and thin blobs that are not objects over `pixels` in place."""
    size = len(pixels)
    image = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 12))):
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        x, y, length = (float(v) for v in (*rng.uniform(0, size, 2), rng.uniform(12, 70)))
        kind, width = int(rng.integers(0, 3)), int(rng.integers(1, 4))
        if kind == 0:
            angle = rng.uniform(0, math.pi)
            canvas.line((x, y, x + length * math.cos(angle), y + length * math.sin(angle)), fill=colour, width=width)
        elif kind == 1:
            start = int(rng.integers(0, 360))
            end = start + int(rng.integers(30, 100))
            canvas.arc((x, y, x + length, y + length), start, end, fill=colour, width=width)
        else:
            canvas.ellipse((x, y, x + length, y + length / 6), fill=colour)
    pixels[:] = np.asarray(image)


def mask_of(shape: int, side: float, angle: float) -> Mask:
    """Coverage 0..255 of a shape of `side` px diameter, cropped to its extent."""
    fine = math.ceil(side) * OVERSAMPLING
    image = Image.new("L", (fine, fine))
    DRAWERS[shape](ImageDraw.Draw(image), side * OVERSAMPLING - 1, angle)
    mask = np.asarray(image.resize((fine // OVERSAMPLING,) * 2, Image.Resampling.BOX))
    return crop_to_extent(mask)


def crop_to_extent(mask: Mask) -> Mask:
    """The mask without empty rows and columns at its edges."""
    rows, columns = np.flatnonzero((mask > 127).any(axis=1)), np.flatnonzero((mask > 127).any(axis=0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def colour_of(rng: Generator, shape: int) -> Ints:
    """A random colour of a kind of shape, RGB 0..255."""
    hue = (shape / len(DRAWERS) + float(rng.uniform(-HUE_SPREAD, HUE_SPREAD))) % 1.0
    rgb = colorsys.hsv_to_rgb(hue, float(rng.uniform(0.55, 1.0)), float(rng.uniform(0.55, 1.0)))
    return np.array([round(255 * v) for v in rgb], dtype=np.int64)


def paint(rng: Generator, pixels: NDArray[np.uint8], shape: int, mask: Mask, x: int, y: int) -> None:
    """Blends a textured colour into `pixels` in place, where the mask at (x, y) covers it."""
    height, width = mask.shape
    region = pixels[y : y + height, x : x + width]
    around = region.reshape(-1, 3).mean(axis=0).astype(np.int64)
    colour = colour_of(rng, shape)
    for _ in range(8):
        if np.abs(colour - around).sum() >= 110:
            break
        colour = colour_of(rng, shape)
    texture = np.broadcast_to(colour, (height, width, 3)) + rng.integers(-14, 15, (height, width, 1))
    if rng.random() < 0.5:
        slope = rng.integers(-50, 51, 3)
        ramp = np.arange(height)[:, None, None] - height // 2
        texture = texture + slope * ramp // max(height, 1)
    alpha = mask[..., None].astype(np.int64)
    mixed = (texture.clip(0, 255) * alpha + region.astype(np.int64) * (255 - alpha)) // 255
    region[:] = mixed.astype(np.uint8)


def random_shape(rng: Generator, low: float, high: float) -> tuple[int, Mask]:
    """A random kind and its mask; the logarithm of the diameter is uniform, half of the masks are squeezed."""
    shape = int(rng.integers(len(DRAWERS)))
    side = low * (high / low) ** float(rng.random())
    return shape, squeeze(rng, mask_of(shape, side, float(rng.uniform(0, 2 * math.pi))))


def squeeze(rng: Generator, mask: Mask) -> Mask:
    """Shortens one side of the mask by up to a quarter, every second time."""
    if rng.random() < 0.5 or min(mask.shape) < 10:
        return mask
    scale, axis = float(rng.uniform(0.75, 1.0)), int(rng.integers(2))
    height, width = mask.shape
    to = (max(4, int(width * scale)), height) if axis else (width, max(4, int(height * scale)))
    return crop_to_extent(np.asarray(Image.fromarray(mask).resize(to, Image.Resampling.BOX)))


def add_object(rng: Generator, scene: Scene, owner: NDArray[np.int16], full_areas: list[int]) -> None:
    """Paints one more object, unless each of a few random positions would hide too much of an earlier one."""
    size = len(owner)
    shape, mask = random_shape(rng, SMALLEST, min(LARGEST, size * 0.6))
    height, width = mask.shape
    solid = mask > 127
    for _ in range(6):
        x, y = int(rng.integers(0, size - width + 1)), int(rng.integers(0, size - height + 1))
        window = owner[y : y + height, x : x + width]
        hidden = window[solid]
        if (hidden == CROWD).any() or not leaves_enough(hidden, owner, full_areas):
            continue
        window[solid] = len(scene.boxes)
        paint(rng, scene.pixels, shape, mask, x, y)
        scene.boxes.append([float(x), float(y), float(x + width), float(y + height)])
        scene.labels.append(shape)
        scene.is_crowd.append(False)
        scene.area.append(float(solid.sum()))
        full_areas.append(int(solid.sum()))
        return


def leaves_enough(hidden: NDArray[np.int16], owner: NDArray[np.int16], full_areas: list[int]) -> bool:
    """Whether every object stays visible enough after losing the pixels whose owners are `hidden`."""
    return all(
        int((owner == index).sum()) - int((hidden == index).sum()) >= LEAST_VISIBLE * full_areas[index]
        for index in np.unique(hidden[hidden >= 0]).tolist()
    )


def add_crowd(rng: Generator, scene: Scene, owner: NDArray[np.int16]) -> None:
    """A patch of many small shapes of one kind, painted over each other; annotated as one crowd region."""
    size = len(owner)
    side = int(rng.integers(size // 4, size // 2))
    left, top = (int(v) for v in rng.integers(0, size - side + 1, 2))
    shape = int(rng.integers(len(DRAWERS)))
    for _ in range(side * side // 70):
        mask = mask_of(shape, float(rng.uniform(8, 15)), float(rng.uniform(0, 2 * math.pi)))
        height, width = mask.shape
        x, y = left + int(rng.integers(0, side - width + 1)), top + int(rng.integers(0, side - height + 1))
        paint(rng, scene.pixels, shape, mask, x, y)
    owner[top : top + side, left : left + side] = CROWD
    scene.boxes.append([float(left), float(top), float(left + side), float(top + side)])
    scene.labels.append(shape)
    scene.is_crowd.append(True)
    scene.area.append(float(side * side))

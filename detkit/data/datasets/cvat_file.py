"""The XML of CVAT (docs.cvat.ai, "XML annotation format"): of single images, and of the tracks of a video."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

from detkit.data.datasets.entries import (
    Box,
    around,
    around_ellipse,
    around_turned,
    has_ignore_flag,
    integer_at,
    is_true,
    number_at,
    size_at,
    text_at,
)
from detkit.data.datasets.file_formats import describe_xml_root
from detkit.data.datasets.image_finder import ImageFinder
from detkit.data.datasets.problems import FROM_OUTLINE, INTERPOLATED, NO_BOX, Problems
from detkit.data.datasets.records import ImageRecord
from detkit.data.datasets.voc_file import parse
from detkit.utils.console import printable, shorten_list

WITHOUT_BOX = ("polyline", "points", "tag", "skeleton")
CUBOID = [f"{corner}{side}" for side in (1, 2) for corner in ("tl", "bl", "tr", "br")]


@dataclass(frozen=True)
class Shape:
    """An object in an image or frame: class, box, whether it is an ignore region."""

    name: str
    box: Box
    ignore: bool


def read_cvat(path: str) -> Element:
    """The root element; FileNotFoundError or ValueError that names the file and what it is instead."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"annotation file not found: {path}")
    try:
        root = parse(Path(path).read_bytes())
        if root.tag != "annotations":
            raise ValueError(f"{describe_xml_root(root.tag)}; the root of CVAT's is <annotations>")
        if root.find("image") is None and root.find("track") is None and root.find("meta") is None:
            raise ValueError("it has neither <image> nor <track> elements")
    except ValueError as error:
        raise ValueError(f"{path}: not an annotation file of CVAT: {error}") from None
    return root


def declared_classes(root: Element) -> list[str]:
    """The labels of the task or project, in order, without the parts of skeletons."""
    labels = [label for meta in root.iterfind("meta") for label in meta.iter("label")]
    whole = [label for label in labels if not (label.findtext("parent") or "").strip()]
    return [name for label in whole if (name := (label.findtext("name") or "").strip())]


def subsets(root: Element) -> list[str]:
    """The subsets of a project's images, by name."""
    return sorted({image.get("subset") or "" for image in root.iterfind("image")} - {""})


def image_records(
    root: Element, name: str, subset: str | None, finder: ImageFinder, problems: Problems
) -> list[ImageRecord]:  # fmt: skip
    """The record of each <image>."""
    records = []
    for i, image in enumerate(root.iterfind("image"), start=1):
        if subset is not None and image.get("subset") != subset:
            continue
        file = text_at(image.attrib, "name", f"{name}: image {i}")
        source = f"image {image.get('id', i)} ({file})"
        shapes = list(shapes_of(image, f"{name}: {source}", problems))
        size = size_at(image.attrib, "height", "width")
        records.append(record(finder.find(file, f"{name}: {source}"), shapes, size, source))
    return records


def record(path: str, shapes: Sequence[Shape], size: tuple[int, int], source: str) -> ImageRecord:
    boxes, names, ignore = [s.box for s in shapes], [s.name for s in shapes], [s.ignore for s in shapes]
    return ImageRecord(path=path, boxes=boxes, names=names, size=size, is_ignore=ignore, source=source)


def shapes_of(image: Element, where: str, problems: Problems) -> Iterable[Shape]:
    """The objects of an <image>, in order."""
    for i, element in enumerate(image, start=1):
        spot = f"{where}, {element.tag} {i}"
        box = box_of(element, spot, problems)
        if box is not None:
            yield Shape(text_at(element.attrib, "label", spot), box, is_ignored(element))


def box_of(element: Element, where: str, problems: Problems) -> Box | None:
    """The box of a shape; None, counted, for one without. ValueError for an element that is unknown."""
    if element.tag in WITHOUT_BOX:
        problems.add(NO_BOX, where)
        return None
    if element.tag not in OUTLINES:
        raise ValueError(f"{where}: unknown element <{element.tag}>; known: {', '.join([*OUTLINES, *WITHOUT_BOX])}")
    box = OUTLINES[element.tag](element, where)
    turn = number_at(element.attrib, "rotation", where) if element.tag == "box" and "rotation" in element.attrib else 0
    if element.tag != "box" or turn:
        problems.add(FROM_OUTLINE, where)
    return around_turned(box, turn) if turn else box


def is_ignored(element: Element) -> bool:
    """Whether an attribute such as `difficult` is set."""
    return has_ignore_flag({a.get("name"): a.text for a in element.iterfind("attribute")})


def corners(element: Element, where: str) -> Box:
    return [number_at(element.attrib, key, where) for key in ("xtl", "ytl", "xbr", "ybr")]


def polygon(element: Element, where: str) -> Box:
    text = element.get("points") or ""
    try:
        points = [tuple(map(float, pair.split(","))) for pair in text.split(";")]
        return around([(x, y) for x, y in points])
    except ValueError:
        raise ValueError(f"{where}: points are {text[:60]!r}, not pairs as in 1.0,2.0;3.0,4.0") from None


def ellipse(element: Element, where: str) -> Box:
    x, y, rx, ry = (number_at(element.attrib, key, where) for key in ("cx", "cy", "rx", "ry"))
    return around_ellipse(
        x, y, rx, ry, number_at(element.attrib, "rotation", where) if "rotation" in element.attrib else 0
    )


def mask(element: Element, where: str) -> Box:
    x, y, width, height = (number_at(element.attrib, key, where) for key in ("left", "top", "width", "height"))
    return [x, y, x + width, y + height]


def cuboid(element: Element, where: str) -> Box:
    values = element.attrib
    return around([(number_at(values, f"x{c}", where), number_at(values, f"y{c}", where)) for c in CUBOID])


OUTLINES: dict[str, Callable[[Element, str], Box]] = {
    "box": corners, "polygon": polygon, "ellipse": ellipse, "mask": mask, "cuboid": cuboid,
}  # fmt: skip


def frame_records(root: Element, name: str, finder: ImageFinder, problems: Problems) -> list[ImageRecord]:
    """The record of each frame of a video that has an image file, and of each with objects."""
    tasks = {track.get("task_id") for track in root.iterfind("track")}
    if len(tasks) > 1:
        raise ValueError(f"{name}: tracks of {len(tasks)} videos, whose frames have the same numbers: export each task")
    files = frame_files(finder, name)
    wanted = annotated_frames(root, name)
    frames = [frame for frame in sorted(files) if wanted(frame)]
    shapes: dict[int, list[Shape]] = {frame: [] for frame in frames}
    for i, track in enumerate(root.iterfind("track"), start=1):
        where = f"{name}: track {track.get('id', i)}"
        for frame, shape in track_shapes(track, frames, where, problems):
            shapes.setdefault(frame, []).append(shape)
    original = root.find("meta//original_size")
    sides = {} if original is None else {child.tag: (child.text or "").strip() for child in original}
    missing = {frame: str(finder.folder / f"frame_{frame:06d}.PNG") for frame in shapes if frame not in files}
    return [
        record({**files, **missing}[frame], shapes[frame], size_at(sides, "height", "width"), f"frame {frame}")
        for frame in sorted(shapes)
    ]


def frame_files(finder: ImageFinder, name: str) -> dict[int, str]:
    """Frame number -> image, by the digits at the end of its name; ValueError if there are none, or several."""
    files: dict[int, list[str]] = {}
    for paths in finder.by_name.values():
        for path in paths:
            if digits := re.search(r"(\d{1,18})$", Path(path).stem):
                files.setdefault(int(digits[1]), []).append(path)
    if not files:
        raise ValueError(
            f"{name}: tracks of a video, but {printable(finder.folder)} has no images whose names end with the "
            "number of a frame. Export the task with images, or make them from the video: "
            "ffmpeg -i VIDEO -start_number 0 frame_%06d.png"
        )
    for number, paths in files.items():
        if len(paths) > 1:
            raise ValueError(
                f"{name}: several images are frame {number}: {shorten_list([printable(p) for p in paths], 3)}"
            )
    return {number: str(finder.folder / paths[0]) for number, paths in files.items()}


def annotated_frames(root: Element, name: str) -> Callable[[int], bool]:
    """Whether a frame is one of the task's, by its first and last frame and its step."""
    meta = root.find("meta/task")
    meta = root.find("meta/job") if meta is None else meta
    texts = {child.tag: (child.text or "").strip() for child in (meta if meta is not None else ())}
    numbers = [integer_at(s.attrib, "frame", name) for s in root.iterfind("track/*") if "frame" in s.attrib]
    first, last = min(numbers, default=0), max(numbers, default=0)
    if texts.get("start_frame") and texts.get("stop_frame"):
        first, last = (integer_at(texts, key, f"{name}: meta") for key in ("start_frame", "stop_frame"))
    elif texts.get("size"):
        first, last = 0, integer_at(texts, "size", f"{name}: meta") - 1
    step = int(found[1]) if (found := re.search(r"step\s*=\s*([1-9]\d*)", texts.get("frame_filter", ""))) else 1
    return lambda frame: first <= frame <= last and (frame - first) % step == 0


def track_shapes(
    track: Element, frames: Sequence[int], where: str, problems: Problems
) -> Iterable[tuple[int, Shape]]:  # fmt: skip
    """(frame, object) of a track; between keyframes that leave frames out, boxes are interpolated."""
    label = text_at(track.attrib, "label", where)
    boxes: dict[int, tuple[Box, bool] | None] = {}
    for element in track:
        if element.tag == "attribute":
            continue
        frame = integer_at(element.attrib, "frame", where)
        box = box_of(element, f"{where}, frame {frame}", problems)
        gone = is_true(element.get("outside")) or box is None
        boxes[frame] = None if gone or box is None else (box, is_ignored(element) or is_ignored(track))
    yield from ((frame, Shape(label, *value)) for frame, value in boxes.items() if value is not None)
    for first, second in pairwise(sorted(boxes)):
        between = frames[bisect_right(frames, first) : bisect_left(frames, second)]
        if between and boxes[first] is not None:
            yield from fill(boxes, first, second, between, label, where, problems)


def fill(
    boxes: Mapping[int, tuple[Box, bool] | None], first: int, second: int, between: Sequence[int], label: str,
    where: str, problems: Problems,
) -> Iterable[tuple[int, Shape]]:  # fmt: skip
    """The boxes between two keyframes: on a straight line, or that of the first where the second ends the track."""
    (start, ignore), end = boxes[first] or ([], False), boxes[second] or boxes[first] or ([], False)
    for frame in between:
        part = (frame - first) / (second - first)
        box = [a + (b - a) * part for a, b in zip(start, end[0], strict=True)]
        problems.add(INTERPOLATED, f"{where}, frame {frame}, between {first} and {second}")
        yield frame, Shape(label, box, ignore)

"""What a predictor finds in one image: boxes with names, and the ways out to other libraries."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from detkit.boxes import to_xywh
from detkit.data.datasets.images import ImageOptions, read_image, to_rgb
from detkit.structures import ClassMap
from detkit.structures import Detections as PlainDetections
from detkit.utils.console import plural, shorten_list
from detkit.utils.pictures import as_pil
from detkit.utils.types import Tree
from detkit.visualize import draw_detections

if TYPE_CHECKING:
    import pandas
    import supervision

ImageInput: TypeAlias = "str | os.PathLike[str] | Image | NDArray[Any] | Tensor"
"""A path, a PIL image, an array (H, W[, 3]) or a tensor (3, H, W); uint8 is 0..255, floating point 0..1; RGB."""
Rows: TypeAlias = "slice | Tensor | NDArray[Any] | Sequence[bool] | Sequence[int]"
"""What selects detections: a slice, a mask, or indices."""


@dataclass(frozen=True)
class Detection:
    """One detected object: box (x1, y1, x2, y2) in pixels of the image, score in [0, 1], label, class name."""

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str


@dataclass(repr=False, eq=False)
class Detections(PlainDetections):
    """The detected objects of one image, best first.

        for detection in detections: detection.name, detection.score, detection.box
        detections[detections.scores > 0.6].draw().save("found.png")

    boxes: (N, 4) xyxy pixels of the image. scores: (N,). labels: (N,), 0..K-1. classes: names and category ids of the
    labels. source: the image as it was given. image_options: how a file is read.
    """

    classes: ClassMap
    source: ImageInput
    image_options: ImageOptions = field(default_factory=ImageOptions)

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.classes.names[label] for label in self.labels.tolist()]

    @property
    def path(self) -> str | None:
        """The file of the image; None if the image was not given by its path."""
        return os.fspath(self.source) if isinstance(self.source, (str, os.PathLike)) else None

    @cached_property
    def image(self) -> Image:
        """The image in RGB. A file is read when this is first asked for."""
        return open_image(self.source, self.image_options)

    def __repr__(self) -> str:
        listed = shorten_list([f"{d.name} {d.score:.2f}" for d in self], 5)
        where = f" in {self.path}" if self.path else ""
        return f"<{plural(len(self), 'detection')}{where}{': ' if listed else ''}{listed}>"

    def __iter__(self) -> Iterator[Detection]:
        for box, score, label in zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True):
            x1, y1, x2, y2 = box
            yield Detection((x1, y1, x2, y2), score, label, self.classes.names[label])

    @overload
    def __getitem__(self, which: int) -> Detection: ...

    @overload
    def __getitem__(self, which: Rows) -> Detections: ...

    def __getitem__(self, which: int | Rows) -> Detection | Detections:
        """The detection of an index, or those of a slice, a mask (N,) or indices."""
        if isinstance(which, slice):
            return self._rows(torch.tensor(range(len(self))[which], dtype=torch.int64))
        if isinstance(which, int) or getattr(which, "ndim", 1) == 0:
            number = range(len(self))[cast("int", which)]  # IndexError for one that is not there
            return next(iter(self._rows(torch.tensor([number]))))
        rows = torch.as_tensor(which, device=self.labels.device)
        if rows.dtype == torch.bool and rows.shape != self.labels.shape:
            raise IndexError(f"a mask of {tuple(rows.shape)} for {len(self)} detections")
        return self._rows(rows if len(rows) else rows.long())

    def _rows(self, rows: Tensor) -> Detections:
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows])

    def draw(self, *, min_score: float = 0.0) -> Image:
        """A copy of the image with boxes, names and scores. min_score: lowest score that is drawn."""
        return draw_detections(self.image, self, self.classes, min_score=min_score)

    def to_coco(self, image_id: int = 0) -> list[Tree]:
        """COCO results: `bbox` as x, y, width, height; `category_id` as in the annotations of the training data.

        image_id: the image's id in the annotation file; 0 is right for a single image only.
        """
        boxes = to_xywh(self.boxes.double().cpu().numpy()).tolist()
        return [
            {
                "image_id": image_id,
                "category_id": self.classes.ids[d.label],
                "category_name": d.name,
                "bbox": box,
                "score": d.score,
            }
            for d, box in zip(self, boxes, strict=True)
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """A table with the columns x1, y1, x2, y2, score, label, name."""
        pandas = _library("pandas")
        columns = dict(zip(("x1", "y1", "x2", "y2"), self.boxes.cpu().numpy().T, strict=True))
        labels = {"score": self.scores.cpu().numpy(), "label": self.labels.cpu().numpy(), "name": self.names}
        return pandas.DataFrame({**columns, **labels})

    def to_supervision(self) -> supervision.Detections:
        """A `supervision.Detections`, with the class names as `data["class_name"]`."""
        values = {
            "xyxy": self.boxes.float().cpu().numpy(),
            "confidence": self.scores.float().cpu().numpy(),
            "class_id": self.labels.cpu().numpy(),
            "data": {"class_name": np.array(self.names, dtype=str)},
        }
        return cast("supervision.Detections", _library("supervision").Detections(**values))


def open_image(image: ImageInput, options: ImageOptions | None = None) -> Image:
    """An image of any kind as an RGB PIL image."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(os.fspath(image), options)
    return to_rgb(image) if isinstance(image, Image) else as_pil(image)


def _library(name: str) -> Any:
    """An optional library; ImportError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs the package {name}: pip install 'detkit[{name}]' ({error})") from error

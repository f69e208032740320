"""Inference on paths, PIL images, arrays and tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from PIL.Image import Image

from detkit.config import Config, Overrides
from detkit.data.datasets.images import ImageOptions
from detkit.data.transforms.base import Transform
from detkit.detectors.dense import DenseDetector
from detkit.predict.backend import Backend, open_exported
from detkit.predict.batches import Batcher
from detkit.predict.detections import Detections, ImageInput, open_image
from detkit.predict.detector import DetectorBackend, load_detector
from detkit.predict.views import Views
from detkit.structures import ClassMap


class Predictor:
    """Runs a detector on images: `detkit.load("runs/quickstart")(["a.jpg"])`, or `Predictor(model, classes=[...])`.

    Args:
        detector: what `detkit.build` or a checkpoint gives, or another `Backend`, which brings its own classes.
        config: whose `data.val.transforms` and image settings apply; None for the one that the detector was built of.
        classes: of the training data, or their names; None for "class 0", "class 1", ...
        batch_size: images per forward pass.
        views: tiles, scales and flips in which every image is looked at; None for the image alone.
    """

    def __init__(
        self,
        detector: DenseDetector | Backend,
        config: Config | None = None,
        classes: ClassMap | Sequence[str] | None = None,
        *,
        batch_size: int = 8,
        views: Views | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} must be at least 1")
        if isinstance(detector, DenseDetector):
            detector = DetectorBackend(detector, config, classes)
        elif config is not None or classes is not None:
            raise ValueError("config, classes: the file of the network has its own; leave them out")
        self.backend: Backend = detector
        self.batch_size, self.views = batch_size, views or Views()

    @property
    def classes(self) -> ClassMap:
        """Names and category ids of the labels."""
        return self.backend.classes

    @property
    def image_options(self) -> ImageOptions:
        """How image files are read."""
        return self.backend.rules.images

    @property
    def transforms(self) -> Sequence[Transform]:
        """What an image goes through before the network."""
        return self.backend.rules.transforms

    @property
    def detector(self) -> DenseDetector:
        """The detector; ValueError if the network is an exported file."""
        return self._own.detector

    @property
    def config(self) -> Config:
        """The detector's config; ValueError if the network is an exported file."""
        return self._own.config

    @property
    def device(self) -> torch.device:
        """The device that the detector is on; ValueError if the network is an exported file."""
        return self._own.device

    @property
    def _own(self) -> DetectorBackend:
        if not isinstance(self.backend, DetectorBackend):
            raise ValueError("this predictor runs an exported file, which has no detector and no config: load the run")
        return self.backend

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        *,
        device: str = "auto",
        overrides: Overrides = (),
        batch_size: int = 8,
        views: Views | None = None,
    ) -> Predictor:
        """Loads a checkpoint, the best one of a run folder, an exported file, or what else `load_any` reads."""
        if (exported := open_exported(os.fspath(checkpoint), device)) is not None:
            return cls(exported, batch_size=batch_size, views=views)
        return cls(*load_detector(checkpoint, device=device, overrides=overrides), batch_size=batch_size, views=views)

    def __call__(self, images: ImageInput | Iterable[ImageInput]) -> list[Detections]:
        """Returns one `Detections` per image, on the CPU, in pixels of the given image.

        images: one image, a batch, or an iterable of them. An image is a path, a PIL image, an array (H, W, 3) or
        (H, W), or a tensor (3, H, W) or (H, W), RGB; a batch is an array (B, H, W, 3) or a tensor (B, 3, H, W). The
        type of the numbers says what they mean: uint8 is 0..255, floating point 0..1.
        """
        return [detections for detections, _ in self.stream(images)]

    def stream(self, images: ImageInput | Iterable[ImageInput]) -> Iterator[tuple[Detections, Image]]:
        """Yields detections image by image, in order, each with its PIL image.

        Images whose inputs have one padded size share a batch. At most four batches of images are in memory, and
        little more than 64 million pixels.
        """
        opened = ((image, open_image(image, self.image_options)) for image in one_by_one(images))
        for source, image, plain in Batcher(self.backend, self.views, self.batch_size).stream(opened):
            found = Detections(plain.boxes, plain.scores, plain.labels, self.classes, source, self.image_options)
            yield found, image

    def slicer_callback(self, *, channels: Literal["BGR", "RGB"] = "BGR") -> Callable[[Any], Any]:
        """What `supervision.InferenceSlicer(callback=...)` calls: an array (H, W, 3), or a list of them for its
        `batch_size`, to `supervision.Detections`.

        channels: their order in the arrays; BGR is that of images that OpenCV reads, as supervision's are.
        """
        if channels not in ("BGR", "RGB"):
            raise ValueError(f"channels: {channels!r} must be BGR or RGB")
        step = -1 if channels == "BGR" else 1

        def callback(tiles: Any) -> Any:
            if isinstance(tiles, list):
                return [found.to_supervision() for found in self([tile[..., ::step] for tile in tiles])]
            return self(tiles[..., ::step])[0].to_supervision()

        return callback


def one_by_one(images: ImageInput | Iterable[ImageInput]) -> Iterator[ImageInput]:
    """Yields the images of one image, a batch of them (4 axes), or an iterable of images and batches."""
    is_single = isinstance(images, (str, os.PathLike, Image)) or getattr(images, "ndim", 4) < 4
    if is_single or not isinstance(images, Iterable):  # what can't be an image is refused where it is opened
        yield cast("ImageInput", images)
    elif hasattr(images, "ndim"):
        yield from images
    else:
        for image in images:
            yield from one_by_one(image)

"""Inference on paths, PIL images, arrays and tensors."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from PIL.Image import Image

from detkit.config import Config, Overrides
from detkit.config.raw import short_path
from detkit.data.build import build_transforms
from detkit.data.loader import collate_images
from detkit.data.transforms.base import transform_image
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.interop.load import load_any
from detkit.predict.detections import Detections, ImageInput, open_image
from detkit.predict.rescale import to_original
from detkit.structures import ClassMap
from detkit.structures import Detections as PlainDetections
from detkit.utils.console import plural


def load_detector(
    checkpoint: str | Path, *, device: str = "auto", overrides: Overrides = ()
) -> tuple[DenseDetector, Config, ClassMap]:
    """What `detkit.interop.load_any` reads -> detector in eval mode, its config, its classes.

    overrides: `key=value` for settings that do not change weights (`postprocess.score_threshold=0.3`).
    Loads the averaged weights (EMA) if the run kept them.
    """
    saved = load_any(checkpoint)
    name = short_path(saved.path) if saved.path else str(checkpoint)
    config = Config.from_dict(saved.config, overrides, name=name)
    detector = build_detector(config, len(saved.classes))
    try:
        detector.load_state_dict(saved.weights)
    except RuntimeError as error:
        raise ValueError(f"{name}: the weights don't fit its config: {error}") from error
    return detector.to(resolve_device(device)).eval(), config, saved.classes


def resolve_device(name: str) -> torch.device:
    """`auto` -> the GPU if torch sees one, else the CPU; any other name as torch reads it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device: {name!r} must be auto, cpu, cuda, cuda:0, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device: {name}: torch sees {torch.cuda.device_count()} GPUs; use cpu or auto")
    return device


class Predictor:
    """Runs a detector on images: `detkit.load("runs/quickstart")(["a.jpg"])`, or `Predictor(model, classes=[...])`.

    Args:
        detector: what `detkit.build` or a checkpoint gives.
        config: whose `data.val.transforms` and image settings apply; None for the one that the detector was built of.
        classes: of the training data, or their names; None for "class 0", "class 1", ...
        batch_size: images per forward pass.
    """

    def __init__(
        self,
        detector: DenseDetector,
        config: Config | None = None,
        classes: ClassMap | Sequence[str] | None = None,
        *,
        batch_size: int = 8,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} must be at least 1")
        self.config = config if config is not None else config_of(detector)
        self.detector, self.batch_size = detector, batch_size
        self.classes = class_map(classes, detector.num_classes)
        has_data = "data.val.transforms" in self.config
        self.transforms = build_transforms(self.config, "val") if has_data else []
        self.image_options = self.config.options("data.images")
        self.size_divisor = self.config.options("data.loader").size_divisor

    @property
    def device(self) -> torch.device:
        """The device that the detector is on."""
        return next(self.detector.parameters()).device

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, *, device: str = "auto", overrides: Overrides = (), batch_size: int = 8
    ) -> Predictor:
        """Loads a checkpoint, the best one of a run folder, or what else `detkit.interop.load_any` reads."""
        return cls(*load_detector(checkpoint, device=device, overrides=overrides), batch_size=batch_size)

    def __call__(self, images: ImageInput | Iterable[ImageInput]) -> list[Detections]:
        """Returns one `Detections` per image, on the CPU, in pixels of the given image.

        images: one image, a batch, or an iterable of them. An image is a path, a PIL image, an array (H, W, 3) or
        (H, W), or a tensor (3, H, W) or (H, W), RGB; a batch is an array (B, H, W, 3) or a tensor (B, 3, H, W). The
        type of the numbers says what they mean: uint8 is 0..255, floating point 0..1.
        """
        return [detections for detections, _ in self.stream(images)]

    def stream(self, images: ImageInput | Iterable[ImageInput]) -> Iterator[tuple[Detections, Image]]:
        """Yields detections image by image, each with its PIL image; only one batch is in memory."""
        sources = one_by_one(images)
        while given := list(itertools.islice(sources, self.batch_size)):
            opened = [open_image(image, self.image_options) for image in given]
            for plain, image, source in zip(self._run(opened), opened, given, strict=True):
                result = Detections(plain.boxes, plain.scores, plain.labels, self.classes, source, self.image_options)
                yield result, image

    @torch.inference_mode()
    def _run(self, images: Sequence[Image]) -> list[PlainDetections]:
        tensors = [transform_image(self.transforms, image) for image in images]
        batch, sizes = collate_images(tensors, self.size_divisor)
        with evaluating(self.detector):
            predictions = self.detector(batch.to(self.device), sizes)
        original_sizes = torch.tensor([(image.height, image.width) for image in images])
        return to_original(self.detector.detect(predictions, sizes), sizes, original_sizes)


@contextlib.contextmanager
def evaluating(detector: DenseDetector) -> Iterator[None]:
    """While the context is active, the detector is in eval mode; then it is in its own again."""
    if not detector.training:  # and nothing is changed, which other threads may be using
        yield
        return
    detector.eval()
    try:
        yield
    finally:
        detector.train()


def config_of(detector: DenseDetector) -> Config:
    """The config that a detector was built of; ValueError if it was built without one."""
    if detector.config is None:
        raise ValueError("the detector was not built of a config: give the config, whose image settings then apply")
    return detector.config


def class_map(classes: ClassMap | Sequence[str] | None, count: int | None) -> ClassMap:
    """Classes given as a map, by their names, or not at all, as a map; ValueError unless there are `count` of them."""
    if isinstance(classes, str):
        raise ValueError(f"classes: {classes!r} must be a list of names")
    if not isinstance(classes, ClassMap):
        names = [f"class {k}" for k in range(count or 0)] if classes is None else classes
        classes = ClassMap(tuple(names), tuple(range(1, len(names) + 1)))
    if count is not None and len(classes) != count:
        known = plural(count, "class", "classes")
        raise ValueError(f"classes: {plural(len(classes), 'name')} for a detector of {known}")
    return classes


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

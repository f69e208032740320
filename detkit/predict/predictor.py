"""Inference on paths, PIL images, arrays and tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from detkit.config import Config
from detkit.config.raw import short_path
from detkit.data.datasets.images import ImageOptions, read_image, to_rgb
from detkit.data.loader import collate_images
from detkit.data.transforms.base import transform_image
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.interop.load import load_any
from detkit.predict.rescale import to_original
from detkit.registry import TRANSFORMS
from detkit.structures import ClassMap, Detections
from detkit.utils.pictures import as_pil


def load_detector(
    checkpoint: str | Path, *, device: str = "auto", overrides: Sequence[str] = ()
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
        detector.load_state_dict(saved.model if saved.ema is None else saved.ema)
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
    """Runs a trained detector: `Predictor.from_checkpoint("runs/quickstart")(["a.jpg"])`.

    classes: of the training data. batch_size: images per forward pass.
    """

    def __init__(self, detector: DenseDetector, config: Config, classes: ClassMap, *, batch_size: int = 8) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} must be at least 1")
        self.detector, self.config, self.classes, self.batch_size = detector, config, classes, batch_size
        self.device = next(detector.parameters()).device
        self.transforms = [TRANSFORMS.build(node) for node in config.data.val.transforms]
        self.image_options = config.options("data.images")
        self.size_divisor = config.options("data.loader").size_divisor

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, *, device: str = "auto", overrides: Sequence[str] = (), batch_size: int = 8
    ) -> Predictor:
        """Loads a checkpoint, the best one of a run folder, or what else `detkit.interop.load_any` reads."""
        return cls(*load_detector(checkpoint, device=device, overrides=overrides), batch_size=batch_size)

    def __call__(self, images: Any) -> list[Detections]:
        """Returns one `Detections` per image, on the CPU, in pixels of the given image.

        images: one image or a list of them. An image is a path, a PIL image, a numpy array (H, W, 3) or (H, W) or a
        tensor (3, H, W), RGB, values 0..255 (uint8).
        """
        many = images if isinstance(images, (list, tuple)) else [images]
        return [detections for detections, _ in self.stream(many)]

    def stream(self, images: Iterable[Any]) -> Iterator[tuple[Detections, Image]]:
        """Yields detections image by image, each with its PIL image; only one batch is in memory."""
        opened = (open_image(image, self.image_options) for image in images)
        while batch := list(itertools.islice(opened, self.batch_size)):
            yield from zip(self._run(batch), batch, strict=True)

    @torch.inference_mode()
    def _run(self, images: Sequence[Image]) -> list[Detections]:
        tensors = [transform_image(self.transforms, image) for image in images]
        batch, sizes = collate_images(tensors, self.size_divisor)
        predictions = self.detector(batch.to(self.device), sizes)
        original_sizes = torch.tensor([(image.height, image.width) for image in images])
        return to_original(self.detector.detect(predictions, sizes), sizes, original_sizes)


def open_image(image: Any, options: ImageOptions | None = None) -> Image:
    """A path, PIL image, array (H, W[, 3]) or tensor (3, H, W), uint8 -> RGB PIL image."""
    if isinstance(image, (str, Path)):
        return read_image(Path(image), options)
    return to_rgb(image) if isinstance(image, Image) else as_pil(image)

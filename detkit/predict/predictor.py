"""Inference on whatever a user has: paths, arrays, tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.config import Config
from detkit.config.raw import short_path
from detkit.data.datasets.images import ImageOptions, read_image, to_rgb
from detkit.data.loader import collate_images
from detkit.data.transforms.base import transform_image
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.registry import TRANSFORMS
from detkit.structures import ClassMap, Detections


def load_detector(
    checkpoint: str | Path, *, device: str = "auto", overrides: Sequence[str] = ()
) -> tuple[DenseDetector, Config, ClassMap]:
    """A checkpoint file or run folder -> detector in eval mode, its config, its classes.

    overrides: `key=value` for settings that do not change weights (`postprocess.score_threshold=0.3`).
    The averaged weights are used where the run kept them.
    """
    from detkit.checkpoint import load_checkpoint

    saved = load_checkpoint(checkpoint)
    config = Config.from_dict(saved.config, overrides, name=short_path(saved.path or checkpoint))
    detector = build_detector(config, len(saved.classes))
    detector.load_state_dict(saved.ema if saved.ema is not None else saved.model)
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
        raise ValueError(f"--device: {name!r} is none of auto, cpu, cuda, cuda:0, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device: {name}: torch sees {torch.cuda.device_count()} GPUs here; use cpu or auto")
    return device


class Predictor:
    """Runs a trained detector: `Predictor.from_checkpoint("runs/quickstart")(["a.jpg"])`.

    classes: the class map of the training data. batch_size: images a forward pass.
    """

    def __init__(self, detector: DenseDetector, config: Config, classes: ClassMap, *, batch_size: int = 8) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} is less than 1")
        self.detector, self.config, self.classes, self.batch_size = detector, config, classes, batch_size
        self.device = next(detector.parameters()).device
        self.transforms = [TRANSFORMS.build(node) for node in config.data.val.transforms]
        self.image_options = config.options("data.images")
        self.size_divisor = config.options("data.loader").size_divisor

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, *, device: str = "auto", overrides: Sequence[str] = (), batch_size: int = 8
    ) -> Predictor:
        """A checkpoint file or a run folder (its best checkpoint) -> predictor."""
        return cls(*load_detector(checkpoint, device=device, overrides=overrides), batch_size=batch_size)

    def __call__(self, images: Any) -> list[Detections]:
        """One image or a list of them -> one `Detections` each, on the CPU, in pixels of the given image.

        An image is a path, a PIL image, a numpy array (H, W, 3) or (H, W) or a tensor (3, H, W), RGB,
        values 0..255 (uint8).
        """
        many = images if isinstance(images, (list, tuple)) else [images]
        return [found for found, _ in self.stream(many)]

    def stream(self, images: Iterable[Any]) -> Iterator[tuple[Detections, Any]]:
        """The same, one by one, each with its PIL image; only a batch at a time is in memory."""
        batch: list[Any] = []
        for image in images:
            batch.append(as_pil(image, self.image_options))
            if len(batch) == self.batch_size:
                yield from zip(self._run(batch), batch, strict=True)
                batch = []
        if batch:
            yield from zip(self._run(batch), batch, strict=True)

    @torch.inference_mode()
    def _run(self, images: list[Any]) -> list[Detections]:
        tensors = [transform_image(self.transforms, image) for image in images]
        batch, sizes = collate_images(tensors, self.size_divisor)
        pred = self.detector(batch.to(self.device), sizes)
        found = self.detector.detect(pred, sizes)
        return [
            Detections(
                box_ops.rescale(d.boxes.cpu(), (int(h), int(w)), (image.height, image.width)),
                d.scores.cpu(),
                d.labels.cpu(),
            )
            for d, (h, w), image in zip(found, sizes.tolist(), images, strict=True)
        ]


def as_pil(image: Any, options: ImageOptions | None = None) -> Any:
    """A path, PIL image, array (H, W[, 3]) or tensor (3, H, W), uint8 -> RGB PIL image."""
    from PIL import Image

    if isinstance(image, (str, Path)):
        return read_image(Path(image), options)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    array = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) and image.ndim == 3 else image
    shape, dtype = getattr(array, "shape", None), str(getattr(array, "dtype", type(image).__name__))
    is_image = shape is not None and 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4)))
    if not is_image or dtype.rpartition(".")[2] != "uint8":
        raise ValueError(
            f"an image must be a path, a PIL image, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W), "
            f"not {type(image).__name__} of {dtype} {tuple(shape or ())}"
        )
    return Image.fromarray(array if not isinstance(array, Tensor) else array.cpu().numpy()).convert("RGB")

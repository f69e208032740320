"""A detkit detector as the backend of a predictor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from detkit.config import Config, Overrides
from detkit.config.raw import short_path
from detkit.data.build import build_transforms
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.interop.load import load_any
from detkit.nms.base import NonMaxSuppression
from detkit.predict.backend import InputRules
from detkit.structures import ClassMap, Detections
from detkit.utils.console import plural


class DetectorBackend:
    """Runs a detector in eval mode, on the device that it is on; see `Backend`.

    detector: what `detkit.build` or a checkpoint gives. config: whose `data.val.transforms` and image settings apply;
    None for the one that the detector was built of. classes: as `class_map` takes them.
    """

    def __init__(
        self, detector: DenseDetector, config: Config | None = None, classes: ClassMap | Sequence[str] | None = None
    ) -> None:
        self.detector = detector
        self.config = config if config is not None else config_of(detector)
        self.classes = class_map(classes, detector.num_classes)
        has_data = "data.val.transforms" in self.config
        self.rules = InputRules(
            transforms=build_transforms(self.config, "val") if has_data else [],
            images=self.config.options("data.images"),
            size_divisor=self.config.options("data.loader").size_divisor,
        )

    @property
    def nms(self) -> NonMaxSuppression:
        return self.detector.nms

    @property
    def max_detections(self) -> int:
        return self.detector.options.max_detections

    @property
    def device(self) -> torch.device:
        """The device that the detector is on."""
        return next(self.detector.parameters()).device

    def network(self, images: Tensor, sizes: Tensor) -> list[Detections]:
        with evaluating(self.detector):
            predictions = self.detector(images.to(self.device), sizes)
        return self.detector.detect(predictions, sizes)


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

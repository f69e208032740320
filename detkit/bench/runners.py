"""The ways to run a detector that `detkit bench` measures. A further one, as an exported format, is one more entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detkit.predict.predictor import Predictor

Network = Callable[[Tensor, Tensor], Any]
"""Images (B, 3, H, W), 0..255 on the device, and their (B, 2) sizes on the host -> raw predictions of any kind."""
Postprocess = Callable[[Any, Tensor], Any]
"""Raw predictions and sizes -> detections."""


@dataclass(frozen=True)
class Runner:
    """A way to run a detector.

    name: on the command line and in the table. prepare: makes the two stages for a predictor and the example batch
    that will be measured; what it takes is not part of any stage. missing: says why it can't run here, None if it can.
    """

    name: str
    prepare: Callable[[Predictor, Tensor, Tensor], tuple[Network, Postprocess]]
    missing: Callable[[], str | None] = lambda: None


def eager(predictor: Predictor, images: Tensor, sizes: Tensor) -> tuple[Network, Postprocess]:
    """The detector as it is."""
    return predictor.detector, predictor.detector.detect


def compiled(predictor: Predictor, images: Tensor, sizes: Tensor) -> tuple[Network, Postprocess]:
    """The network through torch.compile, as `train.compile` has it; post-processing stays as it is."""
    network = torch.compile(predictor.detector)
    with torch.inference_mode():
        network(images, sizes)
    return network, predictor.detector.detect


RUNNERS: list[Runner] = [Runner("eager", eager), Runner("compiled", compiled)]


def chosen_runners(names: str | None) -> list[Runner]:
    """The runners of `--how`, a list with commas; None for all that can run here. ValueError for an unknown one."""
    known = {runner.name: runner for runner in RUNNERS}
    if names is None:
        return [runner for runner in RUNNERS if runner.missing() is None]
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            raise ValueError(f"--how: {name!r} is not a way to run a detector: choose from {', '.join(known)}")
        if why := known[name].missing():
            raise ValueError(f"--how: {name}: {why}")
    if not chosen:
        raise ValueError(f"--how: name at least one of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(chosen)]

"""How long a step of a config takes on this machine, by doing some."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

import torch

from detkit.config import Config
from detkit.data.build import build_transforms
from detkit.data.datasets.base import DetectionDataset
from detkit.data.loader import LoaderOptions, build_train_loader
from detkit.detectors.build import build_detector
from detkit.registry import SCHEDULES
from detkit.train.assemble import build_optimizer
from detkit.train.options import TrainOptions
from detkit.train.torch_setup import kept_settings, set_up_torch
from detkit.train.trainer import Trainer
from detkit.utils.cores import usable_cores

WARM_UP, TIMED = 1, 3
"""Steps that are not counted, and steps of which the median is taken."""


def step_seconds(config: Config, dataset: DetectionDataset) -> float:
    """Seconds of a training step: the network's, and the loading of its images shared out over the cores.

    Trains for a few steps from random weights, and leaves settings and random numbers as they were.
    """
    options: TrainOptions = config.options("train")
    loader: LoaderOptions = replace(config.options("data.loader"), num_workers=0)
    with kept_settings():
        device = set_up_torch(options)
        detector = build_detector(config, len(dataset.classes)).to(device)
        if options.channels_last:
            detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = iter(build_train_loader(dataset, build_transforms(config, "train"), loader, seed=config.seed))
        trainer = Trainer(
            detector, batches, build_optimizer(config, detector), SCHEDULES.build(config.schedule), options,
            seed=config.seed, device=device,
        )  # fmt: skip
        steps = [timed_step(trainer) for _ in range(WARM_UP + TIMED)][WARM_UP:]
        batches.close()
    return median(network + loading / usable_cores() for network, loading in steps)


def timed_step(trainer: Trainer) -> tuple[float, float]:
    """Seconds of the network and of loading in one step."""
    started = time.perf_counter()
    report = trainer.train_step()
    return time.perf_counter() - started - report.data_seconds, report.data_seconds

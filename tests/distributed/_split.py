"""A worker of test_split: trains a tiny detector under torchrun's variables, and rank 0 writes what came out."""

import json
import os
import sys
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from detkit.config import load_config
from detkit.data.loader import build_train_loader
from detkit.detectors.build import build_detector
from detkit.distributed import comm
from detkit.hooks.base import Hook
from detkit.registry import DATASETS, OPTIMIZERS, SCHEDULES, TRANSFORMS
from detkit.train.random import seed_everything
from detkit.train.torch_setup import set_deterministic
from detkit.train.trainer import Trainer


class Steps(Hook):
    """Losses of all steps, and the gradient of the first."""

    def __init__(self) -> None:
        self.losses: list[Any] = []
        self.first: dict[str, Any] | None = None

    def after_step(self, trainer: Any, report: Any) -> None:
        self.losses.append([report.loss, report.classification, report.box, report.normalizer, report.gradient_norm])
        if self.first is None:
            self.first = {n: p.detach().clone() for n, p in trainer.detector.named_parameters()}


def main() -> None:
    torch.set_num_threads(1)
    set_deterministic(True)
    if "IN_DOUBLE" in os.environ:
        torch.set_default_dtype(torch.float64)
    config = load_config(sys.argv[1], sys.argv[3:])
    if "RANK" in os.environ:
        dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, world_size = comm.rank(), comm.world_size()
    dataset = DATASETS.build(config.require("data.train.dataset"))
    seed_everything(0)
    detector = build_detector(config, len(dataset.classes))
    if "IN_DOUBLE" in os.environ:
        detector.backbone.register_forward_pre_hook(lambda _, arguments: (arguments[0].double(),))
    options = config.options("train")
    batches = build_train_loader(
        dataset, [TRANSFORMS.build(t) for t in config.require("data.train.transforms")], config.options("data.loader"),
        seed=0, rank=rank, world_size=world_size, micro_batches=options.accumulate,
    )  # fmt: skip
    steps = Steps()
    trainer = Trainer(
        detector, iter(batches), OPTIMIZERS.build(config.optimizer).build(detector), SCHEDULES.build(config.schedule),
        options, hooks=[steps],
    )  # fmt: skip
    trainer.run()
    if rank == 0:
        state = {"first": steps.first, "last": detector.state_dict(), "losses": torch.tensor(steps.losses)}
        torch.save(state, sys.argv[2])
        print(json.dumps(steps.losses[0]))
    if dist.is_initialized():
        dist.destroy_process_group()


main()

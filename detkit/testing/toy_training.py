"""A training of a toy detector on the trainer of detkit, for the contracts of hooks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from detkit.detectors.dense import DenseDetector
from detkit.hooks.base import Hook, StepReport, hook_states, load_hook_states
from detkit.structures import Batch, ClassMap, Detections, Losses, Predictions, Targets
from detkit.train.hook_access import Rows, Surroundings
from detkit.train.optim import SGD
from detkit.train.options import TrainOptions
from detkit.train.schedule import Constant
from detkit.train.trainer import Trainer
from detkit.utils.types import Tree

STEPS, EVAL_EVERY, IMAGES, SIDE = 8, 2, 4, 16
FIGURES = (0.1, 0.3, 0.2, 0.25)
"""val/ap of the evaluations, in turn."""


class ToyDetector(nn.Module):
    """A backbone with a norm, a neck and a head; the mean of its logits should be the number of boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.neck, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 6)

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Predictions:
        x = self.neck(self.backbone(images.float() / 255)).mean((2, 3))
        logits = self.head(x).view(len(images), 2, 3)
        return Predictions(logits, logits[..., :1].expand(-1, -1, 4), torch.zeros(2, 4), (2,))

    def loss(self, pred: Predictions, targets: list[Targets]) -> Losses:
        counts = torch.tensor([float(len(t.boxes)) for t in targets]).view(-1, 1, 1)
        areas = torch.stack([(t.boxes[:, 2:] - t.boxes[:, :2]).prod(1).sum() for t in targets]).view(-1, 1, 1)
        classification = (pred.logits - counts).square().sum()
        return Losses.of(classification, (pred.deltas - areas / 100).abs().sum() * 0.1, counts.sum().long())

    def take_accumulated(self) -> list[Tensor]:
        return []

    divisors = ("positives",)

    def update_losses(self, totals: object) -> None: ...

    def divide(self, normalizers: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"positives": normalizers["positives"].clamp(min=1)}


def toy_batch(position: int, images: int = IMAGES) -> Batch:
    """A batch that is a function of its position."""
    generator = torch.Generator().manual_seed(position)
    pixels = torch.randint(0, 256, (images, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    targets = [Targets(torch.tensor([[1.0, 1.0, 9.0, 9.0]] * (1 + i % 3)), torch.zeros(1 + i % 3).long())
               for i in range(images)]  # fmt: skip
    sizes = torch.full((images, 2), SIDE)
    return Batch(pixels, sizes, targets, sizes, list(range(images)), ["x.png"] * images)


def toy_batches(start: int) -> Iterator[Batch]:
    """Endless batches from a step on."""
    while True:
        yield toy_batch(start)
        start += 1


class ToyEvaluation(Hook[Trainer]):
    """Gives the hooks figures every `EVAL_EVERY` steps."""

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        if report.step % EVAL_EVERY == 0:
            value = FIGURES[report.step // EVAL_EVERY % len(FIGURES)]
            names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
            figures: dict[str, float | None] = {f"val/{name}": value for name in names}
            trainer.notify("after_evaluation", figures)


class ToyRun:
    """A training of `STEPS` steps with a hook, or none. rank: as which it is made to believe that it is.

    trainer: that of detkit. logged: (step, name, value) of what hooks recorded. stopped: the reason and step, if any.
    """

    def __init__(self, hook: Hook[Any] | None, folder: Path, *, after: ToyRun | None = None, rank: int = 0) -> None:
        torch.manual_seed(0)
        detector = cast(DenseDetector, ToyDetector())
        hooks: list[Hook[Any]] = [ToyEvaluation(), *([hook] if hook else [])]
        if hook is not None:
            hook.place = "hooks.0"
        options = TrainOptions(iterations=STEPS, eval_every=EVAL_EVERY, log_every=EVAL_EVERY, device="cpu")
        optimizer = SGD(lr=0.01).build(detector)
        start = after.trainer.step if after else 0
        self.trainer: Trainer = Trainer(detector, toy_batches(start), optimizer, Constant(), options, hooks=hooks)
        self.trainer.rank, self.folder = rank, folder
        self.logged: list[tuple[int, str, float]] = []
        self.trainer.around = Surroundings(
            folder=folder, classes=ClassMap(("thing",), (1,)), validation_images=IMAGES, size_divisor=1,
            save_weights=lambda name: folder / f"{name}.pt", predictions=self.predictions, record=self.record,
            record_image=lambda step, name, path: None,
        )  # fmt: skip
        if after is not None:
            self.restore(after.saved())

    def run(self, until: int = STEPS) -> ToyRun:
        """Trains to a step, as if the process ended there before the last hooks; to the end, it calls those as well."""
        if until == STEPS:
            self.trainer.run()
            return self
        self.trainer.notify("before_train")
        while self.trainer.step < until and not self.trainer.stopping():
            self.trainer.notify("after_step", self.trainer.train_step())
        return self

    def saved(self) -> Tree:
        """What a checkpoint holds."""
        trainer = self.trainer
        states = trainer.detector.state_dict(), trainer.optimizer.state_dict(), hook_states(trainer.hooks)
        return copy.deepcopy(dict(zip(("model", "optimizer", "hooks"), states, strict=True))) | {"step": trainer.step}

    def restore(self, saved: Tree) -> None:
        """Goes on from there."""
        self.trainer.detector.load_state_dict(saved["model"])
        self.trainer.optimizer.load_state_dict(saved["optimizer"])
        self.trainer.step = saved["step"]
        load_hook_states(self.trainer.hooks, saved["hooks"])

    def record(self, step: int, values: Mapping[str, float]) -> None:
        self.logged += [(step, name, value) for name, value in values.items()]

    def predictions(self, indices: Sequence[int]) -> Rows:
        batch = toy_batch(0)
        empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
        return [] if self.trainer.rank else [(batch.images[i], batch.targets[i], empty) for i in indices]

    def weights(self) -> Tensor:
        """All numbers of the detector."""
        return torch.cat([t.detach().double().flatten() for t in self.trainer.detector.state_dict().values()])

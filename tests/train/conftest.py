"""A detector, batches and a trainer of toy size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.hooks.base import Hook
from detkit.structures import Batch, Losses, Predictions, Targets
from detkit.train.optim import SGD, OptimizerFactory
from detkit.train.options import TrainOptions
from detkit.train.schedule import Constant, Schedule
from detkit.train.trainer import Trainer


class TinyDetector(nn.Module):
    """A convolution whose mean should be the number of boxes; has a buffer of whole numbers as well."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.class_out = nn.Linear(4, 6)

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Predictions:
        x = self.norm(self.backbone(images.float() / 255)).mean((2, 3))
        logits = self.class_out(x).view(len(images), 2, 3)
        return Predictions(logits, logits[..., :1].expand(-1, -1, 4), torch.zeros(2, 4), (2,))

    def loss(self, pred: Predictions, targets: list[Targets]) -> Losses:
        counts = torch.tensor([float(len(t.boxes)) for t in targets]).view(-1, 1, 1)
        return Losses.of(
            (pred.logits.float() - counts).square().sum(),
            pred.deltas.float().abs().sum() * 0.1,
            counts.sum().long(),
        )

    def take_accumulated(self) -> list[Tensor]:
        return []

    divisors = ("positives",)

    def update_losses(self, totals: object) -> None: ...

    def divide(self, normalizers: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"positives": normalizers["positives"].clamp(min=1)}


def make_batch(position: int, images: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(position)
    return Batch(
        images=torch.randint(0, 256, (images, 3, 16, 16), dtype=torch.uint8, generator=generator),
        sizes=torch.full((images, 2), 16),
        targets=[
            Targets(torch.tensor([[1.0, 1.0, 9.0, 9.0]] * (1 + i)), torch.zeros(1 + i, dtype=torch.int64))
            for i in range(images)
        ],
        original_sizes=torch.full((images, 2), 16),
        image_ids=[100 * position + i for i in range(images)],
        paths=[f"{100 * position + i}.png" for i in range(images)],
    )


def endless(start: int = 0) -> Iterator[Batch]:
    position = start
    while True:
        yield make_batch(position)
        position += 1


@pytest.fixture
def pictures() -> None:
    """For a test that looks at the pictures of its runs."""


@pytest.fixture(autouse=True)
def no_pictures_else(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests' runs draw none: that is a third of a tiny run's time. Fixtures that several tests share do draw."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("detkit.train.summary.draw", lambda session: None)


@pytest.fixture
def make_trainer() -> Callable[..., Trainer]:
    """Builds a trainer of the tiny detector; `start` is the step its batches begin at."""

    def make(
        *,
        start: int = 0,
        hooks: tuple[Hook, ...] = (),
        detector: Any = None,
        batches: Iterator[Batch] | None = None,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        **options: Any,
    ) -> Trainer:
        torch.manual_seed(0)
        detector = detector or TinyDetector()
        settings = TrainOptions(**{"iterations": 6, "tensorboard": False} | options)
        factory = optimizer or SGD(lr=0.01)
        return Trainer(
            detector,
            batches or endless(start * settings.accumulate),
            factory.build(detector),
            schedule or Constant(),
            settings,
            hooks=hooks,
        )

    return make

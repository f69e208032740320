from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.hooks.base import Hook, StepReport
from detkit.structures import Batch, Losses, Predictions, Targets
from detkit.train.non_finite import NonFiniteLossError
from detkit.train.optim import SGD, AdamW
from detkit.train.run_hooks import TimeLimit
from detkit.train.schedule import Cosine
from detkit.train.trainer import MAX_SKIPPED, Trainer, scale_and_clip
from tests.refusals import Refuses

MakeTrainer = Callable[..., Trainer]
BASE = Path(__file__).parents[2] / "configs" / "base" / "retinanet.yaml"


def real_detector() -> nn.Module:
    torch.manual_seed(0)
    overrides = ["backbone.depth=18", "backbone.norm=gn", "neck.channels=16", "head.num_convs=1"]
    return build_detector(load_config(BASE, overrides), 3).double()


def eight_images() -> Batch:
    torch.manual_seed(1)
    counts = [3, 0, 1, 2, 0, 4, 1, 1]
    targets = []
    for n in counts:
        corner, side = torch.rand(n, 2) * 30, 8 + torch.rand(n, 2) * 24
        targets.append(Targets(torch.cat([corner, corner + side], 1), torch.randint(0, 3, (n,))))
    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8).double()
    sizes = torch.full((8, 2), 64)
    return Batch(images, sizes, targets, sizes, list(range(8)), [f"{i}.png" for i in range(8)])


def parts(batch: Batch, n: int) -> Iterator[Batch]:
    for i in range(0, len(batch), n):
        j = slice(i, i + n)
        yield Batch(
            batch.images[j], batch.sizes[j], batch.targets[j], batch.original_sizes[j],
            batch.image_ids[j], batch.paths[j],
        )  # fmt: skip


@pytest.mark.parametrize("clip_norm", [pytest.param(None, marks=pytest.mark.slow), 0.05])
def test_four_times_two_images_are_one_batch_of_eight(make_trainer: MakeTrainer, clip_norm: float | None) -> None:
    batch = eight_images()
    weights, reports = [], []
    for accumulate in (1, 4):
        trainer = make_trainer(
            detector=real_detector(),
            batches=itertools.cycle(parts(batch, 8 // accumulate)),
            optimizer=SGD(lr=0.1),
            accumulate=accumulate,
            clip_norm=clip_norm,
        )
        reports.append(trainer.train_step())
        weights.append(torch.cat([p.detach().flatten() for p in trainer.detector.parameters()]))
    start = torch.cat([p.detach().flatten() for p in real_detector().parameters()])
    moved = (weights[0] - start).abs().max()
    assert moved > 1e-4
    assert (weights[0] - weights[1]).abs().max() < 1e-6 * moved
    assert reports[0].normalizer == reports[1].normalizer > 8
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=1e-6)
    assert reports[0].gradient_norm == pytest.approx(reports[1].gradient_norm, rel=1e-6)


def test_an_evaluation_leaves_nothing_that_training_trips_over(make_trainer: MakeTrainer) -> None:
    """Anchors remembered in inference mode must be fit for the next backward pass."""
    batch, detector = eight_images(), real_detector()
    trainer = make_trainer(detector=detector, batches=itertools.repeat(batch), optimizer=SGD(lr=0.1))
    with torch.inference_mode():
        detector(batch.images, batch.sizes)
    assert trainer.train_step().normalizer > 0


def test_scaling_and_clipping_by_hand() -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    idle = nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([30.0]), torch.tensor([40.0])
    norm = scale_and_clip([a, b, idle], torch.tensor(0.1), None)
    assert norm.item() == pytest.approx(5.0)
    assert (a.grad.item(), b.grad.item()) == pytest.approx((3.0, 4.0))
    norm = scale_and_clip([a, b], torch.tensor(1.0), 1.0)
    assert norm.item() == pytest.approx(5.0)
    assert (a.grad.item(), b.grad.item()) == pytest.approx((0.6, 0.8), rel=1e-5)
    scale_and_clip([a, b], torch.tensor(1.0), 10.0)
    assert (a.grad.item(), b.grad.item()) == pytest.approx((0.6, 0.8), rel=1e-5)


def test_the_step_is_divided_by_at_least_one(make_trainer: MakeTrainer) -> None:
    """Images without boxes count no positive, and their losses are not divided by zero."""

    def empty() -> Iterator[Batch]:
        batch = eight_images()
        batch.images, batch.targets = batch.images.float(), [Targets(torch.zeros(0, 4), torch.zeros(0))] * 8
        yield from itertools.repeat(batch)

    report = make_trainer(batches=empty()).train_step()
    assert report.normalizer == 1
    assert report.loss == pytest.approx(report.classification + report.box)
    assert report.loss > 0


def test_training_lowers_the_loss_and_follows_the_schedule(make_trainer: MakeTrainer) -> None:
    seen: list[StepReport] = []

    class Keep(Hook[Trainer]):
        def after_step(self, trainer: Trainer, report: StepReport) -> None:
            seen.append(report)

    schedule = Cosine(warmup_iterations=5, warmup_factor=0.1)
    make_trainer(iterations=40, hooks=(Keep(),), optimizer=AdamW(lr=0.05), schedule=schedule).run()
    assert seen[-1].loss < 0.5 * seen[0].loss
    assert [r.lr for r in seen] == pytest.approx([0.05 * schedule.factor(s, 40) for s in range(40)])
    assert [r.step for r in seen] == list(range(1, 41))
    assert {r.images for r in seen} == {2}


def test_hooks_run_at_their_moments_in_order(make_trainer: MakeTrainer) -> None:
    calls: list[str] = []

    class Named(Hook[Trainer]):
        def __init__(self, name: str) -> None:
            self.name = name

        def before_train(self, trainer: Trainer) -> None:
            calls.append(f"before {self.name}")

        def after_step(self, trainer: Trainer, report: StepReport) -> None:
            calls.append(f"{report.step} {self.name}")

        def after_train(self, trainer: Trainer) -> None:
            calls.append(f"after {self.name}")

    make_trainer(iterations=2, hooks=(Named("a"), Named("b"))).run()
    assert calls == ["before a", "before b", "1 a", "1 b", "2 a", "2 b", "after a", "after b"]


def test_two_runs_are_the_same_and_another_seed_or_order_is_not(make_trainer: MakeTrainer) -> None:
    def weights(**settings: Any) -> torch.Tensor:
        trainer = make_trainer(**settings)
        trainer.run()
        return torch.cat([t.detach().flatten().double() for t in trainer.detector.state_dict().values()])

    assert torch.equal(weights(), weights())
    assert not torch.equal(weights(), weights(start=1))


def test_the_time_limit_ends_the_run(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(hooks=(TimeLimit(),), max_minutes=1e-9)
    trainer.run()
    assert trainer.step == 1
    assert trainer.stop is not None
    assert "max_minutes" in trainer.stop
    assert not trainer.interrupted


class Breaking(nn.Module):
    """Its box loss is NaN for the images of position 2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor, sizes: torch.Tensor) -> Predictions:
        self.images = images
        return Predictions(self.weight.view(1, 1, 1), self.weight.view(1, 1, 1), self.weight, (1,))

    def loss(self, pred: Predictions, targets: list[Targets]) -> Losses:
        bad = bool(torch.isnan(torch.cat([t.boxes for t in targets])).any())
        factor = float("nan") if bad else 1.0
        return Losses.of(pred.logits.sum() * 2, pred.deltas.sum() * factor, torch.tensor(3))

    def take_accumulated(self) -> list[torch.Tensor]:
        return []

    divisors = ("positives",)

    def update_losses(self, totals: object) -> None: ...

    def divide(self, normalizers: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"positives": normalizers["positives"].clamp(min=1)}


def breaking_batches(make_batch: Callable[[int], Batch]) -> Iterator[Batch]:
    for position in itertools.count():
        batch = make_batch(position)
        if position == 2:
            batch.targets[1].boxes[0, 3] = float("nan")
        yield batch


def test_a_loss_that_is_not_finite_stops_with_everything_one_wants_to_know(make_trainer: MakeTrainer) -> None:
    plain = make_trainer().batches
    first_four = [next(plain) for _ in range(4)]
    trainer = make_trainer(
        detector=Breaking(),
        batches=breaking_batches(lambda i: first_four[i]),
        optimizer=SGD(lr=0.25),
        accumulate=2,
    )
    trainer.last_checkpoint = Path("runs/x/checkpoints/step_00000001.pt")
    trainer.train_step()
    before = trainer.detector.weight.item()
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.train_step()
    assert trainer.detector.weight.item() == before
    text = str(caught.value)
    for word in (
        "step 2", "micro-batch 1: classification", "box nan (sums), normaliser 3  <- here",
        "image ids 200, 201", "learning rate 0.25", "gradient norm nan", "optimizer.lr",
        "runs/x/checkpoints/step_00000001.pt", "image 201 (201.png)",
    ):  # fmt: skip
        assert word in text, text
    bad = [line for line in text.splitlines() if "<- here" in line]
    assert len(bad) == 1
    assert "micro-batch 1" in bad[0]


class Overflowing(Breaking):
    """Finite losses, infinite gradient."""

    def loss(self, pred: Predictions, targets: list[Targets]) -> Losses:
        zero = (pred.logits.sum() - pred.logits.sum().detach()).abs().sqrt()
        return Losses.of(zero * 1.0 + 1.0, pred.deltas.sum(), torch.tensor(1))


def test_an_infinite_gradient_stops_fp32_at_once(refuses: Refuses, make_trainer: MakeTrainer) -> None:
    with refuses(NonFiniteLossError):
        make_trainer(detector=Overflowing()).train_step()


def test_fp16_skips_overflowing_steps_but_not_for_ever(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(detector=Overflowing(), precision="fp16", iterations=100)
    scale = trainer.scaler.get_scale()
    report = trainer.train_step()
    assert report.skipped
    assert trainer.detector.weight.item() == 1.0
    assert trainer.scaler.get_scale() == scale / 2
    with pytest.raises(NonFiniteLossError):
        trainer.run()
    assert trainer.step == MAX_SKIPPED - 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_gives_nearly_the_same_step(make_trainer: MakeTrainer, precision: str) -> None:
    exact, lower = make_trainer(), make_trainer(precision=precision)
    a, b = exact.train_step(), lower.train_step()
    assert b.loss == pytest.approx(a.loss, rel=0.02)
    assert b.gradient_norm == pytest.approx(a.gradient_norm, rel=0.02)
    assert b.loss != a.loss
    assert {p.dtype for p in lower.detector.parameters()} == {torch.float32}


def test_channels_last_changes_nothing_but_the_layout(make_trainer: MakeTrainer) -> None:
    plain, last = make_trainer(), make_trainer(channels_last=True)
    assert last.train_step().loss == pytest.approx(plain.train_step().loss, rel=1e-5)

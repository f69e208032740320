"""SSD and SSDlite from their YAML files to a training step and a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.cli import main
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.structures import Targets

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CASES = {
    "ssd300": ("base/ssd.yaml", 300, 8732, ["backbone.width=0.0625", "neck.channels=[32,16,16,16]"]),
    "ssdlite320": ("base/ssdlite.yaml", 320, 3234, []),
}


@pytest.fixture(params=CASES)
def case(request: Any) -> tuple[DenseDetector, int, int]:
    path, side, anchors, overrides = CASES[request.param]
    torch.manual_seed(0)
    return build_detector(load_config(CONFIGS / path, overrides), 5), side, anchors


def pixels(count: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


NOTHING = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
OBJECTS = Targets(torch.tensor([[10.0, 20, 60, 80], [100, 90, 280, 250], [5, 5, 9, 200]]), torch.tensor([0, 4, 2]))


@pytest.mark.parametrize("targets", [[OBJECTS, NOTHING], [NOTHING, NOTHING]], ids=["one empty", "both empty"])
def test_a_step_reaches_every_parameter_also_without_objects(case: Any, targets: list[Targets]) -> None:
    detector, side, anchors = case
    pred = detector.train()(pixels(2, side))
    assert pred.logits.shape == (2, anchors, 6)
    assert pred.anchors.shape == (anchors, 4)
    losses = detector.loss(pred, targets)
    assert losses.classification > 0
    assert bool(losses.normalizer >= 3) is bool(len(targets[0].boxes))
    losses.mean().backward()
    assert [n for n, p in detector.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)


def test_an_empty_image_teaches_background(case: Any) -> None:
    detector, side, _ = case
    pred = detector.train()(pixels(2, side))
    (gradient,) = torch.autograd.grad(detector.loss(pred, [OBJECTS, NOTHING]).total(), pred.logits)
    reached = gradient[1].abs().sum(dim=1) > 0
    assert int(reached.sum()) == detector.class_loss.floor
    assert (gradient[1, reached, -1] < 0).all()
    # Of the other image: positives and at most three times as many.
    positive = int(detector.loss(pred, [OBJECTS, NOTHING]).normalizer)
    assert int((gradient[0].abs().sum(dim=1) > 0).sum()) == positive + max(3 * positive, detector.class_loss.floor)


def test_exact_predictions_are_found_exactly(case: Any) -> None:
    detector, side, _ = case
    pred = detector.eval()(pixels(1, side))
    assignment = detector.assigner(detector.candidates(pred, 0), OBJECTS)
    rows = (assignment.labels >= 0).nonzero()[:, 0]
    pred.logits = torch.zeros_like(pred.logits)
    pred.logits[..., -1] = 20.0
    pred.logits[0, rows, assignment.labels[rows]] = 30.0
    pred.deltas = torch.zeros_like(pred.deltas)
    pred.deltas[0, rows] = detector.coder.encode(OBJECTS.boxes[assignment.matched[rows]], pred.anchors[rows])
    (detections,) = detector.detect(pred, torch.tensor([[side, side]]))
    order = detections.labels.argsort()
    assert detections.labels[order].tolist() == [0, 2, 4]
    torch.testing.assert_close(detections.boxes[order], OBJECTS.boxes[[0, 2, 1]], rtol=0, atol=1e-3)


def test_one_word_turns_the_loss_into_another() -> None:
    """Columns, link and bias follow the loss; the rest of SSD stays."""
    losses = ["losses.classification={type: SigmoidFocalLoss}"]
    config = load_config(CONFIGS / "base/ssd.yaml", [*CASES["ssd300"][3], *losses])
    detector = build_detector(config, 5)
    pred = detector(pixels(1, 300))
    assert pred.logits.shape[-1] == 5
    assert detector.loss(pred, [OBJECTS]).total().isfinite()


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """A run sets torch up for itself; the other tests get back what they had."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.usefixtures("torch_settings")
def test_a_run_from_yaml_learns(tmp_path: Path) -> None:
    tiny = [
        "backbone.width=0.0625", "neck.channels=[16,16]", "train.iterations=16", "schedule.warmup_iterations=3",
        "data.train.dataset.num_images=8", "data.val.dataset.num_images=4", "data.train.dataset.size=64",
        "data.val.dataset.size=64", "data.loader.batch_size=4", "data.loader.num_workers=0", "train.eval_every=0",
        "train.checkpoint_every=0", "train.threads=1", "train.device=cpu", "train.tensorboard=false",
        "train.log_every=1",
    ]  # fmt: skip
    run = tmp_path / "run"
    assert main(["train", str(CONFIGS / "ssd/ssd_shapes.yaml"), *tiny, "--output", str(run)]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    loss = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(loss) == 16
    assert sum(loss[-4:]) < 0.9 * sum(loss[:4])
    assert "ap" in json.loads((run / "result.json").read_text())

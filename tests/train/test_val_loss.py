"""The loss on the validation images: its value, and that the training does not notice."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from detkit.checkpoint import load_checkpoint
from detkit.cli import main
from detkit.config import load_config
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.loader import LoaderOptions, build_eval_loader
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.train.val_loss import ValidationLoss, unchanged
from tests.train.test_run import CONFIG, TINY
from tests.train.test_run import torch_settings as torch_settings

CLASSES = len(ShapesDataset(num_images=1, split="val").classes)
SMALL = ["neck.channels=8", "head.num_convs=1"]


def built(*overrides: str) -> DenseDetector:
    torch.manual_seed(0)
    return build_detector(load_config(CONFIG, [*SMALL, *overrides]), CLASSES)


@pytest.fixture(scope="module")
def dataset() -> ShapesDataset:
    return ShapesDataset(num_images=6, size=64, split="val")


def value_of(
    detector: DenseDetector, dataset: ShapesDataset, batch: int, model: DenseDetector | None = None
) -> dict[str, float]:
    """model: what predicts, if it is another one, as the averaged one of a training is."""
    loss = ValidationLoss(detector, 6)
    for images in build_eval_loader(dataset, [], LoaderOptions(batch_size=batch, num_workers=0)):
        with torch.inference_mode():
            loss.add((model or detector)(images.images, images.sizes), images)
    return loss.result()


@pytest.mark.parametrize("normalizer", ["PositiveCount", "PerImagePositiveCount", "EmaPositiveCount"])
def test_it_is_the_loss_of_a_step(dataset: ShapesDataset, normalizer: str) -> None:
    """One batch of all images: what the training would divide and report."""
    detector = built(f"losses.normalizer={{type: {normalizer}}}").eval()
    (batch,) = build_eval_loader(dataset, [], LoaderOptions(batch_size=6, num_workers=0))
    with torch.no_grad():
        losses = detector.loss(detector(batch.images, batch.sizes), batch.targets)
    found = value_of(detector, dataset, 6)
    expected = losses.over(detector.end_step(losses.normalizers, detector.take_accumulated()))
    assert found["loss"] == pytest.approx(float(expected), rel=1e-6)
    assert found["loss"] == pytest.approx(found["loss/classification"] + found["loss/box"])
    assert list(found) == ["loss", "loss/classification", "loss/box"]


@pytest.mark.parametrize("loss", ["SigmoidFocalLoss", "GHMCLoss", "SeesawLoss"])
def test_it_does_not_depend_on_the_batches_and_leaves_no_trace(dataset: ShapesDataset, loss: str) -> None:
    detector = built(f"losses.classification={{type: {loss}}}", "losses.normalizer={type: RunningPositiveCount}")
    model = copy.deepcopy(detector).eval()
    detector.train()
    before = {name: x.clone() for name, x in detector.state_dict().items()}
    modes = [module.training for module in detector.modules()]
    state = torch.get_rng_state()
    one, four = (value_of(detector, dataset, batch, model) for batch in (1, 4))
    assert four["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in detector.modules()] == modes
    assert all(torch.equal(x, before[name]) for name, x in detector.state_dict().items())
    assert all(x.numel() == 0 for x in detector.take_accumulated())


def test_what_a_part_draws_and_counts_is_undone() -> None:
    detector = built()
    counter = nn.Module()
    counter.register_buffer("count", torch.zeros(()))
    detector.counter = counter
    state = torch.get_rng_state()
    with unchanged(detector):
        counter.count += torch.rand(()) + 1
        detector.class_loss.accumulate(torch.ones(2))
        assert not detector.training
    assert counter.count == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert detector.training
    assert detector.class_loss.take_accumulated().numel() == 0


def test_without_images_there_is_no_loss() -> None:
    assert ValidationLoss(built(), 4).result() == {}


def test_a_training_with_it_has_the_same_weights(tmp_path: Path) -> None:
    words = ["train", CONFIG, *TINY, "train.iterations=3", "train.eval_every=2", "train.ema_decay=0.9"]
    words += ["neck.channels=8", "data.loader.batch_size=2", "data.val.dataset.num_images=3"]
    words += ["losses.normalizer={type: RunningPositiveCount}", "losses.classification={type: GHMCLoss}"]
    for name, value in (("without", "false"), ("with", "true")):
        assert main([*words, f"train.val_loss={value}", "--output", str(tmp_path / name)]) == 0
    one, two = (load_checkpoint(tmp_path / name, prefer="newest") for name in ("without", "with"))
    assert one.ema is not None
    assert two.ema is not None
    for a, b in ((one.model, two.model), (one.ema, two.ema)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    lines = [json.loads(line) for line in (tmp_path / "with" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "val/ap" in line]
    assert [line["step"] for line in evaluations] == [2, 3]
    for line in evaluations:
        assert math.isfinite(line["val/loss"])
        assert line["val/loss"] == pytest.approx(line["val/loss/classification"] + line["val/loss/box"])
    assert "val/loss" not in (tmp_path / "without" / "metrics.jsonl").read_text()
    steps = [[x["train/loss"] for x in map(json.loads, (tmp_path / n / "metrics.jsonl").read_text().splitlines())
              if "train/loss" in x] for n in ("without", "with")]  # fmt: skip
    assert steps[0] == steps[1]

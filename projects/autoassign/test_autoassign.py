"""Run with: pytest projects/autoassign"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.coders.distance import DistanceCoder
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.registry import CLASS_LOSSES
from detkit.structures import Predictions, Targets
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")
ANCHORS = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8], [32, 32, 40, 40]])
CODER = DistanceCoder(link="relu")
NOTHING = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def loss(**settings: Any) -> Any:
    return CLASS_LOSSES.build({"type": "AutoAssignLoss", "classes": 2, **settings})


def batch() -> tuple[Predictions, list[Targets]]:
    torch.manual_seed(0)
    logits, deltas = torch.randn(2, 4, 3, requires_grad=True), (torch.rand(2, 4, 4) + 0.2).requires_grad_()
    boxes = torch.tensor([[0.0, 0, 16, 16], [2, 2, 22, 10]])
    return Predictions(logits, deltas, ANCHORS, (4,)), [Targets(boxes, torch.tensor([0, 1])), NOTHING]


def test_the_centre_prior_is_a_gaussian_in_strides_around_the_mean_of_the_class() -> None:
    part = loss()
    box = torch.tensor([[4.0, 0, 12, 8]]).expand(2, 4)  # the centre (8, 4); points (4, 4) and (12, 4)
    with torch.no_grad():
        part.mean[1, 0], part.deviation[1] = 0.5, 2.0
    prior = part.centre_prior(ANCHORS[:2], box, torch.tensor([0, 0]))
    torch.testing.assert_close(prior, torch.full((2,), math.exp(-(0.5**2) / 2)))
    prior = part.centre_prior(ANCHORS[:2], box, torch.tensor([1, 1]))
    torch.testing.assert_close(prior, torch.tensor([math.exp(-1 / 8), 1.0]))


def test_an_object_costs_the_weighted_likelihood_of_its_points() -> None:
    likelihood, prior = torch.tensor([0.9, 0.1, 0.5]), torch.tensor([1.0, 0.5, 0.3])
    first, third = loss().positive_costs(likelihood, prior, torch.tensor([0, 0, 2]))
    a, b = math.exp(2.7), 0.5 * math.exp(0.3)
    assert first.item() == pytest.approx(-math.log((0.9 * a + 0.1 * b) / (a + b)), abs=1e-5)
    assert third.item() == pytest.approx(math.log(2), abs=1e-5), "its only point has all the weight"


def test_the_best_point_of_an_object_is_no_background_of_its_class() -> None:
    true = torch.tensor([[0.0, 0, 10, 10]]).expand(3, 4)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2.5]])  # IoU 1, 1/2 and 1/4
    zeros, ones = torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1])
    weights = loss().background_weights(boxes[1:], true[1:], torch.tensor([1, 2]), zeros[1:], ones[1:], (4, 2))
    torch.testing.assert_close(weights, torch.tensor([[1.0, 1], [1, 0], [1, 1], [1, 1]]))
    # 1 / (1 - IoU) of 1/4 is 4/3, of 1/2 it is 2, of 0 it is 1: a third of the way.
    boxes = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 2.5], [20, 20, 30, 30]])
    weights = loss().background_weights(boxes, true, torch.tensor([0, 1, 2]), zeros, ones, (3, 2))
    torch.testing.assert_close(weights[:, 1], torch.tensor([0, 2 / 3, 1]))


def test_terms_are_sums_over_images_however_a_batch_is_split() -> None:
    pred, targets = batch()
    part = loss()
    whole = part.joint_losses(pred, targets, CODER)
    parts = [
        part.joint_losses(Predictions(pred.logits[i : i + 1], pred.deltas[i : i + 1], ANCHORS, (4,)), [target], CODER)
        for i, target in enumerate(targets)
    ]
    for name, term in whole.terms.items():
        torch.testing.assert_close(term, parts[0].terms[name] + parts[1].terms[name])
    for name, count in whole.normalizers.items():
        torch.testing.assert_close(count, parts[0].normalizers[name] + parts[1].normalizers[name])
    assert [whole.divisor_of(name) for name in whole.terms] == ["objects", "prior", "images"]
    assert [float(whole.normalizers[name]) for name in ("objects", "images")] == [2, 2]


@pytest.mark.parametrize("objects", [True, False])
def test_all_outputs_and_parameters_get_a_finite_gradient(objects: bool) -> None:
    pred, targets = batch()
    part = loss()
    part.joint_losses(pred, targets if objects else [NOTHING] * 2, CODER).total().backward()
    tensors: list[Tensor] = [pred.logits, pred.deltas, part.mean, part.deviation]
    for tensor in tensors:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert bool(tensor.grad.any()) is (objects or tensor is pred.logits)


def test_scores_start_at_half_the_prior() -> None:
    part = loss()
    torch.testing.assert_close(part.scores(part.initial_bias(2)), torch.full((2,), part.start_score(2)))


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"losses.classification.classes: 7, but the data has 3: set 3"):
        build_detector(CONFIG, 3)


def test_the_papers_detector_is_built() -> None:
    config = load_config(FOLDER / "r50_fpn.yaml", ["backbone.depth=18", "losses.classification.classes=3"])
    assert build_detector(config, 3).divisors == ("objects", "prior", "images")


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2", "data.loader.num_workers=0"]
    assert train(load_config(FOLDER / "config.yaml", [*short, "train.accumulate=2"]), tmp_path / "run") == 0

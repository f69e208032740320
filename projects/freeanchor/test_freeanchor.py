"""Run with: pytest projects/freeanchor"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.coders.delta import DeltaCoder
from detkit.compare.cell import run_cell
from detkit.compare.plan import make_plan, save_plan
from detkit.compare.results import collect_results
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.registry import CLASS_LOSSES
from detkit.structures import Predictions, Targets
from detkit.testing import check_joint_loss
from detkit.train.run import train
from tests.family import reference as ref
from tests.family.test_anchor_models import RETINANET

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")
VARIANTS = pytest.mark.parametrize("variant", ["full", "half", "none"])


@cache
def built() -> tuple[ref.Reference, DenseDetector, Predictions]:
    model = ref.reference("freeanchor_r18")
    detector = ref.detector_like(str(FOLDER / "r50_fpn.yaml"), model, RETINANET)
    with torch.no_grad():
        return model, detector, ref.predict(detector)


def test_the_loss_keeps_its_contract() -> None:
    check_joint_loss(CLASS_LOSSES.get("FreeAnchorLoss"))


def test_outputs_and_detections_are_mmdetections() -> None:
    model, detector, pred = built()
    ref.check_input(detector, model)
    ref.check_anchors(pred, model, atol=1e-4)
    ref.check_outputs(pred, model, {"logits": "cls", "deltas": "reg"})
    ref.check_detections(detector, pred, model)


@VARIANTS
def test_losses_are_mmdetections(variant: str) -> None:
    model, detector, pred = built()
    names = {"positive_bag": "positive_bag_loss", "negative_bag": "negative_bag_loss"}
    ref.check_losses(detector, pred, model, variant, names)


@VARIANTS
def test_the_probabilities_of_objects_and_the_costs_of_bags_are_mmdetections(variant: str) -> None:
    model, detector, pred = built()
    loss: Any = detector.class_loss
    for image, target in enumerate(ref.targets_of(variant)):
        key = f"{variant}.positive_loss_single{'.1' if image else ''}"
        found = loss.objectness(pred.deltas[image], pred.anchors, target, detector.coder, 3)
        torch.testing.assert_close(found, model[f"{key}.box_prob"], rtol=1e-4, atol=1e-4)
        costs = loss.bag_costs(pred.logits[image].sigmoid(), pred.deltas[image], pred.anchors, target, detector.coder)
        torch.testing.assert_close(loss.alpha * costs, model[f"{key}.positive_loss"], rtol=1e-5, atol=1e-6)


def small() -> tuple[Tensor, Predictions, list[Targets]]:
    torch.manual_seed(0)
    anchors = torch.tensor([[0.0, 0, 16, 16], [8, 8, 24, 24], [0, 0, 32, 32], [40, 40, 60, 60]])
    logits, deltas = torch.randn(2, 4, 2, requires_grad=True), torch.randn(2, 4, 4, requires_grad=True)
    targets = [
        Targets(torch.tensor([[1.0, 1, 17, 17], [0, 0, 30, 30]]), torch.tensor([0, 1])),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    return anchors, Predictions(logits, deltas, anchors, (4,)), targets


def test_terms_are_sums_over_images_however_a_batch_is_split() -> None:
    anchors, pred, targets = small()
    loss, coder = CLASS_LOSSES.build({"type": "FreeAnchorLoss", "bag": 3}), DeltaCoder()
    whole = loss.joint_losses(pred, targets, coder)
    parts = [
        loss.joint_losses(Predictions(pred.logits[i : i + 1], pred.deltas[i : i + 1], anchors, (4,)), [target], coder)
        for i, target in enumerate(targets)
    ]
    for name, term in whole.terms.items():
        torch.testing.assert_close(term, parts[0].terms[name] + parts[1].terms[name])
    assert {k: int(v) for k, v in whole.normalizers.items()} == {"objects": 2, "anchors": 6}
    assert {k: int(v) for k, v in parts[1].normalizers.items()} == {"objects": 0, "anchors": 0}
    assert whole.divisor_of("negative_bag") == "anchors"


def test_a_bag_of_one_costs_its_class_and_its_box() -> None:
    anchors, _, _ = small()
    loss, coder = CLASS_LOSSES.build({"type": "FreeAnchorLoss", "bag": 1}), DeltaCoder()
    target = Targets(anchors[:1], torch.tensor([1]))
    deltas = torch.tensor([[0.0, 0.2, 0, 0]]).repeat(4, 1)
    (cost,) = loss.bag_costs(torch.full((4, 2), 0.5), deltas, anchors, target, coder)
    # SmoothL1 of 0.2 with beta 0.11 is 0.2 - 0.055.
    assert cost.item() == pytest.approx(0.6931 + 0.75 * 0.145, abs=1e-4)


def test_a_perfect_box_is_no_background_and_one_far_away_is() -> None:
    anchors, _, _ = small()
    loss = CLASS_LOSSES.build({"type": "FreeAnchorLoss"})
    target = Targets(anchors[:1], torch.tensor([1]))
    found = loss.objectness(torch.zeros(4, 4), anchors, target, DeltaCoder(), 2)
    assert found.tolist() == [[0, 1], [0, 0], [0, 0], [0, 0]]
    costs = loss.background_costs(torch.full((4, 2), 0.5), found)
    assert costs[0, 1].item() == pytest.approx(0, abs=1e-6)
    assert costs[0, 0].item() == pytest.approx(0.25 * 0.6931, abs=1e-4)


@pytest.mark.parametrize("objects", [True, False])
def test_all_outputs_get_a_finite_gradient(objects: bool) -> None:
    _, pred, targets = small()
    loss = CLASS_LOSSES.build({"type": "FreeAnchorLoss"})
    losses = loss.joint_losses(pred, targets if objects else [targets[1]] * 2, DeltaCoder())
    losses.total().backward()
    for tensor in (pred.logits, pred.deltas):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert bool(tensor.grad.any()) is (objects or tensor is pred.logits)


def test_a_box_loss_beside_it_is_refused() -> None:
    config = load_config(FOLDER / "config.yaml", ["losses.box={type: GIoULoss}"])
    with pytest.raises(ValueError, match=r"losses.box: FreeAnchorLoss is a loss of classes and boxes together"):
        build_detector(config, 3)


def test_accumulated_steps_of_training_are_those_of_whole_batches(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=4", "head.norm=gn"]
    short += ["data.train.dataset.num_images=8", "data.val.dataset.num_images=2", "data.loader.num_workers=0"]
    short += ["train.accumulate=1", "backbone.norm=gn", "neck.norm=gn"]
    found = []
    for name, accumulate in (("whole", 1), ("split", 2)):
        config = load_config(FOLDER / "config.yaml", [*short, f"train.accumulate={accumulate}"])
        assert train(config, tmp_path / name) == 0
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        found.append([line for line in lines if "train/loss" in line])
    for whole, split in zip(*found, strict=True):
        for key in ("train/loss", "train/loss/positive_bag", "train/loss/negative_bag"):
            assert split[key] == pytest.approx(whole[key], rel=1e-4)


def test_it_is_compared_with_another_loss(tmp_path: Path) -> None:
    variant = tmp_path / "freeanchor.yaml"
    variant.write_text(
        f"imports: [{FOLDER / 'freeanchor.py'}]\nlosses: {{classification: {{type: FreeAnchorLoss}}, box: null}}\n"
    )
    short = [
        "train.iterations=1",
        "schedule.warmup_iterations=0",
        "data.loader.batch_size=2",
        "train.checkpoint_every=1",
    ]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2", "data.loader.num_workers=0"]
    quick = FOLDER / "../../configs/quickstart/shapes.yaml"
    plan = make_plan(quick, ["focal", str(variant)], seeds=[0], overrides=short)
    bench = tmp_path / "bench"
    save_plan(plan, bench, "")
    for cell in plan.cells(bench):
        assert run_cell(load_config(bench / f"variants/{cell.variant}.yaml", ["seed=0"]), cell.folder) == 0
    focal, joint = collect_results([bench])["variants"]
    assert [joint["class_loss"], joint["box_loss"], joint["diagnosis"]] == ["FreeAnchorLoss", None, None]
    assert focal["diagnosis"] is not None
    step0 = joint["cells"][0]["step0"]
    assert step0["grad_norm_class"] > 0
    assert step0["grad_norm_box"] == 0

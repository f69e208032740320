"""Identities of the diagnosis, for every registered class loss."""

import json

import numpy as np
import pytest
import torch

from detkit.compare import diagnosis
from detkit.compare.diagnosis import average, box_quality, calibration, diagnose, examine_anchors
from detkit.config import load_config
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.loader import Loader, build_eval_loader
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.evaluate.coco import CocoEvaluator, ground_truth_from
from detkit.evaluate.errors import Judged
from detkit.registry import CLASS_LOSSES, DATASETS
from tests.refusals import Refuses

SMALL = [
    "data.val.dataset.num_images=6",
    "data.val.dataset.size=64",
    "data.loader.num_workers=0",
    "data.loader.batch_size=4",
]


def parts(loss: str = "SigmoidFocalLoss") -> tuple[DenseDetector, ShapesDataset, Loader]:
    config = load_config("configs/quickstart/shapes.yaml", [*SMALL, f"losses.classification={{type: {loss}}}"])
    dataset = DATASETS.build(config.require("data.val.dataset"))
    torch.manual_seed(0)
    detector = build_detector(config, len(dataset.classes))
    with torch.no_grad():  # logits of all sizes, as in a detector that was trained
        for parameter in detector.head.parameters():
            parameter.mul_(2.0) if parameter.dim() > 1 else None
    return detector, dataset, build_eval_loader(dataset, [], config.options("data.loader"))


def stands_alone(name: str) -> bool:
    """Whether a class loss trains the quickstart with nothing but its name."""
    loss = CLASS_LOSSES.get(name)
    return not (loss.joint or loss.positives_only or name == "WarmupLoss")  # which is made of two others


@pytest.mark.parametrize("name", [name for name in CLASS_LOSSES.names() if stands_alone(name)])
def test_anchors_of_every_class_loss_add_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "HARDEST", 10**6)  # no sampling
    detector, _, loader = parts(name)
    found = examine_anchors(detector, loader, images=3)
    ranks = detector.class_loss.needs_positives
    # A GHM without a memory yet weighs an anchor by what is beside it, so alone it costs something else.
    if name != "GHMCLoss":
        assert found["closure"] == (None if ranks else pytest.approx(1, rel=1e-4))
    assert (found["share"]["loss"] is None) == ranks
    for shares in filter(None, found["share"].values()):
        assert sum(shares.values()) == pytest.approx(1)
    no_background_loss = ranks or name == "AsymmetricLoss"  # whose margin is above the scores of this detector
    assert (found["cumulative"]["foreground"] is None, found["cumulative"]["background"] is None) == (
        ranks, no_background_loss,
    )  # fmt: skip
    for side in filter(None, found["cumulative"].values()):
        assert side["loss"][0] == 0
        assert side["loss"][-1] == 1
        assert (np.diff(side["loss"]) >= 0).all()
        assert (np.diff(side["loss"], 2) >= -1e-5).all()  # sorted by loss: convex
    for side in ("foreground", "background"):
        assert sum(found["scores"][side]) == pytest.approx(1, abs=1e-4)
    assert found["num_images"] == 3
    assert detector.training


def test_sampling_changes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, _, loader = parts()
    monkeypatch.setattr(diagnosis, "HARDEST", 40)
    monkeypatch.setattr(diagnosis, "SAMPLED", 60)
    found = examine_anchors(detector, loader, images=6)
    assert found["closure"] == pytest.approx(1, abs=0.05)


def test_a_constant_loss_gives_the_diagonal() -> None:
    side = diagnosis.AnchorTotals()
    side.samples.append((torch.full((7,), 0.3), torch.arange(1.0, 8.0), torch.ones(7, dtype=torch.bool)))
    found = side.cumulative()
    assert found["loss"] == pytest.approx(found["fraction"], abs=1e-6)


def test_one_anchor_that_stands_for_nine_is_nine_tenths() -> None:
    side = diagnosis.AnchorTotals()
    side.samples.append((torch.tensor([0.0, 5.0]), torch.tensor([9.0, 1.0]), torch.tensor([True, False])))
    found = side.cumulative()
    assert found["loss"][90] == pytest.approx(0, abs=1e-6)
    assert found["loss"][95] == pytest.approx(0.5, abs=1e-6)
    assert side.total(easy=True) == 0
    assert side.total(easy=False) == 5


def judged(kinds: list[str], scores: list[float], iou: list[float] | None = None) -> Judged:
    n = len(kinds)
    return Judged(
        np.array(kinds), np.full(n, -1), np.array(iou or [0.0] * n), np.array(scores), np.zeros(n, int),
        np.zeros(1, int), np.zeros(1, bool), np.zeros(1, bool), np.arange(n), np.zeros(1, int),
    )  # fmt: skip


def test_calibration_by_hand() -> None:
    found = calibration(judged(["correct", "background", "correct", "ignored"], [0.81, 0.83, 0.12, 0.5]))
    assert found["count"][16] == 2
    assert found["precision"][16] == 0.5
    assert found["confidence"][16] == pytest.approx(0.82)
    assert found["precision"][10] is None
    assert found["ece"] == pytest.approx((2 * 0.32 + 0.88) / 3)


def test_box_quality_by_hand() -> None:
    found = box_quality(judged(["correct", "correct", "localisation"], [0.9, 0.8, 0.7], [0.5, 1.0, 0.3]))
    assert found["mean"] == 0.75
    assert found["fraction"][0] == found["fraction"][-1] == 0.5


def test_a_diagnosis_is_plain_data_and_can_be_averaged() -> None:
    detector, dataset, loader = parts()
    evaluator = CocoEvaluator(dataset.classes, ground_truth_from(dataset))
    with torch.no_grad():
        for batch in loader:
            evaluator.add(batch.image_ids, detector.detect(detector(batch.images, batch.sizes), batch.sizes))
    found = diagnose(detector, loader, evaluator.truth, evaluator.shard(), images=2)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    twice = average([found, found])
    assert twice["share"]["loss"] == pytest.approx(found["share"]["loss"])
    assert twice["calibration"]["edges"] == pytest.approx(found["calibration"]["edges"])
    assert [level["level"] for level in twice["positives_per_level"]] == ["p3", "p4", "p5"]
    assert average([]) is None


def test_no_image_is_an_error(refuses: Refuses) -> None:
    detector, _, _ = parts()
    with refuses(ValueError):
        examine_anchors(detector, [], images=2)

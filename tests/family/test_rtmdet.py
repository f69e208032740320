"""RTMDet against MMDetection: weights, outputs, assignments and their metrics, losses and detections."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from detkit.detectors.dense import DenseDetector
from detkit.heads.base import per_anchor
from detkit.losses.base import ClassificationLoss
from detkit.losses.focal import SigmoidFocalLoss
from detkit.losses.soft_targets import QualityFocalLoss
from detkit.losses.warmup import WarmupLoss
from detkit.structures import Predictions
from tests.family import reference as ref
from tests.family.csp_names import csp_rules

OUTPUTS = {"logits": "cls"}
LOSSES = {"classification": "loss_cls", "box": "loss_bbox"}
RULES: ref.Rules = (
    *csp_rules(depthwise=True),
    (r"^head\.class_towers\.", "bbox_head.cls_convs."),
    (r"^head\.box_towers\.", "bbox_head.reg_convs."),
    (r"_convs\.convs\.(\d)\.(\d)\.", r"_convs.\1.\2.conv."),
    (r"_convs\.norms\.(\d)\.(\d)\.", r"_convs.\1.\2.bn."),
    (r"^head\.class_out\.", "bbox_head.rtm_cls."),
    (r"^head\.box_out\.", "bbox_head.rtm_reg."),
)
SHARED = [
    f"bbox_head.{tower}_convs.{level}.{i}.conv.weight" for tower in ("cls", "reg") for level in (1, 2) for i in (0, 1)
]
"""Further names of the convolutions that all levels share."""
VARIANTS = pytest.mark.parametrize("variant", ["full", "half", "none"])


@cache
def built() -> tuple[ref.Reference, DenseDetector, Predictions]:
    model = ref.reference("rtmdet_tiny")
    detector = ref.detector_like("configs/rtmdet/rtmdet_tiny.yaml", model, RULES, copies=SHARED)
    with torch.no_grad():
        return model, detector, ref.predict(detector)


def in_pixels(detector: DenseDetector, deltas: Tensor) -> Tensor:
    """Distances in strides -> in pixels, which the reference's head gives."""
    strides = [torch.full((n,), float(s)) for n, s in zip((480, 120, 30), (8, 16, 32), strict=True)]
    return deltas * torch.cat(strides)[:, None]


def test_pixels_anchors_and_outputs() -> None:
    model, detector, pred = built()
    ref.check_network(detector, pred, model, OUTPUTS)
    wanted = torch.cat([per_anchor(level, 4) for level in model.levels("raw.reg")], dim=1)
    # Up to hundreds of pixels, and moved by 1e-3 by weights that are moved by 1e-6 (`stability` of the reference).
    torch.testing.assert_close(in_pixels(detector, pred.deltas), wanted, rtol=1e-5, atol=1e-3)


def test_shared_convolutions_are_one_tensor() -> None:
    model = built()[0]
    for key in SHARED:
        first = key.replace("convs.1", "convs.0").replace("convs.2", "convs.0")
        assert torch.equal(model.weights[key], model.weights[first])


@VARIANTS
def test_losses(variant: str) -> None:
    model, detector, pred = built()
    losses = detector.loss(pred, ref.targets_of(variant))
    ref.check_losses(detector, pred, model, variant, LOSSES)
    calls = model.about["loss_calls"][variant]
    for term, name in LOSSES.items():  # before they are divided: the reference has a call for each level
        wanted = sum(call["out_sum"] for call in calls if call["loss"] == name)
        assert float(losses.terms[term]) == pytest.approx(wanted, rel=1e-5)
    weights = sum(call["weight_sum"] for call in calls if call["loss"] == "loss_bbox")
    assert float(losses.normalizer) == pytest.approx(weights, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "progress", "soft"),
    [
        (QualityFocalLoss(), 0.0, True),
        (SigmoidFocalLoss(), 0.0, False),
        (WarmupLoss(first={"type": "SigmoidFocalLoss"}, then={"type": "QualityFocalLoss"}), 0.0, False),
        (WarmupLoss(first={"type": "SigmoidFocalLoss"}, then={"type": "QualityFocalLoss"}), 0.1, True),
    ],
)
def test_hard_targets_are_divided_by_their_number(loss: ClassificationLoss, progress: float, soft: bool) -> None:
    _, detector, pred = built()
    kept = detector.class_loss
    match = detector.match(pred, ref.targets_of("full"))
    detector.class_loss, detector.progress = loss, progress
    try:
        totals = detector.loss(pred, ref.targets_of("full")).normalizers
    finally:
        detector.class_loss, detector.progress = kept, 0.0
    assert match.quality is not None
    assert float(totals["positives"]) == pytest.approx(float(match.quality.sum()) if soft else len(match.row))
    assert float(totals["boxes"]) == pytest.approx(float(match.quality.sum()))


@VARIANTS
def test_assigned_labels_and_metrics(variant: str) -> None:
    model, detector, pred = built()
    match = detector.match(pred, ref.targets_of(variant))
    wanted, weights, metrics, boxes = (
        model[f"{variant}.get_targets.{name}"] for name in ("labels", "label_weights", "assign_metrics", "bbox_targets")
    )
    ref.check_labels(match.labels, wanted, weights == 0)
    assert match.quality is not None
    torch.testing.assert_close(match.quality, metrics, rtol=1e-4, atol=1e-5)
    assert torch.equal(match.boxes, boxes[match.image, match.row])


@VARIANTS
def test_gradients(variant: str) -> None:
    model, detector, _ = built()
    ref.check_gradients(detector, model, RULES, variant)


def test_detections() -> None:
    model, detector, pred = built()
    ref.check_detections(detector, pred, model)

"""TOOD against MMDetection: weights, outputs, assignments, losses and detections."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from detkit.boxes import centres
from detkit.detectors.dense import DenseDetector
from detkit.heads.base import HeadOutputs, per_anchor
from detkit.structures import Predictions
from tests.family import reference as ref

LOSSES = {"classification": "loss_cls", "box": "loss_bbox"}
VARIANTS = pytest.mark.parametrize("variant", ["full", "half", "none", "full_initial"])
BRANCH = {"class": "cls", "box": "reg"}
RULES: ref.Rules = (
    (r"^head\.tower\.(\d+)\.", lambda m: f"bbox_head.inter_convs.{ref.tower_name(int(m[1]))}."),
    (r"^head\.(class|box)_features\.attention\.", lambda m: f"bbox_head.{BRANCH[m[1]]}_decomp.layer_attention."),
    (
        r"^head\.(class|box)_features\.reduce\.(\d)\.",
        lambda m: f"bbox_head.{BRANCH[m[1]]}_decomp.reduction_conv.{ref.tower_name(int(m[2]))[2:]}.",
    ),
    (r"^head\.offset_map\.", "bbox_head.reg_offset_module."),
    (r"^head\.probability_map\.", "bbox_head.cls_prob_module."),
    *ref.towers("tood_cls", "tood_reg"),
)


@cache
def built() -> tuple[ref.Reference, DenseDetector, Predictions]:
    model = ref.reference("tood_r18")
    detector = ref.detector_like("configs/tood/tood.yaml", model, RULES)
    with torch.no_grad():
        return model, detector, ref.predict(detector)


def at_start(detector: DenseDetector, variant: str) -> None:
    """`full_initial` is before the change of rules, all others after it."""
    detector.progress = 0.0 if variant == "full_initial" else 0.5


def corners(deltas: Tensor, points: Tensor) -> Tensor:
    """Distances in cells from points (A, 2) in cells -> boxes in cells."""
    return torch.cat((points - deltas[..., :2], points + deltas[..., 2:]), dim=-1)


def test_pixels_anchors_and_outputs() -> None:
    model, detector, pred = built()
    ref.check_input(detector, model)
    ref.check_anchors(pred, model)
    # The reference has probabilities, and boxes in strides.
    stride = (pred.anchors[:, 2:3] - pred.anchors[:, :1]) / 8
    boxes = corners(pred.deltas, centres(pred.anchors) / stride)
    for found, name in ((pred.logits.sigmoid(), "raw.cls"), (boxes, "raw.reg")):
        wanted = torch.cat([per_anchor(level, found.shape[-1]) for level in model.levels(name)], dim=1)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def test_the_head_alone() -> None:
    model, detector, _ = built()
    shapes = [model[f"neck.{i}.shape"].tolist() for i in range(5)]
    small = [(1, c, -(-h // 2), -(-w // 2)) for _, c, h, w in shapes]
    features = [torch.from_numpy(ref.make_weights().features(i, shape)) for i, shape in enumerate(small)]
    with torch.no_grad():
        outputs = HeadOutputs(*detector.head(features))
    for i, (_, _, height, width) in enumerate(small):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        boxes = corners(outputs.deltas[i], torch.stack((x, y), dim=-1).reshape(-1, 2))
        for found, name in ((outputs.logits[i].sigmoid(), "cls"), (boxes, "reg")):
            wanted = per_anchor(model[f"head_only.{name}.{i}"], found.shape[-1])
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@VARIANTS
def test_labels_and_target_scores(variant: str) -> None:
    model, detector, pred = built()
    at_start(detector, variant)
    match = detector.match(pred, ref.targets_of(variant))
    ref.check_labels(
        match.labels, model[f"{variant}.get_targets.labels"], model[f"{variant}.get_targets.label_weights"] == 0
    )
    assert match.quality is not None
    scores = model[f"{variant}.get_targets.alignment_metrics"]
    if variant == "full_initial":  # there the reference has the weights of the boxes in their place
        scores = (match.labels >= 0).float()
    torch.testing.assert_close(match.quality, scores, rtol=1e-4, atol=1e-6)


@VARIANTS
def test_losses(variant: str) -> None:
    model, detector, pred = built()
    at_start(detector, variant)
    ref.check_losses(detector, pred, model, variant, LOSSES)


def test_detections() -> None:
    model, detector, pred = built()
    ref.check_detections(detector, pred, model)

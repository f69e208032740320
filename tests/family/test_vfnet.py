"""VFNet against MMDetection: weights, outputs, assignments, losses and detections."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from detkit.detectors.dense import DenseDetector
from detkit.heads.base import HeadOutputs, per_anchor
from detkit.structures import Predictions
from tests.family import reference as ref

LOSSES = {"classification": "loss_cls", "box": "loss_bbox_rf", "first_box": "loss_bbox"}
VARIANTS = pytest.mark.parametrize("variant", ["full", "half", "none"])
RULES: ref.Rules = (
    (r"^head\.first_tower\.(\d+)\.", lambda m: f"bbox_head.vfnet_reg_conv.{ref.tower_name(int(m[1]))[2:]}."),
    (r"^head\.first_out\.", "bbox_head.vfnet_reg."),
    (r"^head\.refine_star\.", "bbox_head.vfnet_reg_refine_dconv."),
    (r"^head\.refine_out\.", "bbox_head.vfnet_reg_refine."),
    (r"^head\.class_star\.", "bbox_head.vfnet_cls_dconv."),
    *ref.towers("vfnet_cls", ""),
)


@cache
def built() -> tuple[ref.Reference, DenseDetector, Predictions]:
    model = ref.reference("vfnet_r18")
    detector = ref.detector_like("configs/vfnet/vfnet.yaml", model, RULES)
    with torch.no_grad():
        return model, detector, ref.predict(detector)


def test_pixels_anchors_and_classes() -> None:
    model, detector, pred = built()
    ref.check_input(detector, model)
    ref.check_anchors(pred, model)
    ref.check_outputs(pred, model, {"logits": "cls"})
    ref.check_head(detector, model, {"logits": "cls"})


def test_first_and_refined_distances() -> None:
    model, detector, pred = built()
    assert pred.first is not None
    # The reference has pixels, detkit sides of the anchor.
    side = (pred.anchors[:, 2] - pred.anchors[:, 0])[:, None]
    for found, name in ((pred.deltas, "raw_train.reg_refine"), (pred.first, "raw_train.reg"), (pred.deltas, "raw.reg")):
        wanted = torch.cat([per_anchor(level, 4) for level in model.levels(name)], dim=1)
        torch.testing.assert_close(found * side, wanted, rtol=1e-5, atol=1e-4)
    sizes = [model[f"neck.{i}.shape"].tolist() for i in range(5)]
    features = [
        torch.from_numpy(ref.make_weights().features(i, (1, c, -(-h // 2), -(-w // 2))))
        for i, (_, c, h, w) in enumerate(sizes)
    ]
    with torch.no_grad():
        outputs = HeadOutputs(*detector.head(features))
    for i, (level, stride) in enumerate(zip(outputs.deltas, (8, 16, 32, 64, 128), strict=True)):
        wanted = per_anchor(model[f"head_only.reg.{i}"], 4)
        torch.testing.assert_close(level * 8 * stride, wanted, rtol=1e-5, atol=1e-4)


@VARIANTS
def test_labels(variant: str) -> None:
    model, detector, pred = built()
    labels = detector.match(pred, ref.targets_of(variant)).labels
    ref.check_labels(labels, model[f"{variant}.get_targets.labels"].reshape(labels.shape))


@VARIANTS
def test_losses(variant: str) -> None:
    model, detector, pred = built()
    ref.check_losses(detector, pred, model, variant, LOSSES)


def test_detections() -> None:
    model, detector, pred = built()
    ref.check_detections(detector, pred, model)

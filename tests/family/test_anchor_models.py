"""RetinaNet, SSD and EfficientDet against MMDetection: weights, outputs, assignments, losses and detections."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import pytest
import torch

from detkit.detectors.dense import DenseDetector
from detkit.structures import Predictions
from tests.family import reference as ref


@dataclass(frozen=True)
class Case:
    """config, overrides: of detkit. rules: its names -> the reference's. kind: images that the model is given."""

    config: str
    rules: ref.Rules
    overrides: list[str] = field(default_factory=list)
    kind: str = "inputs"


RETINANET: ref.Rules = (
    (r"^head\.class_tower\.(\d+)\.", lambda m: f"bbox_head.cls_convs.{int(m[1]) // 2}.conv."),
    (r"^head\.box_tower\.(\d+)\.", lambda m: f"bbox_head.reg_convs.{int(m[1]) // 2}.conv."),
    (r"^head\.class_out\.", "bbox_head.retina_cls."),
    (r"^head\.box_out\.", "bbox_head.retina_reg."),
)
SSD: ref.Rules = (
    (r"^backbone\.top\.(\d)\.", lambda m: f"backbone.features.{31 + int(m[1])}."),
    (r"^backbone\.scale$", "neck.l2_norm.weight"),
    # As `BODY` leaves the extra levels: 1x1 convolution, ReLU, 3x3 convolution, ReLU.
    (r"^neck\.fpn_convs\.(\d)\.conv\.(\d)\.", lambda m: f"neck.extra_layers.{int(m[1]) - 3}.{int(m[2]) // 2}.conv."),
    (r"^head\.class_out\.(\d)\.", r"bbox_head.cls_convs.\1.0."),
    (r"^head\.box_out\.(\d)\.", r"bbox_head.reg_convs.\1.0."),
)
CASES = {
    "retinanet_r18": Case("configs/retinanet/retinanet_mmdet.yaml", RETINANET),
    "ssd300": Case("configs/ssd/ssd300_mmdet.yaml", SSD, kind="ssd_inputs"),
}
EACH = pytest.mark.parametrize("name", CASES)
VARIANTS = pytest.mark.parametrize("variant", ["full", "half", "none"])
OUTPUTS = {"logits": "cls", "deltas": "reg"}


@cache
def built(name: str) -> tuple[ref.Reference, DenseDetector, Predictions]:
    case, model = CASES[name], ref.reference(name)
    detector = ref.detector_like(case.config, model, case.rules, *case.overrides)
    with torch.no_grad():
        return model, detector, ref.predict(detector, case.kind)


@EACH
def test_pixels_anchors_and_outputs(name: str) -> None:
    model, detector, pred = built(name)
    ref.check_input(detector, model, CASES[name].kind)
    ref.check_anchors(pred, model, atol=1e-4)  # sides in float32 there, in float64 here
    ref.check_outputs(pred, model, OUTPUTS)


@VARIANTS
@EACH
def test_losses(name: str, variant: str) -> None:
    model, detector, pred = built(name)
    names = {"classification": "loss_cls", "box": "loss_bbox"}
    ref.check_losses(detector, pred, model, variant, names, CASES[name].kind)


@VARIANTS
@EACH
def test_assigned_labels(name: str, variant: str) -> None:
    model, detector, pred = built(name)
    labels = detector.match(pred, ref.targets_of(variant, CASES[name].kind)).labels
    wanted = model[f"{variant}.get_targets.labels"].reshape(labels.shape)
    ref.check_labels(labels, wanted, model[f"{variant}.get_targets.label_weights"] == 0)


@VARIANTS
@EACH
def test_encoded_boxes(name: str, variant: str) -> None:
    model, detector, pred = built(name)
    match = detector.match(pred, ref.targets_of(variant, CASES[name].kind))
    encoded = detector.coder.encode(match.boxes, pred.anchors[match.row])
    wanted = model[f"{variant}.get_targets.bbox_targets"][match.image, match.row]
    torch.testing.assert_close(encoded, wanted, rtol=1e-5, atol=1e-5)


@EACH
def test_detections(name: str) -> None:
    model, detector, pred = built(name)
    ref.check_detections(detector, pred, model, CASES[name].kind)

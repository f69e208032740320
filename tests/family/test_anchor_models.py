"""RetinaNet, SSD and EfficientDet against MMDetection: weights, outputs, assignments, losses and detections."""

from __future__ import annotations

import re
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
BLOCKS = {1: (1, 0), 2: (2, 0), 3: (3, 0), 4: (4, 0), 5: (4, 3), 6: (5, 0), 7: (5, 4)}
"""Stage of torchvision -> layer of the reference, and which of its blocks is the stage's first."""
MEMBERS = ("depthwise_conv.", "se.", "linear_conv.")


def block(m: re.Match[str]) -> str:
    """A block: 1x1 convolution (not in the first stage), depthwise, squeeze and excitation, 1x1 convolution."""
    stage, row, member = int(m[1]), int(m[2]), int(m[3])
    layer, first = BLOCKS[stage]
    members = MEMBERS if stage == 1 else ("expand_conv.", *MEMBERS)
    return f"backbone.layers.{layer}.{row + first}.{members[member]}"


def lateral(m: re.Match[str]) -> str:
    kind = {"lateral": f"p{m[2]}_down_channel", "again": f"p{m[2]}_level_connection"}[m[1]]
    return f"neck.bifpn.0.{kind}.{('down_conv', 'bn')[int(m[3])]}."


def fusion(m: re.Match[str]) -> str:
    """The nodes of a round, finest first: down of p3 .. p6, up of p4 .. p7; theirs are named the other way."""
    level, way = (3 + int(m[3]), 1) if m[2] == "down" else (4 + int(m[3]), 2)
    if m[4] == "weight":
        return f"neck.bifpn.{m[1]}.p{level}_w{way}"
    kind = {"depthwise.": "depthwise_conv.", "pointwise.": "pointwise_conv.", "norm.": "bn."}[m[4]]
    return f"neck.bifpn.{m[1]}.conv{level}_{('up', 'down')[way - 1]}.{kind}"


EFFICIENTDET: ref.Rules = (
    (r"^backbone\.features\.0\.(\d)\.", lambda m: f"backbone.layers.0.{('conv', 'bn')[int(m[1])]}."),
    (r"^backbone\.features\.(\d)\.(\d)\.block\.(\d)\.", block),
    (r"(?<=\.se\.)fc(\d)\.", r"conv\1.conv."),
    (r"(?<=_conv\.)0\.", "conv."),
    (r"(?<=_conv\.)1\.", "bn."),
    # As `BODY` leaves the laterals and the extra level.
    (r"^neck\.lateral_convs\.(\d)\.conv\.", lambda m: f"neck.lateral.c{int(m[1]) + 3}."),
    (r"^neck\.fpn_convs\.3\.conv\.0\.", "neck.bifpn.0.p5_to_p6.0.down_conv."),
    (r"^neck\.fpn_convs\.3\.conv\.1\.", "neck.bifpn.0.p5_to_p6.0.bn."),
    (r"^neck\.(lateral|again)\.c(\d)\.(\d)\.", lateral),
    (r"^neck\.layers\.(\d)\.(down|up)\.(\d)\.(weight$|depthwise\.|pointwise\.|norm\.)", fusion),
    (r"^head\.class_tower\.norms\.", "bbox_head.cls_bn_list."),
    (r"^head\.box_tower\.norms\.", "bbox_head.reg_bn_list."),
    (r"^head\.class_tower\.convs\.", "bbox_head.cls_conv_list."),
    (r"^head\.box_tower\.convs\.", "bbox_head.reg_conv_list."),
    (r"^head\.class_out\.", "bbox_head.cls_header."),
    (r"^head\.box_out\.", "bbox_head.reg_header."),
    (r"(?<=conv_list\.\d\.)0\.", "depthwise_conv."),
    (r"(?<=conv_list\.\d\.)1\.", "pointwise_conv."),
    (r"(?<=_header\.)0\.", "depthwise_conv."),
    (r"(?<=_header\.)1\.", "pointwise_conv."),
)
CASES = {
    "efficientdet_d0": Case("configs/efficientdet/efficientdet_d0.yaml", EFFICIENTDET, kind="padded_inputs"),
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

"""YOLOF against MMDetection: weights, outputs, assignments, pairs of the box loss, losses and detections."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from detkit.detectors.dense import DenseDetector
from detkit.detectors.terms import image_by_image, loss_inputs, loss_terms
from detkit.structures import Predictions
from tests.family import reference as ref

NAME = "yolof_r18"
OUTPUTS = {"logits": "cls", "deltas": "reg"}
LOSSES = {"classification": "loss_cls", "box": "loss_bbox"}
PIXELS = ["pixels.mean=[103.53,116.28,123.675]", "pixels.std=[1,1,1]", "pixels.order=bgr"]
PARTS = ("conv", "bn")
RULES: ref.Rules = (
    (r"^neck\.project\.0\.", "neck.lateral_conv."),
    (r"^neck\.project\.1\.", "neck.lateral_norm."),
    (r"^neck\.project\.2\.", "neck.fpn_conv."),
    (r"^neck\.project\.3\.", "neck.fpn_norm."),
    (r"^neck\.blocks\.(\d)\.body\.(\d)\.", lambda m: f"neck.dilated_encoder_blocks.{m[1]}.conv{layer(m[2])}."),
    (r"^head\.class_tower\.(\d+)\.", lambda m: f"bbox_head.cls_subnet.{layer(m[1], 0)}."),
    (r"^head\.box_tower\.(\d+)\.", lambda m: f"bbox_head.bbox_subnet.{layer(m[1], 0)}."),
    (r"^head\.class_out\.", "bbox_head.cls_score."),
    (r"^head\.box_out\.", "bbox_head.bbox_pred."),
    (r"^head\.object_out\.", "bbox_head.object_pred."),
)  # fmt: skip
VARIANTS = pytest.mark.parametrize("variant", ["full", "half", "none"])


def layer(module: str, first: int = 1) -> str:
    """Convolution, norm and ReLU by turns."""
    return f"{int(module) // 3 + first}.{PARTS[int(module) % 3]}"


@cache
def built() -> tuple[ref.Reference, DenseDetector, Predictions]:
    model = ref.reference(NAME)
    detector = ref.detector_like("configs/yolof/yolof.yaml", model, RULES, *PIXELS)
    with torch.no_grad():
        return model, detector, ref.predict(detector)


def test_pixels_anchors_and_outputs() -> None:
    model, detector, pred = built()
    ref.check_network(detector, pred, model, OUTPUTS)


@VARIANTS
def test_losses(variant: str) -> None:
    model, detector, pred = built()
    ref.check_losses(detector, pred, model, variant, LOSSES)
    numbers = detector.loss(pred, ref.targets_of(variant)).normalizers
    assert int(numbers["positives"]) == int(model[f"{variant}.get_targets.avg_factor"])


@VARIANTS
def test_assigned_labels(variant: str) -> None:
    model, detector, pred = built()
    labels = detector.match(pred, ref.targets_of(variant)).labels
    wanted, weights = (model[f"{variant}.get_targets.{name}"] for name in ("labels", "label_weights"))
    ref.check_labels(labels, wanted, weights == 0)


@VARIANTS
def test_pairs_of_the_box_loss(variant: str) -> None:
    """An anchor stands for every object that it is near to."""
    model, detector, pred = built()
    match = detector.match(pred, ref.targets_of(variant))
    counted = model[f"{variant}.get_targets.bbox_weights"]
    boxes, predicted = (model[f"{variant}.get_targets.{n}"][counted] for n in ("target_boxes", "pos_predicted_boxes"))
    found = detector.coder.decode(pred.deltas[match.image, match.row], pred.anchors[match.row])
    torch.testing.assert_close(match.boxes, boxes, rtol=0, atol=0)
    torch.testing.assert_close(found, predicted, rtol=1e-5, atol=1e-3)
    once = len(torch.stack((match.image, match.row)).unique(dim=1).T)
    assert once < len(match.row) or variant == "none"


@pytest.mark.parametrize("variant", ["full", "half"])
def test_pairs_stay_with_their_image(variant: str) -> None:
    """A normalizer that weighs each image gets the sums of each."""
    _, detector, pred = built()
    targets, parts = ref.targets_of(variant), detector.loss_parts
    match = detector.match(pred, targets)
    inputs = loss_inputs(parts, detector.coder, pred, match, match, 0.0)
    of_images = [loss_terms(parts, detector.coder, one)["box"] for one in image_by_image(inputs)]
    for i, found in enumerate(of_images):
        one = slice(i, i + 1)
        alone = replace(pred, logits=pred.logits[one], deltas=pred.deltas[one], sizes=ref.inputs()[1][one])
        torch.testing.assert_close(found, detector.loss(alone, targets[one]).box)


@VARIANTS
def test_gradients(variant: str) -> None:
    model, detector, _ = built()
    ref.check_gradients(detector, model, RULES, variant)


def test_detections() -> None:
    model, detector, pred = built()
    ref.check_detections(detector, pred, model)

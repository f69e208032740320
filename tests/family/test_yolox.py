"""YOLOX against MMDetection: weights, outputs, assignments and their targets, losses and detections."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch

from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.structures import BACKGROUND, Predictions
from tests.family import reference as ref
from tests.family.csp_names import csp_rules

OUTPUTS = {"logits": "cls", "deltas": "reg", "quality": "obj"}
LOSSES = {"classification": "loss_cls", "box": "loss_bbox", "quality": "loss_obj"}
LATE = {**LOSSES, "l1": "loss_l1"}
RULES: ref.Rules = (
    *csp_rules(depthwise=False),
    (r"^head\.class_towers\.", "bbox_head.multi_level_cls_convs."),
    (r"^head\.box_towers\.", "bbox_head.multi_level_reg_convs."),
    (r"_convs\.convs\.(\d)\.(\d)\.", r"_convs.\1.\2.conv."),
    (r"_convs\.norms\.(\d)\.(\d)\.", r"_convs.\1.\2.bn."),
    (r"^head\.class_out\.", "bbox_head.multi_level_conv_cls."),
    (r"^head\.box_out\.", "bbox_head.multi_level_conv_reg."),
    (r"^head\.quality_out\.", "bbox_head.multi_level_conv_obj."),
)
VARIANTS = pytest.mark.parametrize("variant", ["full", "half", "none"])


@cache
def built() -> tuple[ref.Reference, DenseDetector, Predictions]:
    model = ref.reference("yolox_tiny")
    detector = ref.detector_like(
        "configs/yolox/yolox_tiny.yaml", model, RULES, "pixels.padding=0"
    )  # as in its input.sum
    with torch.no_grad():
        return model, detector, ref.predict(detector)


@pytest.fixture
def late() -> Iterator[tuple[ref.Reference, DenseDetector, Predictions]]:
    """In the last steps of the training."""
    _, detector, _ = built()
    detector.progress = 0.99
    yield built()
    detector.progress = 0.0


def test_pixels_anchors_and_outputs() -> None:
    model, detector, pred = built()
    ref.check_network(detector, pred, model, OUTPUTS)


@VARIANTS
def test_losses(variant: str) -> None:
    model, detector, pred = built()
    losses = detector.loss(pred, ref.targets_of(variant))
    terms = ref.divided(detector, losses)
    assert float(terms["l1"]) == 0
    for term, name in LOSSES.items():
        assert float(terms[term]) == pytest.approx(model.about["losses"][variant][name], rel=1e-5)
    calls = {call["loss"]: call["out_sum"] for call in model.about["loss_calls"][variant]}
    for term, name in LOSSES.items():  # before they are divided
        assert float(losses.terms[term]) == pytest.approx(calls.get(name, 0.0), rel=1e-5)


def test_losses_of_the_last_steps(late: tuple[ref.Reference, DenseDetector, Predictions]) -> None:
    model, detector, pred = late
    ref.check_losses(detector, pred, model, "full_l1", LATE)


@pytest.mark.parametrize("variant", ["full", "half", "none", "full_l1"])
def test_assignments_and_targets(variant: str) -> None:
    model, detector, pred = built()
    match = detector.match(pred, ref.targets_of(variant))
    start = 0
    for image, more in enumerate(("", ".1")):
        prefix = f"{variant}.get_targets_single{more}"
        foreground = model[f"{prefix}.foreground"]
        classes, boxes = model[f"{prefix}.cls_targets"], model[f"{prefix}.bbox_targets"]
        found = match.labels[image]
        assert torch.equal(found >= 0, foreground)
        assert torch.equal(found[~foreground], torch.full_like(found[~foreground], BACKGROUND))
        mine = slice(start, start + len(boxes))
        start += len(boxes)
        torch.testing.assert_close(match.boxes[mine], boxes, rtol=0, atol=0)
        assert match.quality is not None
        wanted = torch.nn.functional.one_hot(found[foreground], 3) * match.quality[image][foreground][:, None]
        torch.testing.assert_close(wanted, classes, rtol=1e-5, atol=1e-5)
        if variant == "full_l1":  # the others have zeros there
            encoded = detector.coder.encode(match.boxes[mine], pred.anchors[foreground])
            torch.testing.assert_close(encoded, model[f"{prefix}.l1_targets"], rtol=1e-5, atol=1e-5)
        if f"{variant}.assign.assigner.{image}.gt_inds" in model:
            objects = model[f"{variant}.assign.assigner.{image}.gt_inds"][foreground].long() - 1
            assert torch.equal(ref.targets_of(variant)[image].boxes[objects], match.boxes[mine])
    assert start == len(match.boxes)


@VARIANTS
def test_gradients(variant: str) -> None:
    model, detector, _ = built()
    ref.check_gradients(detector, model, RULES, variant)


def test_detections() -> None:
    model, detector, pred = built()
    ref.check_detections(detector, pred, model)


def test_the_class_loss_without_a_quality_branch_is_refused() -> None:
    config = load_config("configs/quickstart/shapes.yaml", ["losses.classification={type: PositiveBCELoss}"])
    with pytest.raises(ValueError, match="PositiveBCELoss teaches nothing about the background: set losses"):
        build_detector(config, 3)

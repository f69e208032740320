"""FCOS, ATSS and GFL against MMDetection: weights, outputs, assignments, losses and detections."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import pytest
import torch

from detkit.detectors.dense import DenseDetector
from detkit.structures import Predictions
from tests.family import reference as ref

BGR = ["pixels.std=[1,1,1]", "pixels.order=bgr"]
CAFFE = ["pixels.mean=[102.9801,115.9465,122.7717]", *BGR]
SIMPLE = ["pixels.mean=[103.53,116.28,123.675]", *BGR]


@dataclass(frozen=True)
class Case:
    """config, overrides: of detkit. rules: names of the head. outputs: field of the predictions -> output of the
    reference. losses: term -> its loss."""

    config: str
    rules: ref.Rules
    outputs: dict[str, str]
    losses: dict[str, str]
    overrides: list[str] = field(default_factory=list)


LOSSES = {"classification": "loss_cls", "box": "loss_bbox", "quality": "loss_centerness"}
CASES = {
    "fcos_r18": Case(
        "configs/fcos/fcos_plain.yaml", ref.towers("conv_cls", "conv_reg", "conv_centerness"),
        {"logits": "cls", "quality": "centerness"}, LOSSES, CAFFE,
    ),
    "fcos_r18_center": Case(
        "configs/fcos/fcos.yaml", ref.towers("conv_cls", "conv_reg", "conv_centerness"),
        {"logits": "cls", "quality": "centerness"}, LOSSES, SIMPLE,
    ),
    "atss_r18": Case(
        "configs/atss/atss.yaml", ref.towers("atss_cls", "atss_reg", "atss_centerness"),
        {"logits": "cls", "deltas": "reg", "quality": "centerness"}, LOSSES,
    ),
    "gfl_r18": Case(
        "configs/gfl/gfl.yaml", ref.towers("gfl_cls", "gfl_reg"), {"logits": "cls", "deltas": "reg"},
        {"classification": "loss_cls", "box": "loss_bbox", "distribution": "loss_dfl"},
    ),
}  # fmt: skip
EACH = pytest.mark.parametrize("name", CASES)


@cache
def built(name: str) -> tuple[ref.Reference, DenseDetector, Predictions]:
    case, model = CASES[name], ref.reference(name)
    detector = ref.detector_like(case.config, model, case.rules, *case.overrides)
    with torch.no_grad():
        return model, detector, ref.predict(detector)


@EACH
def test_pixels_anchors_and_outputs(name: str) -> None:
    model, detector, pred = built(name)
    ref.check_input(detector, model)
    ref.check_anchors(pred, model)
    ref.check_outputs(pred, model, CASES[name].outputs)
    ref.check_head(detector, model, CASES[name].outputs)


@pytest.mark.parametrize("variant", ["full", "half", "none"])
@EACH
def test_losses(name: str, variant: str) -> None:
    model, detector, pred = built(name)
    ref.check_losses(detector, pred, model, variant, CASES[name].losses)


@pytest.mark.parametrize("variant", ["full", "half", "none"])
@EACH
def test_assigned_labels(name: str, variant: str) -> None:
    model, detector, pred = built(name)
    labels = detector.match(pred, ref.targets_of(variant)).labels
    wanted = model[f"{variant}.get_targets.labels"]
    weights = f"{variant}.get_targets.label_weights"
    ref.check_labels(labels, wanted.reshape(labels.shape), model[weights] == 0 if weights in model else None)


@EACH
def test_detections(name: str) -> None:
    model, detector, pred = built(name)
    ref.check_detections(detector, pred, model)

"""DDOD against MMDetection: weights, outputs, assignments, losses and detections."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch

from detkit.detectors.dense import DenseDetector
from detkit.losses.normalizers import ImagePositiveCount
from detkit.structures import Predictions
from tests.family import reference as ref

OUTPUTS = {"logits": "cls", "deltas": "reg", "quality": "iou"}
LOSSES = {"classification": "loss_cls", "box": "loss_bbox", "quality": "loss_iou"}
VARIANTS = pytest.mark.parametrize("variant", ["full", "half", "none"])
BRANCH = {"class": "cls", "box": "reg"}
RULES: ref.Rules = (
    (r"^head\.(class|box)_tower\.0\.offset\.", lambda m: f"bbox_head.{BRANCH[m[1]]}_convs.0.conv.conv_offset."),
    *ref.towers("atss_cls", "atss_reg", "atss_iou"),
)


@cache
def built() -> tuple[ref.Reference, DenseDetector, Predictions]:
    model = ref.reference("ddod_r18")
    detector = ref.detector_like("configs/ddod/ddod.yaml", model, RULES)
    with torch.no_grad():
        return model, detector, ref.predict(detector)


def test_pixels_anchors_and_outputs() -> None:
    model, detector, pred = built()
    ref.check_network(detector, pred, model, OUTPUTS)


@VARIANTS
def test_labels_of_classes_and_boxes(variant: str) -> None:
    model, detector, pred = built()
    for kind, assigner in (("cls", detector.assigner), ("reg", detector.box_assigner)):
        labels = detector.match(pred, ref.targets_of(variant), assigner).labels
        targets = f"{variant}.get_{kind}_targets"
        ref.check_labels(labels, model[f"{targets}.labels"], model[f"{targets}.label_weights"] == 0)


def with_factors(detector: DenseDetector, model: ref.Reference, variant: str) -> DenseDetector:
    """A copy of the detector with the level factors of the reference."""
    detector = copy.deepcopy(detector)
    # The reference counts the step itself, and classes and boxes together: 2 - n / most, its coarsest levels have none.
    for name, key in (("normalizer", ""), ("box_normalizer", ".1"), ("quality_normalizer", ".1")):
        factors = model[f"{variant}.calc_reweight_factor{key}.level_factors"]
        detector.get_submodule(name).get_buffer("seen").copy_((2 - factors) * 1e6)
        torch.testing.assert_close(getattr(detector, name).level_weights(), factors, rtol=0, atol=1e-10)
    return detector


@VARIANTS
def test_losses_with_the_level_factors_of_the_reference(variant: str) -> None:
    model, detector, pred = built()
    ref.check_losses(with_factors(detector, model, variant), pred, model, variant, LOSSES)


def test_levels_that_had_equally_many_weigh_alike() -> None:
    _, detector, pred = built()
    balanced = detector.loss(pred, ref.targets_of("full"))
    plain = copy.deepcopy(detector)
    plain.normalizer = plain.box_normalizer = plain.quality_normalizer = ImagePositiveCount()
    for name, term in plain.loss(pred, ref.targets_of("full")).terms.items():
        torch.testing.assert_close(balanced.terms[name], term, rtol=1e-5, atol=1e-6)


def test_detections() -> None:
    model, detector, pred = built()
    ref.check_detections(detector, pred, model)

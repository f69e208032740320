"""PAA against MMDetection: weights, outputs, assignments, losses and detections."""

from __future__ import annotations

from functools import cache
from typing import cast

import pytest
import torch

from detkit.assigners.base import Assigner
from detkit.detectors.dense import DenseDetector
from detkit.structures import Predictions
from tests.family import reference as ref

OUTPUTS = {"logits": "cls", "deltas": "reg", "quality": "iou"}
LOSSES = {"classification": "loss_cls", "box": "loss_bbox", "quality": "loss_iou"}
RULES = ref.towers("atss_cls", "atss_reg", "atss_centerness")
VARIANTS = pytest.mark.parametrize("variant", ["full", "half", "none"])


@cache
def built() -> tuple[ref.Reference, DenseDetector, Predictions]:
    model = ref.reference("paa_r18")
    detector = ref.detector_like("configs/paa/paa.yaml", model, RULES)
    with torch.no_grad():
        return model, detector, ref.predict(detector)


def test_pixels_anchors_and_outputs() -> None:
    model, detector, pred = built()
    ref.check_network(detector, pred, model, OUTPUTS)


@VARIANTS
def test_labels_before_and_after_the_mixture(variant: str) -> None:
    model, detector, pred = built()
    final = [model[f"{variant}.paa_reassign{i}.labels"] for i in ("", ".1")]
    counts = [model[f"{variant}.paa_reassign{i}.label_weights"] for i in ("", ".1")]
    for assigner, wanted, weights in (
        (detector.assigner, torch.stack(final), torch.stack(counts)),
        # The padding's anchors are proposed by nobody.
        (cast("Assigner", detector.assigner.assigner.assigner), model[f"{variant}.get_targets.labels"], None),
    ):
        labels = detector.match(pred, ref.targets_of(variant), assigner).labels
        if weights is None:
            valid = torch.stack([model[f"valid.{i}"] for i in range(2)])
            labels, wanted = labels[valid], wanted[valid]
        ref.check_labels(labels, wanted, None if weights is None else weights == 0)


@pytest.mark.parametrize("variant", ["full", "half"])
def test_costs_of_the_proposed_anchors(variant: str) -> None:
    model, detector, pred = built()
    mixture = detector.assigner.assigner
    for image in range(2 if variant == "full" else 1):
        target = ref.targets_of(variant)[image]
        wanted = model[f"{variant}.get_pos_loss{'.1' if image else ''}.pos_losses"]
        rows = model[f"{variant}.get_targets.pos_inds.{image}"].long()
        candidates = detector.candidates(pred, image)
        objects = mixture.assigner(candidates, target).matched[rows]
        costs = mixture.costs(candidates, target, rows, objects)
        torch.testing.assert_close(costs, wanted, rtol=1e-5, atol=1e-5)


@VARIANTS
def test_losses(variant: str) -> None:
    model, detector, pred = built()
    ref.check_losses(detector, pred, model, variant, LOSSES)


def test_detections() -> None:
    model, detector, pred = built()
    ref.check_detections(detector, pred, model)

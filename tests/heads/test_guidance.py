"""GFLv2's guidance of the class score by the box's distributions."""

from __future__ import annotations

import torch

from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.heads.base import HeadOutputs
from detkit.heads.guidance import DistributionGuidance
from tests.refusals import Refuses


def test_the_logits_are_those_of_the_product_of_two_probabilities() -> None:
    torch.manual_seed(0)
    guided = build_detector(load_config("gflv2", ["backbone.depth=18", "backbone.weights=null"]), 3).eval()
    features = [torch.randn(1, 256, 6, 5)] * 5
    with torch.no_grad():
        for layer in guided.head.guidance.layers[::2]:
            layer.weight.normal_()
        logits, deltas, *_ = HeadOutputs(*guided.head(features))
        guidance, guided.head.guidance = guided.head.guidance, None
        classes = HeadOutputs(*guided.head(features)).logits
        # Section 3.2 by hand: the four highest probabilities of an edge, their mean, two layers.
        shares = deltas[0].view(1, 30, 4, 17).softmax(-1).sort(-1, descending=True).values[..., :4]
        hidden = torch.cat((shares, shares.mean(-1, keepdim=True)), -1).view(1, 30, 20)
        first, last = guidance.layers[0], guidance.layers[2]
        quality = ((hidden @ first.weight.T + first.bias).relu() @ last.weight.T + last.bias).sigmoid()
    torch.testing.assert_close(logits[0].sigmoid(), classes[0].sigmoid() * quality, rtol=1e-4, atol=1e-6)
    assert quality.std() > 0.002


def test_a_coder_without_distributions_is_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        DistributionGuidance(4)
    with refuses(ValueError):
        load_config("atss", ["head.guided=true"]).check()

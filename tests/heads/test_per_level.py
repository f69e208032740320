"""A head of its own for every level."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detkit.heads.per_level import PerLevelHead
from tests.refusals import Refuses


def head(**options: Any) -> PerLevelHead:
    torch.manual_seed(0)
    return PerLevelHead(
        in_channels=(6, 10), anchors_per_cell=(2, 3), num_columns=4, class_bias=torch.arange(4.0), **options
    )


LITE: dict[str, Any] = {"lite": True, "norm": "bn"}


@pytest.mark.parametrize("options", [{}, LITE, {"lite": True}], ids=["full", "lite", "lite without norm"])
def test_levels_may_differ_in_channels_and_anchors(options: Any) -> None:
    model = head(**options).eval()
    logits, deltas = model([torch.zeros(2, 6, 4, 5), torch.zeros(2, 10, 1, 2)])
    assert [x.shape for x in logits] == [(2, 4 * 5 * 2, 4), (2, 2 * 3, 4)]
    assert [x.shape for x in deltas] == [(2, 4 * 5 * 2, 4), (2, 2 * 3, 4)]
    for level in logits:  # nothing comes in, so every anchor shows its bias
        torch.testing.assert_close(level, torch.arange(4.0).expand_as(level))


@pytest.mark.parametrize("options", [{}, LITE], ids=["full", "lite"])
def test_levels_share_nothing_and_every_weight_learns(options: Any) -> None:
    model = head(**options)
    features = [torch.randn(2, 6, 4, 5), torch.randn(2, 10, 2, 2)]
    logits, deltas = model(features)
    (logits[1].square().sum() + deltas[1].square().sum()).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {n for n, _ in model.named_parameters() if n.split(".")[1] == "1"}


def test_an_anchor_of_a_cell_is_where_its_channels_are() -> None:
    model = head()
    level = model.class_out[0]
    with torch.no_grad():
        level.weight.zero_()
        level.bias.zero_()
        level.weight[1 * 4 + 2, 3, 1, 1] = 1.0  # second anchor, third column, looks at channel 3
    x = torch.zeros(1, 6, 4, 5)
    x[0, 3, 2, 1] = 7.0
    logits, _ = model([x, torch.zeros(1, 10, 1, 1)])
    assert logits[0].nonzero().tolist() == [[0, (2 * 5 + 1) * 2 + 1, 2]]


def test_a_norm_without_a_place_is_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        head(norm="bn")

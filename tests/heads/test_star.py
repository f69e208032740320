from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from detkit.coders.distance import DistanceCoder
from detkit.heads.star import StarHead, star_offsets
from detkit.losses.auxiliary import FirstBoxLoss
from detkit.structures import Positives

OPTIONS: dict[str, Any] = {"num_columns": 2, "class_bias": torch.tensor([-1.0, -2.0])}


def test_a_box_of_the_kernels_size_needs_no_offsets() -> None:
    assert not star_offsets(torch.ones(1, 4, 2, 3)).any()


def test_the_star_of_a_box_by_hand() -> None:
    # Left 2, top 3, right 4, bottom 5 cells: the middle stays, the corners lie at (-3, -2) .. (5, 4), as (y, x).
    distances = torch.tensor([2.0, 3.0, 4.0, 5.0]).view(1, 4, 1, 1)
    grid = torch.tensor([[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1)])
    places = star_offsets(distances).view(9, 2) + grid
    assert places.tolist() == [[y, x] for y in (-3, 0, 5) for x in (-2, 0, 4)]


def test_a_fraction_of_the_gradient_reaches_the_first_box_through_the_star() -> None:
    torch.manual_seed(0)
    gradients: list[tuple[torch.Tensor | None, dict[str, torch.Tensor]]] = []
    for fraction in (0.1, 1.0, 0.0):
        head = StarHead(
            in_channels=(8,), anchors_per_cell=(1,), num_convs=1, unit=0.7, star_gradient=fraction, **OPTIONS
        )
        head.load_state_dict(gradients[0][1] if gradients else head.state_dict())
        torch.manual_seed(1)
        outputs = head([torch.randn(1, 8, 5, 5)])
        outputs.logits[0].square().sum().backward()
        gradients.append((head.first_out.weight.grad, head.state_dict()))
    tenth, whole, none = (gradient for gradient, _ in gradients if gradient is not None)
    assert whole.abs().sum() > 0
    torch.testing.assert_close(tenth * 10, whole, rtol=1e-4, atol=1e-9)
    assert not none.any()


def test_more_anchors_a_cell_are_refused() -> None:
    with pytest.raises(ValueError, match=r"StarHead predicts one box a cell, but .* \(3,\)"):
        StarHead(in_channels=(8,), anchors_per_cell=(3,), **OPTIONS)


def test_a_loss_on_first_boxes_wants_a_head_that_has_them() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    positives = Positives(
        torch.zeros(1), anchors, anchors, torch.full((1, 4), 0.5), None, None, lambda: anchors, lambda: torch.ones(1, 1)
    )
    loss = FirstBoxLoss(box={"type": "GIoULoss"})
    with pytest.raises(ValueError, match=r"losses.auxiliary: FirstBoxLoss needs .* StarHead"):
        loss(positives, DistanceCoder())
    assert loss.weigh(replace(positives, first=positives.deltas), DistanceCoder(), None).tolist() == [1]

"""Convolutions whose weights meet only padding have right gradients in bfloat16."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.train.precision import computing_in, meets_padding_only

CPU = torch.device("cpu")


def dirty_memory() -> None:
    """What is allocated next holds NaN unless it is written."""
    for power in range(8, 20):
        torch.full((2**power,), float("nan"))


def gradients(x: Tensor, weight: Tensor, precision: str, **geometry: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The result of a convolution, and the gradients of its map and its weights."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    with computing_in(precision, CPU):
        out = F.conv2d(x, weight, **geometry)
    dirty_memory()
    out.float().square().sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    return out.float(), x.grad, weight.grad


@pytest.mark.parametrize("sides", [(1, 1), (2, 1), (1, 9), (2, 2), (3, 4)])
@pytest.mark.parametrize(("kernel", "padding", "dilation"), [(3, 1, 1), (5, 2, 1), (7, 3, 1), (3, 4, 4)])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (2, 32)])
def test_bf16_gives_the_gradients_of_fp32(
    sides: tuple[int, int], kernel: int, padding: int, dilation: int, stride: int, groups: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 32, *sides, generator=generator)
    weight = torch.randn(32, 32 // groups, kernel, kernel, generator=generator)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expected = gradients(x, weight, "fp32", **geometry)
    for found, wanted in zip(gradients(x, weight, "bf16", **geometry), expected, strict=True):
        assert torch.allclose(found, wanted, atol=0.03 * wanted.abs().max().item(), rtol=0)
    # The same whatever the memory held.
    again = gradients(x, weight, "bf16", **geometry)
    assert torch.equal(again[2], gradients(x, weight, "bf16", **geometry)[2])


def test_where_a_weight_meets_only_padding() -> None:
    cases = itertools.product((1, 2, 3, 5, 8), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2, 4), (1, 2))
    seen = set()
    for side, kernel, stride, padding, dilation in cases:
        if side + 2 * padding < dilation * (kernel - 1) + 1:
            continue
        weight = torch.ones(1, 1, kernel, requires_grad=True)
        F.conv1d(torch.ones(1, 1, side), weight, None, stride, padding, dilation).sum().backward()
        assert weight.grad is not None
        idle = bool((weight.grad == 0).any())
        assert meets_padding_only(side, kernel, stride, padding, dilation) == idle
        seen.add(idle)
    assert seen == {True, False}


def test_heights_and_widths_and_names_of_padding() -> None:
    x, weight = torch.randn(1, 2, 1, 6), torch.randn(2, 2, 3, 3)
    for geometry in (
        {"stride": (2, 1), "padding": (1, 0)},
        {"padding": (1,)},
        {"padding": "same"},
        {"padding": [1, 1]},
    ):
        expected = F.conv2d(x, weight, **geometry)
        with computing_in("bf16", CPU):
            found = F.conv2d(x, weight, **geometry)
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.float(), expected, atol=0.1)

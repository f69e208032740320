from __future__ import annotations

import pytest
import torch
from torch import nn

from detkit.layers.padding import SamePadConv2d, pad_same


@pytest.mark.parametrize(
    ("side", "kernel", "before", "after"), [(8, 3, 0, 1), (7, 3, 1, 1), (8, 5, 1, 2), (1, 3, 1, 1), (9, 1, 0, 0)]
)
def test_what_is_odd_goes_right_and_below(side: int, kernel: int, before: int, after: int) -> None:
    padded = pad_same(torch.ones(1, 1, side, side + 2), kernel, 2)[0, 0]
    assert padded.shape[0] == before + side + after
    assert padded[:before].sum() == 0
    assert padded[before + side :].sum() == 0


def test_a_convolution_keeps_its_weights_and_rounds_sides_up() -> None:
    conv = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2)
    same = SamePadConv2d.like(conv)
    assert same.weight is conv.weight
    x = torch.randn(1, 4, 7, 9)  # odd sides: TensorFlow pads them equally, too
    torch.testing.assert_close(same(x), conv(x))
    assert same(torch.randn(1, 4, 8, 6)).shape == (1, 4, 4, 3)

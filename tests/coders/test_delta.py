import math

import pytest
import torch

from detkit.coders.delta import DeltaCoder
from tests.refusals import Refuses


def test_by_hand() -> None:
    anchor, box = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 0, 25, 20]])
    # Centre (5, 10) -> (15, 10); width 10 -> 20, height as it was.
    expected = torch.tensor([[1.0, 0.0, math.log(2), 0.0]])
    torch.testing.assert_close(DeltaCoder().encode(box, anchor), expected)
    weights = torch.tensor([10.0, 10, 5, 5])
    torch.testing.assert_close(DeltaCoder(weights=(10, 10, 5, 5)).encode(box, anchor), expected * weights)


def test_decode_undoes_encode() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 50, 2, generator=generator, dtype=torch.float64) * 100
    anchors, boxes = torch.cat((corner, corner + torch.rand(2, 50, 2, generator=generator).double() * 50 + 1), -1)
    coder = DeltaCoder(weights=(10, 5, 2, 1))
    torch.testing.assert_close(coder.decode(coder.encode(boxes, anchors), anchors), boxes)


def test_no_delta_is_the_anchor_for_a_whole_batch() -> None:
    anchors = torch.tensor([[1.0, 2, 3, 5], [0, 0, 7, 7]])
    torch.testing.assert_close(DeltaCoder().decode(torch.zeros(3, 2, 4), anchors), anchors.expand(3, 2, 4))


def test_a_wild_side_is_held_back() -> None:
    decoded = DeltaCoder().decode(torch.tensor([[0.0, 0, 50, 1]]), torch.tensor([[0.0, 0, 16, 16]]))
    assert decoded[0, 2] - decoded[0, 0] == pytest.approx(1000)
    assert decoded[0, 3] - decoded[0, 1] == pytest.approx(16 * math.e)


def test_weights_must_be_positive(refuses: Refuses) -> None:
    with refuses(ValueError):
        DeltaCoder(weights=(1, 1, 0, 1))

import pytest
import torch

from detkit.coders.delta import DeltaCoder
from detkit.losses.iou import GIoULoss
from detkit.losses.l1 import L1Loss, SmoothL1Loss
from detkit.losses.normalizers import PositiveCount
from detkit.structures import BACKGROUND, IGNORED

CODER = DeltaCoder()
ANCHOR = torch.tensor([[0.0, 0, 10, 10]])
LOSSES = [L1Loss(), SmoothL1Loss(), SmoothL1Loss(beta=0.0), GIoULoss()]


def test_l1_and_smooth_l1_by_hand():
    # Target deltas are (1, 0, 0, 0); predicted (0.95, 0, 0, 2).
    box, deltas = torch.tensor([[10.0, 0, 20, 10]]), torch.tensor([[0.95, 0.0, 0.0, 2.0]])
    assert L1Loss()(deltas, ANCHOR, box, CODER).item() == pytest.approx(2.05)
    expected = 0.5 * 0.05**2 / 0.1 + (2 - 0.05)
    assert SmoothL1Loss(beta=0.1)(deltas, ANCHOR, box, CODER).item() == pytest.approx(expected)


def test_giou_by_hand():
    # Predicted = anchor; the object lies beside it: IoU 0, hull 30 x 10, of which 10 x 10 is in neither.
    box = torch.tensor([[20.0, 0, 30, 10]])
    assert GIoULoss()(torch.zeros(1, 4), ANCHOR, box, CODER).item() == pytest.approx(1 + 1 / 3)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda part: type(part).__name__)
def test_identities(loss):
    box = torch.tensor([[2.0, 1, 9, 14]])
    exact = CODER.encode(box, ANCHOR)
    assert loss(exact, ANCHOR, box, CODER).item() == pytest.approx(0, abs=1e-6)
    off = exact + torch.tensor([[0.3, -0.2, 0.1, 0.4]])
    one = loss(off, ANCHOR, box, CODER)
    many = loss(off.repeat(3, 1), ANCHOR.repeat(3, 1), box.repeat(3, 1), CODER)
    torch.testing.assert_close(many, 3 * one)
    assert one > 0
    empty = torch.zeros(0, 4, requires_grad=True)
    total = loss(empty, torch.zeros(0, 4), torch.zeros(0, 4), CODER)
    total.backward()
    assert total == 0
    assert empty.grad is not None


@pytest.mark.parametrize("loss", LOSSES, ids=lambda part: type(part).__name__)
def test_gradcheck(loss):
    generator = torch.Generator().manual_seed(0)
    deltas = (torch.randn(4, 4, generator=generator, dtype=torch.float64) * 0.3).requires_grad_()
    anchors = ANCHOR.double().repeat(4, 1)
    boxes = anchors + torch.tensor([1.0, 2, 4, 5]).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, anchors, boxes, CODER), (deltas,))


def test_positives_are_counted_and_nothing_else():
    assert PositiveCount()(torch.tensor([[0, BACKGROUND, 4], [IGNORED, IGNORED, 2]])).item() == 3

import math
from typing import Any

import pytest
import torch

from detkit.coders.delta import DeltaCoder
from detkit.losses.iou import CIoULoss, DIoULoss, EIoULoss, GIoULoss, IoULoss, make_valid

CODER = DeltaCoder()
ANCHOR = torch.tensor([[0.0, 0, 10, 10]])
BESIDE = [20.0, 0, 30, 10]  # no overlap; hull 30 x 10; 20 from centre to centre
LONGER = [0.0, 0, 20, 10]  # IoU 1/2; hull 20 x 10; 5 from centre to centre
V = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2


@pytest.mark.parametrize(
    ("loss", "box", "expected"),
    [
        (IoULoss(), BESIDE, 1.0),
        (IoULoss(), LONGER, 0.5),
        (IoULoss(form="log"), LONGER, math.log(2)),
        (IoULoss(form="log"), BESIDE, math.log(1e6)),
        (GIoULoss(), BESIDE, 1 + 1 / 3),
        (GIoULoss(), LONGER, 0.5),
        (DIoULoss(), BESIDE, 1 + 400 / 1000),
        (DIoULoss(), LONGER, 0.5 + 25 / 500),
        (CIoULoss(), BESIDE, 1 + 400 / 1000),
        (CIoULoss(), LONGER, 0.5 + 25 / 500 + V * V / (0.5 + V)),
        (EIoULoss(), BESIDE, 1 + 400 / 1000),
        (EIoULoss(), LONGER, 0.5 + 25 / 500 + 100 / 400),
        (EIoULoss(), [0, 0, 20, 40], 1 - 1 / 8 + (25 + 225) / 2000 + 100 / 400 + 900 / 1600),
    ],
)
def test_by_hand(loss: Any, box: Any, expected: Any) -> None:
    """The predicted box is the anchor."""
    assert loss(torch.zeros(1, 4), ANCHOR, torch.tensor([box]), CODER).item() == pytest.approx(expected, rel=1e-5)


def pairs(dtype: Any = torch.float32, n: int = 200) -> Any:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, n, 2, generator=generator, dtype=dtype) * 30
    side = 1 + torch.rand(2, n, 2, generator=generator, dtype=dtype) * 30
    return torch.cat((corner, corner + side), 2).unbind(0)


def test_each_of_the_family_costs_at_least_as_much_as_the_one_before() -> None:
    a, b = pairs()
    iou, diou, ciou = (loss.costs(a, b) for loss in (IoULoss(), DIoULoss(), CIoULoss()))
    assert (diou >= iou - 1e-6).all()
    assert (ciou >= diou - 1e-6).all()
    assert (EIoULoss().costs(a, b) >= diou - 1e-6).all()
    assert (GIoULoss().costs(a, b) >= iou - 1e-6).all()
    assert (iou == 1).any()


def test_giou_equals_fvcore_gradient_included() -> None:
    from fvcore.nn import giou_loss

    a, b = pairs()
    mine, theirs = a.clone().requires_grad_(), a.clone().requires_grad_()
    value, expected = GIoULoss().costs(mine, b), giou_loss(theirs, b)
    torch.testing.assert_close(value, expected)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_the_aspect_ratios_weight_is_a_constant_to_the_gradient() -> None:
    a, b = pairs(torch.float64)
    x = a.clone().requires_grad_()

    def v(boxes: Any) -> Any:
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        true = torch.atan((b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1]))
        return 4 / math.pi**2 * (true - torch.atan(width / height)) ** 2

    with torch.no_grad():
        alpha = v(a) / (IoULoss().costs(a, b) + v(a))
    expected = torch.autograd.grad((DIoULoss().costs(x, b) + alpha * v(x)).sum(), x)[0]
    torch.testing.assert_close(torch.autograd.grad(CIoULoss().costs(x, b).sum(), x)[0], expected, rtol=1e-5, atol=1e-8)


def test_proper_boxes_stay_as_they_are_and_others_get_an_area() -> None:
    good = torch.tensor([[0.0, 1, 2, 3], [-50, 1000, 4000, 1001]])
    assert torch.equal(make_valid(good), good)
    bad = torch.tensor([[1e9, 5, 2, 5], [1e6, 1e6, 1e6, 1e6]])
    sides = make_valid(bad)[:, 2:] - make_valid(bad)[:, :2]
    assert (sides > 0).all()
    assert (sides < 20).all()

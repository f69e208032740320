from typing import Any

import pytest
import torch
from torch.nn import functional as F

from detkit.losses.bce import BalancedBCELoss, BCELoss
from detkit.losses.focal import SigmoidFocalLoss
from detkit.losses.mining import BCEMiningLoss, OHEMLoss
from detkit.structures import BACKGROUND, IGNORED
from tests.refusals import Refuses

B, I = BACKGROUND, IGNORED  # noqa: E741


def softplus(x: Any) -> Any:
    return F.softplus(torch.tensor(x, dtype=torch.float64)).item()


def row(*values: Any) -> Any:
    return torch.tensor([[[v] for v in values]], dtype=torch.float64, requires_grad=True)


def test_bce_is_torchs_over_used_anchors() -> None:
    logits = torch.randn(2, 30, 3, dtype=torch.float64)
    labels = torch.randint(-2, 3, (2, 30))
    target = F.one_hot(labels.clamp(min=0), 3) * (labels >= 0)[..., None]
    used = labels != I
    expected = F.binary_cross_entropy_with_logits(logits[used], target[used].double(), reduction="sum")
    torch.testing.assert_close(BCELoss()(logits, labels), expected)
    torch.testing.assert_close(2 * BalancedBCELoss(alpha=0.5)(logits, labels), expected)
    torch.testing.assert_close(
        BalancedBCELoss(alpha=0.3)(logits, labels), SigmoidFocalLoss(alpha=0.3, gamma=0.0)(logits, labels)
    )


def test_mining_takes_three_hard_negatives_a_positive_by_hand() -> None:
    logits = row(0.5, 2.0, -1.0, 0.0, 1.0, 9.0)
    total = BCEMiningLoss(ratio=3, floor=0)(logits, torch.tensor([[0, B, B, B, B, I]]))
    assert total.item() == pytest.approx(softplus(-0.5) + softplus(2.0) + softplus(1.0) + softplus(0.0))
    total.backward()
    assert logits.grad[0, :, 0].ne(0).tolist() == [True, True, False, True, True, False]


def test_mining_of_everything_is_bce() -> None:
    logits, labels = torch.randn(2, 30, 3), torch.randint(-2, 3, (2, 30))
    torch.testing.assert_close(BCEMiningLoss(ratio=1e6, floor=30)(logits, labels), BCELoss()(logits, labels))


def test_mining_ranks_anchors_by_the_sum_over_their_classes() -> None:
    logits = torch.tensor([[[1.0, -9.0], [0.8, 0.8]]])
    total = BCEMiningLoss(floor=1)(logits, torch.tensor([[B, B]]))
    assert total.item() == pytest.approx(2 * softplus(0.8), rel=1e-5)


def test_ohem_takes_the_dearest_anchors_positive_or_not_by_hand() -> None:
    # Costs: 0.05 (an easy positive), 2.13, 0.31, 1.31 and, last, a missed positive: 4.02.
    logits = row(3.0, 2.0, -1.0, 1.0, -4.0)
    labels = torch.tensor([[0, B, B, B, 0]])
    assert OHEMLoss(count=2)(logits, labels).item() == pytest.approx(softplus(4.0) + softplus(2.0))
    OHEMLoss(count=3)(logits, labels).backward()
    assert logits.grad[0, :, 0].ne(0).tolist() == [False, True, False, True, True]


def test_ohem_of_everything_is_bce_and_ignored_anchors_take_no_place() -> None:
    logits, labels = torch.randn(2, 30, 3), torch.randint(-2, 3, (2, 30))
    torch.testing.assert_close(OHEMLoss(count=100)(logits, labels), BCELoss()(logits, labels))
    assert OHEMLoss(count=1)(row(9.0, 1.0), torch.tensor([[I, B]])).item() == pytest.approx(softplus(1.0))


@pytest.mark.parametrize(
    ("cls", "argument", "value"),
    [
        (BalancedBCELoss, "alpha", 1.1),
        (BCEMiningLoss, "ratio", -1.0),
        (BCEMiningLoss, "floor", -1),
        (OHEMLoss, "count", 0),
        (BCELoss, "weight", -1.0),
        (BCELoss, "weight", float("nan")),
    ],
)
def test_senseless_arguments_are_named(refuses: Refuses, cls: Any, argument: str, value: Any) -> None:
    with refuses(ValueError):
        cls(**{argument: value})

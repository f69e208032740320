"""Losses of the ranking: by hand, against the papers' sums over pairs, and against average precision."""

from typing import Any

import pytest
import torch

from detkit.losses import ranking
from detkit.losses.ranking import ALRPLoss, APLoss, RankSortLoss
from detkit.structures import BACKGROUND, IGNORED
from tests.refusals import Refuses

ALL = [APLoss, ALRPLoss, RankSortLoss]
each = pytest.mark.parametrize("cls", ALL)
SHARP = 1e-6


def both(loss: Any, logits: Any, labels: Any, quality: Any = None) -> Any:
    logits = logits.detach().clone().requires_grad_()
    total = loss(logits, labels, quality)
    return total.detach(), torch.autograd.grad(total, logits)[0]


def example(spread: float = 2.0) -> Any:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 20, 2, generator=generator, dtype=torch.float64) * spread
    labels = torch.randint(-4, 2, (3, 20), generator=generator).clamp(min=BACKGROUND)
    labels[:, ::6] = IGNORED
    return logits, labels, torch.rand(3, 20, generator=generator, dtype=torch.float64) * (labels >= 0)


def column(*scores: float) -> Any:
    return torch.tensor(scores, dtype=torch.float64).view(1, -1, 1)


def test_by_hand() -> None:
    # Two positives at 3 and 1, background at 2 and 0: only the one at 2 is above a positive, the one at 1.
    logits, labels = column(3, 1, 2, 0), torch.tensor([[0, 0, BACKGROUND, BACKGROUND]])
    quality = torch.tensor([[0.5, 0.9, 0, 0]], dtype=torch.float64)
    total, gradient = both(APLoss(delta=SHARP), logits, labels)
    assert total.item() == pytest.approx(1 / 3)  # precision 1 and 2 / 3
    assert gradient.flatten().tolist() == pytest.approx([0, -1 / 3, 1 / 3, 0])
    # Errors of place, over 1 - 1/2, are 1 and 0.2; (0 + 1) / 1 and (1 + 1 + 0.2) / 3, of which 0.2 / 3 must stay.
    total, gradient = both(ALRPLoss(delta=SHARP), logits, labels, quality)
    assert total.item() == pytest.approx(1 + 2.2 / 3)
    assert gradient.flatten().tolist() == pytest.approx([0, -2 / 3, 2 / 3, 0])
    # Itself counts 1/2: 1 / (1/2 + 1 + 1), and the better one stands behind the worse one.
    total, gradient = both(RankSortLoss(delta=SHARP), logits, labels, quality)
    sorting = (1 * 0.5 + 0.5 * 0.1) / 1.5 - 0.1
    assert total.item() == pytest.approx(1 / 2.5 + sorting)
    assert gradient.flatten().tolist() == pytest.approx([sorting, -1 / 2.5 - sorting, 1 / 2.5, 0])


def step(x: Any, delta: float) -> Any:
    return (x / (2 * delta) + 0.5).clamp(0, 1)


def by_pairs(cls: Any, logits: Any, labels: Any, quality: Any, delta: float) -> Any:
    """Sum and gradient by the papers' equations, pair by pair: L_ij and g_i = sum_j L_ji - sum_j L_ij."""
    places = [(b, a, c) for b, a in (labels != IGNORED).nonzero().tolist() for c in range(logits.shape[-1])]
    positives = [p for p in places if labels[p[0], p[1]] == p[2]]
    background = [p for p in places if p not in positives]
    e = {p: float(min((1 - quality[p[:2]]) / 0.5, 1)) for p in positives}
    q = {p: float(quality[p[:2]]) for p in positives}
    total, gradient = 0.0, torch.zeros_like(logits)

    def spread(i: Any, error: float, over: dict[Any, float]) -> None:
        for j, h in over.items():
            if h:
                gradient[i] -= error * h / sum(over.values())
                gradient[j] += error * h / sum(over.values())

    for i in positives:
        h = {j: float(step(logits[j] - logits[i], delta)) for j in places}
        false = sum(h[j] for j in background)
        others = sum(h[j] for j in positives if j != i)
        over = {j: h[j] for j in background}
        if cls is APLoss:
            cost = false / (1 + others + false)
            total += cost
            spread(i, cost, over)
        elif cls is ALRPLoss:
            rank = 1 + others + false
            cost = (false + e[i] + sum(h[j] * e[j] for j in positives if j != i)) / rank
            total += cost
            spread(i, cost - e[i] / rank, over)
        else:
            error = false / (sum(h[j] for j in positives) + false)
            better = [j for j in positives if q[j] >= q[i]]
            current = sum(h[j] * (1 - q[j]) for j in positives) / sum(h[j] for j in positives)
            target = sum(h[j] * (1 - q[j]) for j in better) / sum(h[j] for j in better)
            total += error + current - target
            spread(i, error, over)
            spread(i, current - target, {j: h[j] for j in positives if q[j] < q[i]})
    return total, gradient


@each
@pytest.mark.parametrize("delta", [SHARP, 0.5, 3.0])
def test_by_the_papers_sums_over_pairs(cls: Any, delta: float) -> None:
    logits, labels, quality = example()
    total, gradient = by_pairs(cls, logits, labels, quality, delta)
    found = both(cls(delta=delta), logits, labels, quality if cls.uses_quality else None)
    assert found[0].item() == pytest.approx(total, rel=1e-9)
    torch.testing.assert_close(found[1], gradient)


@pytest.mark.parametrize("delta", [SHARP, 0.5, 100.0])
def test_entries_count_at_knots_as_they_count_themselves(delta: float) -> None:
    generator = torch.Generator().manual_seed(6)
    positives = torch.tensor([0.0, 0, 1, 1.25, 5, -30], dtype=torch.float64)
    knots = torch.cat((positives - delta, positives + delta)).sort().values
    anywhere = 4 * torch.randn(500, generator=generator, dtype=torch.float64)
    entries = torch.cat((anywhere, positives, knots, torch.tensor([-1e4, 1e4])))
    number = ranking.count_at(knots, entries)
    assert number.sum() == len(entries)

    def over(things: Any) -> Any:
        return step(things - positives[:, None], delta)

    torch.testing.assert_close((over(knots) * number).sum(1), over(entries).sum(1), rtol=1e-8, atol=1e-8)
    shares = torch.rand(len(positives), generator=generator, dtype=torch.float64)
    found = ranking.values_between(knots, shares @ over(knots), entries)
    torch.testing.assert_close(found, shares @ over(entries), rtol=1e-8, atol=1e-8)


def test_the_mean_of_ap_loss_is_one_minus_average_precision() -> None:
    logits, labels, _ = example()
    truth = torch.nn.functional.one_hot(labels.clamp(min=0), 2) * (labels >= 0)[..., None]
    used = labels != IGNORED
    ranked = truth[used].flatten()[logits[used].flatten().argsort(descending=True)].double()
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    expected = 1 - precision[ranked == 1].mean()
    found = APLoss(delta=SHARP)(logits, labels) / (labels >= 0).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@each
def test_what_is_pulled_up_is_pushed_down(cls: Any) -> None:
    logits, labels, quality = example()
    total, gradient = both(cls(), logits, labels, quality)
    assert gradient.sum().item() == pytest.approx(0, abs=1e-9)
    if cls is APLoss:
        assert -gradient.clamp(max=0).sum().item() == pytest.approx(total.item())


@each
def test_the_gradient_is_that_of_the_ranking_and_not_of_the_steps(cls: Any) -> None:
    """Where scores lie further apart than the steps are wide, automatic differentiation has nothing to teach."""
    logits, labels = column(-5, 5), torch.tensor([[0, BACKGROUND]])
    gradient = both(cls(delta=0.5), logits, labels)[1].flatten()
    assert gradient[0] < -0.4
    assert gradient[1] == -gradient[0]


@each
def test_only_differences_count(cls: Any) -> None:
    logits, labels, quality = example()
    torch.testing.assert_close(both(cls(), logits + 7, labels, quality), both(cls(), logits, labels, quality))


@each
def test_a_right_ranking_has_no_gradient(cls: Any) -> None:
    logits, labels = column(9, 6, 3, -1, -2), torch.tensor([[0, 0, 0, BACKGROUND, BACKGROUND]])
    quality = torch.tensor([[0.9, 0.8, 0.6, 0, 0]], dtype=torch.float64)
    total, gradient = both(cls(), logits, labels, quality)
    assert not gradient.any()
    misplaced = 0.2 + (0.2 + 0.4) / 2 + (0.2 + 0.4 + 0.8) / 3
    assert total.item() == pytest.approx(misplaced if cls is ALRPLoss else 0, abs=1e-12)


def test_positives_of_the_wrong_order_are_sorted_without_the_background() -> None:
    logits, labels = column(6, 9, -9), torch.tensor([[0, 0, BACKGROUND]])
    quality = torch.tensor([[0.9, 0.3, 0]], dtype=torch.float64)
    gradient = both(RankSortLoss(), logits, labels, quality)[1].flatten().tolist()
    assert gradient[0] < 0 < gradient[1]
    assert gradient[2] == 0
    same = torch.tensor([[0.7, 0.7, 0]], dtype=torch.float64)
    assert both(RankSortLoss(), logits, labels, same)[0] == 0


def test_perfect_boxes_make_alrp_ap_loss() -> None:
    logits, labels, _ = example()
    torch.testing.assert_close(both(ALRPLoss(), logits, labels), both(APLoss(), logits, labels))


@each
def test_pieces_give_the_same_and_bound_the_memory(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels, quality = example()
    whole = both(cls(), logits, labels, quality)
    for entries in (1, 100, 1000):
        monkeypatch.setattr(ranking, "ENTRIES", entries)
        torch.testing.assert_close(both(cls(), logits, labels, quality), whole)
    parts = list(ranking.pieces(7, 500, torch.device("cpu")))
    assert [len(part) for part in parts] == [2, 2, 2, 1]


@each
def test_across_an_image_the_sum_adds_up_over_images_and_across_a_batch_it_does_not(cls: Any) -> None:
    logits, labels, quality = example()
    assert cls().batch_wise
    assert not cls(across="image").batch_wise

    def one_by_one(loss: Any) -> Any:
        alone = [both(loss, logits[i : i + 1], labels[i : i + 1], quality[i : i + 1]) for i in range(3)]
        return torch.stack([total for total, _ in alone]).sum(), torch.cat([gradient for _, gradient in alone])

    alone = one_by_one(cls())
    torch.testing.assert_close(both(cls(across="image"), logits, labels, quality), alone)
    torch.testing.assert_close(one_by_one(cls(across="image")), alone)
    assert not torch.isclose(both(cls(), logits, labels, quality)[0], alone[0])


@each
def test_background_far_below_takes_no_part(cls: Any) -> None:
    logits, labels, quality = example()
    logits[labels == BACKGROUND] -= 100
    logits[..., 0][labels == 1] -= 100
    logits[..., 1][labels == 0] -= 100
    assert not both(cls(), logits, labels, quality)[1][labels == BACKGROUND].any()


@pytest.mark.parametrize(
    ("cls", "argument", "value"),
    [(APLoss, "delta", 0.0), (RankSortLoss, "delta", -1.0), (ALRPLoss, "threshold", 1.0), (APLoss, "prior", 0.0)],
)
def test_senseless_arguments_are_named(refuses: Refuses, cls: Any, argument: str, value: float) -> None:
    with refuses(ValueError):
        cls(**{argument: value})

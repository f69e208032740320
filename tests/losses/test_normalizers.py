import pytest
import torch

from detkit.losses.normalizers import EmaPositiveCount, PerImagePositiveCount, PositiveCount
from detkit.registry import NORMALIZERS
from detkit.structures import BACKGROUND, IGNORED
from tests.refusals import Refuses

LABELS = torch.tensor([[0, BACKGROUND, 4], [IGNORED, IGNORED, 2], [BACKGROUND] * 3])


def test_positives_are_counted_and_nothing_else() -> None:
    assert PositiveCount()(LABELS).item() == 3
    assert PositiveCount().image_weights(LABELS) is None


def test_an_image_is_divided_by_its_own_positives_at_least_one() -> None:
    part = PerImagePositiveCount()
    assert part(LABELS).item() == 3
    assert part.image_weights(LABELS).tolist() == [0.5, 1, 1]


def test_the_average_begins_with_the_first_count_and_moves_once_a_step() -> None:
    part, found = EmaPositiveCount(momentum=0.9), []
    assert part(LABELS).item() == 3
    for total in (10.0, 20.0, 0.0):
        found.append(part.divisor(torch.tensor(total, dtype=torch.float64)).item())
    assert found == pytest.approx([10, 11, 9.9])
    assert list(part.state_dict()) == ["average"]


def test_no_divisor_is_less_than_one() -> None:
    for name in NORMALIZERS.names():
        part = NORMALIZERS.build({"type": name})
        nothing = part(torch.full((2, 5), -1) if part.counts == "labels" else torch.zeros(2, 5)).double() * 0
        for _ in range(200):
            divisor = part.divisor(nothing)
            assert divisor >= 1
        assert divisor == pytest.approx(1)
        assert part.meaning


def test_a_count_of_nothing_at_first_is_a_count() -> None:
    part = EmaPositiveCount(momentum=0.5)
    part.divisor(torch.tensor(0.0))
    assert part.divisor(torch.tensor(8.0)) == 4


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_a_senseless_momentum_is_named(refuses: Refuses, momentum: float) -> None:
    with refuses(ValueError):
        EmaPositiveCount(momentum=momentum)


def test_running_count_follows_detectron2s_rule_by_hand() -> None:
    """0.9 of what it was and 0.1 of the positives, at least one, from 100 on; it divides after it has moved."""
    normalizer = NORMALIZERS.build({"type": "RunningPositiveCount"})
    want = 100.0
    for positives in (30, 0, 250, 1, 7):
        want = 0.9 * want + 0.1 * max(positives, 1)
        assert float(normalizer.divisor(torch.tensor(float(positives), dtype=torch.float64))) == pytest.approx(
            want, rel=1e-12
        )
    assert float(normalizer.state_dict()["average"]) == pytest.approx(want, rel=1e-12)


def test_running_count_as_of_eight_processes_is_that_of_one_of_them_times_eight() -> None:
    alone, shared = (NORMALIZERS.build({"type": "RunningPositiveCount", "start": 40.0, "processes": n}) for n in (1, 8))
    one = [float(alone.divisor(torch.tensor(float(n), dtype=torch.float64))) for n in (12, 30)]
    eight = [float(shared.divisor(torch.tensor(8.0 * n, dtype=torch.float64))) for n in (12, 30)]
    assert eight == pytest.approx([8 * d for d in one], rel=1e-12)


@pytest.mark.parametrize(
    ("key", "value"), [("momentum", 1.0), ("momentum", -0.1), ("start", 0.0), ("start", -1.0), ("processes", 0)]
)
def test_running_count_refuses_values_out_of_bounds(refuses: Refuses, key: str, value: float) -> None:
    with refuses(ValueError):
        NORMALIZERS.build({"type": "RunningPositiveCount", key: value})

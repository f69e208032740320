import pytest
import torch

from detkit.losses.normalizers import EmaPositiveCount, PerImagePositiveCount, PositiveCount
from detkit.registry import NORMALIZERS
from detkit.structures import BACKGROUND, IGNORED

LABELS = torch.tensor([[0, BACKGROUND, 4], [IGNORED, IGNORED, 2], [BACKGROUND] * 3])


def test_positives_are_counted_and_nothing_else():
    assert PositiveCount()(LABELS).item() == 3
    assert PositiveCount().image_weights(LABELS) is None


def test_an_image_is_divided_by_its_own_positives_at_least_one():
    part = PerImagePositiveCount()
    assert part(LABELS).item() == 3
    assert part.image_weights(LABELS).tolist() == [0.5, 1, 1]


def test_the_average_begins_with_the_first_count_and_moves_once_a_step():
    part, found = EmaPositiveCount(momentum=0.9), []
    assert part(LABELS).item() == 3
    for total in (10.0, 20.0, 0.0):
        found.append(part.divisor(torch.tensor(total, dtype=torch.float64)).item())
    assert found == pytest.approx([10, 11, 9.9])
    assert list(part.state_dict()) == ["average"]


def test_no_divisor_is_less_than_one():
    for name in NORMALIZERS.names():
        part = NORMALIZERS.build({"type": name})
        assert part.divisor(torch.zeros((), dtype=torch.float64)) == 1
        assert part.meaning


def test_a_count_of_nothing_at_first_is_a_count():
    part = EmaPositiveCount(momentum=0.5)
    part.divisor(torch.tensor(0.0))
    assert part.divisor(torch.tensor(8.0)) == 4


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_a_senseless_momentum_is_named(momentum):
    with pytest.raises(ValueError, match="momentum"):
        EmaPositiveCount(momentum=momentum)

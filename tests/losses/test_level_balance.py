from __future__ import annotations

import pytest
import torch

from detkit.losses.normalizers import LevelBalancedCount
from detkit.structures import BACKGROUND, IGNORED

LABELS = torch.tensor([[0, 1, BACKGROUND, 2, IGNORED], [BACKGROUND] * 5])


def test_positives_of_images_and_levels() -> None:
    numbers = LevelBalancedCount(levels=3).count(LABELS, (3, 2))
    assert numbers.tolist() == [4, 2, 1, 0]  # the second image counts 1


def test_factors_are_those_of_the_steps_before() -> None:
    normalizer = LevelBalancedCount(levels=3)
    assert normalizer.level_weights().tolist() == [1, 1, 1]
    assert normalizer.divisor(torch.tensor([9.0, 6, 3, 0])) == 9
    assert normalizer.level_weights().tolist() == [1, 1.5, 2]
    normalizer.divisor(torch.tensor([9.0, 0, 3, 0]))
    assert normalizer.level_weights().tolist() == [1, 1, 2]
    assert "seen" in normalizer.state_dict()


def test_more_levels_than_it_knows_are_refused() -> None:
    with pytest.raises(ValueError, match="levels: 1 must be the number of levels, 2"):
        LevelBalancedCount(levels=1).count(LABELS, (3, 2))

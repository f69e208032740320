from __future__ import annotations

import pytest

from detkit.train.schedule import Constant, Cosine, FlatCosine, MultiStep
from tests.refusals import Refuses


def test_warmup_rises_in_a_straight_line() -> None:
    schedule = Constant(warmup_iterations=4, warmup_factor=0.2)
    assert [schedule.factor(s, 10) for s in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_cosine_by_hand() -> None:
    schedule = Cosine(warmup_iterations=2, warmup_factor=0.5, final_factor=0.1)
    # Half way between step 2 and step 10 the cosine is 0, the factor the mean of 1 and 0.1.
    assert schedule.factor(0, 10) == pytest.approx(0.5)
    assert schedule.factor(2, 10) == pytest.approx(1.0)
    assert schedule.factor(6, 10) == pytest.approx(0.55)
    assert schedule.factor(10, 10) == pytest.approx(0.1)
    assert schedule.factor(99, 10) == pytest.approx(0.1)


def test_flat_cosine_by_hand() -> None:
    schedule = FlatCosine(flat=0.5, final_factor=0.1, warmup_iterations=2, warmup_factor=0.5)
    schedule.check_length(20)
    assert [schedule.factor(s, 20) for s in (0, 1, 2, 9, 10)] == pytest.approx([0.5, 0.75, 1.0, 1.0, 1.0])
    # Half way between step 10 and step 20 the cosine is 0, a quarter of the way the root of a half.
    assert schedule.factor(15, 20) == pytest.approx(0.55)
    assert schedule.factor(20, 20) == pytest.approx(0.1)
    assert schedule.factor(99, 20) == pytest.approx(0.1)
    always = FlatCosine(flat=0.0, final_factor=0.1, warmup_iterations=0)
    cosine = Cosine(final_factor=0.1, warmup_iterations=0)
    assert [always.factor(s, 20) for s in range(21)] == [cosine.factor(s, 20) for s in range(21)]


def test_a_cosine_that_begins_inside_the_warmup_is_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        FlatCosine().check_length(1990)
    with refuses(ValueError):
        FlatCosine().check_length(900)
    FlatCosine().check_length(2000)


def test_milestones_are_steps_or_fractions() -> None:
    by_step = MultiStep(milestones=[6, 8], gamma=0.1, warmup_iterations=0)
    by_part = MultiStep(milestones=[0.6, 0.8], gamma=0.1, warmup_iterations=0)
    want = [1.0] * 6 + [0.1] * 2 + [0.01] * 2
    assert [by_step.factor(s, 10) for s in range(10)] == pytest.approx(want)
    assert [by_part.factor(s, 10) for s in range(10)] == pytest.approx(want)


def test_a_milestone_inside_the_warmup_counts() -> None:
    schedule = MultiStep(milestones=[2], gamma=0.5, warmup_iterations=4, warmup_factor=0.0)
    assert schedule.factor(2, 10) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MultiStep(milestones=[3.5]),
        lambda: MultiStep(milestones=[8, 6]),
        lambda: MultiStep(gamma=2),
        lambda: Cosine(final_factor=-1),
        lambda: Constant(warmup_iterations=-1),
        lambda: FlatCosine(flat=1.0),
    ],
)
def test_nonsense_is_refused(refuses: Refuses, make: object) -> None:
    with refuses(ValueError):
        make()

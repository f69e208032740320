"""Identities by hand, and simulated benches in which the truth is known."""

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import nct
from scipy.stats import t as student

from detkit.compare.statistics import (
    BETTER,
    NO_DIFFERENCE,
    Spread,
    analyse,
    compare,
    correct,
    difference,
    holm,
    permutation_p,
    verdict,
)
from detkit.evaluate.matches import match
from detkit.evaluate.options import EvaluatorOptions
from tests.compare.simulate import Skill, make_images, train

CLASSES = ("a", "b")
OPTIONS = EvaluatorOptions()
LUCK = 0.3
"""Of one training: about one point of AP from seed to seed, as after 600 steps on the shapes."""
STEADY = 0.1
"""0.4 points from seed to seed, as on COCO."""


def bench(random: Any, skills: Any, *, seeds: int = 3, images: int = 60, resamples: int = 150, luck: Any = LUCK) -> Any:
    """analyse() of a simulated bench: variant name -> skill, the first is the baseline."""
    truth = make_images(random, images)
    found = {
        name: {s: match(truth, train(random, truth, skill, luck), 2, OPTIONS) for s in range(seeds)}
        for name, skill in skills.items()
    }
    states = {name: dict.fromkeys(runs, "finished") for name, runs in found.items()}
    return analyse(found, states, CLASSES, baseline=next(iter(skills)), resamples=resamples)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with_nan = holm([0.01, math.nan])
    assert with_nan[0] == 0.01
    assert math.isnan(with_nan[1])


def test_permutation_by_hand() -> None:
    assert permutation_p(np.array([1.0, 2.0, 3.0])) == 0.25  # of 8 signs only all or none reach the mean
    assert permutation_p(np.array([1.0, -1.0])) == 1.0
    assert permutation_p(np.ones(5)) == 2 / 32
    assert permutation_p(np.ones(20)) < 0.01


def test_an_interval_with_one_source_of_chance_is_that_of_students_t() -> None:
    seeds_alone = Spread(0.25, 0.0, seeds=4, images=99)
    assert seeds_alone.half(0.05) == pytest.approx(2.7764 * 0.5, rel=1e-4)
    images_alone = Spread(0.0, 0.25, seeds=2, images=10**9)
    assert images_alone.half(0.05) == pytest.approx(1.95996 * 0.5, rel=1e-4)


def test_the_smallest_detectable_difference_has_the_power_of_the_t_test() -> None:
    for count, level in ((3, 0.05), (3, 0.01), (6, 0.05)):
        true = Spread(1.0, 0.0, seeds=count - 1, images=99).detectable(level)
        quantile = student.isf(level / 2, count - 1)
        assert nct.sf(quantile, count - 1, true) == pytest.approx(0.8, abs=2e-3)
    images_alone = Spread(0.0, 1.0, seeds=2, images=10**9).detectable(0.05)
    assert images_alone == pytest.approx(1.95996 + 0.84162, abs=1e-3)
    assert Spread(0.0, 0.0, seeds=2, images=9).detectable(0.05) == 0


def test_more_variants_need_a_larger_difference() -> None:
    each = np.random.default_rng(0).normal(0.1, 0.01, (3, 101))
    alone, among = difference(each, 50), difference(each, 50, 5)
    assert (alone.low, alone.p) == (among.low, among.p)
    assert among.smallest_detectable > 2 * alone.smallest_detectable


def test_intervals_of_normal_figures_hold_what_they_say() -> None:
    """Luck of trainings, of images, and of one training on one image, in turn and together."""
    random = np.random.default_rng(0)
    for of_seeds, of_images, of_both in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0.3, 1, 0)):
        benches, seeds = 1000, 3
        shared = random.normal(0, 1, (benches, 1)) * of_images
        own = shared + random.normal(0, 1, (benches, seeds)) * math.hypot(of_seeds, of_both)
        image_variance = (of_images**2 + of_both**2 / seeds) * random.chisquare(99, benches) / 99
        missed = [
            abs(d.mean()) > Spread(d.var(ddof=1) / seeds, variance, seeds - 1, 99).half(0.05)
            for d, variance in zip(own, image_variance, strict=True)
        ]
        assert np.mean(missed) < 0.07


@pytest.mark.parametrize("mean", [0.1, 0.7, 2.0, 9.0])
def test_p_is_the_level_at_which_the_interval_touches_zero(mean: float) -> None:
    spread = Spread(0.1, 0.2, seeds=2, images=50)
    p = spread.p(mean)
    assert spread.half(p) == pytest.approx(mean, rel=1e-6)
    assert spread.p(-mean) == p


def test_no_difference_at_all_is_certain() -> None:
    found = difference(np.zeros((3, 101)), 50)
    assert (found.low, found.high, found.p) == (0, 0, 1)
    certain = difference(np.full((3, 101), 0.5), 50)
    assert (certain.low, certain.high, certain.smallest_detectable) == (0.5, 0.5, 0)
    assert verdict(certain.difference, certain.p) == "better"


def test_one_seed_gives_no_interval_and_no_verdict() -> None:
    found = difference(np.random.default_rng(0).normal(0.2, 0.01, (1, 101)), 50)
    assert found.difference > 0.15
    assert math.isnan(found.low)
    assert verdict(found.difference, found.p) == "no difference shown"


def test_verdicts() -> None:
    assert [verdict(d, p) for d, p in ((1, 0.01), (-1, 0.01), (1, 0.05), (1, math.nan))] == [
        "better", "worse", "no difference shown", "no difference shown",
    ]  # fmt: skip


def test_a_missing_run_withholds_the_verdict_and_a_diverged_one_is_a_result() -> None:
    random = np.random.default_rng(0)
    truth = make_images(random, 20)
    run = {s: match(truth, train(random, truth, Skill(), LUCK), 2, OPTIONS) for s in range(2)}
    states = {
        "base": {0: "finished", 1: "finished"}, "hole": {0: "finished", 1: "missing"},
        "gone": {0: "finished", 1: "diverged"}, "good": {0: "finished", 1: "finished"},
    }  # fmt: skip
    matches = {"base": run, "hole": {0: run[0]}, "gone": {0: run[0]}, "good": run}
    found = analyse(matches, states, CLASSES, baseline="base", resamples=20)
    assert found["hole"]["versus_baseline"] is None
    for name in ("hole", "gone"):  # never a mean over fewer seeds
        summary = found[name]["summary"]["ap"]
        assert summary["values"][1] is None
        assert summary["values"][0] > 0
        assert summary["mean"] is None
        assert summary["std"] is None
    assert found["gone"]["versus_baseline"]["ap"]["verdict"] == "diverged"
    assert found["good"]["versus_baseline"]["ap"]["verdict"] == "no difference shown"
    json.dumps(found, allow_nan=False)
    states["base"][1] = "failed"
    found = analyse(matches, states, CLASSES, baseline="base", resamples=20)
    assert found["good"]["versus_baseline"] is None
    assert analyse({v: {} for v in states}, states, CLASSES, baseline="base")["good"]["versus_baseline"] is None


def test_a_variant_without_its_runs_counts_in_holms_correction_and_a_diverged_one_does_not() -> None:
    random = np.random.default_rng(0)
    truth = make_images(random, 20)
    runs = {v: {s: match(truth, train(random, truth, Skill(), LUCK), 2, OPTIONS) for s in range(3)} for v in ("a", "b")}
    for state, factor in (("missing", 2), ("failed", 2), ("diverged", 1)):
        states = {v: dict.fromkeys(range(3), "finished") for v in runs} | {"c": dict.fromkeys(range(3), state)}
        found = analyse({**runs, "c": {}}, states, CLASSES, baseline="a", resamples=30)["b"]["versus_baseline"]["ap"]
        assert found["p_holm"] == min(1, factor * found["p"])


def test_the_same_seed_of_the_statistics_gives_the_same_report() -> None:
    skills = {"a": Skill(), "b": Skill(recall=0.78)}
    first, second = (bench(np.random.default_rng(1), skills, images=20, resamples=30) for _ in range(2))
    assert first == second


def test_a_better_fit_of_boxes_is_found() -> None:
    found = bench(np.random.default_rng(0), {"a": Skill(), "b": Skill(jitter=0.06)}, images=40)
    versus = found["b"]["versus_baseline"]
    assert versus["ap"]["verdict"] == "better"
    assert versus["ap"]["low"] < versus["ap"]["difference"] < versus["ap"]["high"]
    assert versus["ap"]["difference"] == pytest.approx(np.mean(versus["ap"]["seeds_differences"]))


def shown(skills: Any, *, benches: Any, **options: Any) -> Any:
    """How often a difference between the two was shown, and the mean difference."""
    results = [bench(np.random.default_rng(i), skills, **options)["b"]["versus_baseline"]["ap"] for i in range(benches)]
    kinds = [r["verdict"] for r in results]
    return kinds.count("better"), kinds.count("worse"), float(np.mean([r["difference"] for r in results]))


def test_the_same_loss_twice_is_rarely_told_apart() -> None:
    better, worse, _ = shown({"a": Skill(), "b": Skill()}, benches=12, images=30, resamples=100)
    assert better + worse <= 2


@pytest.mark.slow
def test_of_100_benches_of_the_same_loss_at_least_95_show_nothing() -> None:
    better, worse, mean = shown({"a": Skill(), "b": Skill()}, benches=100)
    print(f"\nsame loss: {better} better, {worse} worse of 100; mean difference {100 * mean:+.2f} points")
    assert better + worse <= 5


@pytest.mark.slow
def test_two_points_less_are_found() -> None:
    worse_by_two = {"a": Skill(), "b": Skill(jitter=0.1057)}
    better, worse, mean = shown(worse_by_two, benches=20, images=400, luck=STEADY)
    print(f"\nworse by {-100 * mean:.2f} points: found in {worse} of 20 benches of 3 seeds, 400 images")
    assert better == 0
    assert worse >= 16


def test_one_image_gives_no_verdict_and_no_error() -> None:
    found = difference(np.repeat([[0.02], [0.03], [0.01]], 11, axis=1), 1)
    assert found.difference == pytest.approx(0.02)
    assert np.isnan([found.low, found.high, found.p, found.smallest_detectable]).all()


def test_runs_without_any_difference_claim_no_smallest_one() -> None:
    assert np.isnan(difference(np.zeros((3, 11)), 20).smallest_detectable)


def test_a_class_that_one_image_has_gets_no_verdict() -> None:
    """Its AP hangs on that image, and resampling the others says nothing of it."""
    rows = np.repeat([[0.2], [0.21], [0.19]], 11, axis=1)
    runs, base = ({s: {"ap": r, "per_class:rare": r} for s, r in enumerate(f * rows)} for f in (1.0, 0.0))
    found = correct({"v": compare(runs, base, {"ap": 50, "per_class:rare": 1})}, 1)["v"]
    assert found["ap"]["verdict"] == BETTER
    assert found["per_class:rare"]["verdict"] == NO_DIFFERENCE
    assert found["per_class:rare"]["p"] is None

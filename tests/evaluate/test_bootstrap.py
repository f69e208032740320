"""AP on resampled images is what the evaluator says of those images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.evaluate.arrays import GroundTruth, Shard
from detkit.evaluate.bootstrap import average_precision, resample
from detkit.evaluate.coco import CocoEvaluator, CocoResult
from detkit.evaluate.matches import load_matches, match, save_matches
from detkit.evaluate.options import EvaluatorOptions
from detkit.structures import ClassMap
from tests.compare.simulate import Skill, make_images, train
from tests.refusals import Refuses

CLASSES = ClassMap(("a", "b", "never"), (0, 1, 2))
METRICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
OPTIONS = EvaluatorOptions(area_limits=(40.0**2, 80.0**2), engine="pycocotools")


def repeated(truth: GroundTruth, found: Shard, weights: np.ndarray) -> tuple[GroundTruth, Shard]:
    """The resample written out: every image as often as its weight, under an id of its own."""
    chosen = np.repeat(np.arange(len(weights)), weights)
    objects = [slice(truth.offsets[i], truth.offsets[i + 1]) for i in chosen]
    ends = np.concatenate(([0], np.cumsum(found.counts)))
    rows = [slice(ends[i], ends[i + 1]) for i in chosen]

    def take(values: np.ndarray, slices: list[slice]) -> np.ndarray:
        return np.concatenate([values[s] for s in slices]) if slices else values[:0]

    ids = np.arange(len(chosen))
    there = GroundTruth(
        ids, np.cumsum([0, *(s.stop - s.start for s in objects)]), take(truth.boxes, objects),
        take(truth.labels, objects), take(truth.crowd, objects), take(truth.area, objects),
    )  # fmt: skip
    boxes, scores, labels = (take(x, rows) for x in (found.boxes, found.scores, found.labels))
    return there, Shard(ids, found.counts[chosen], boxes, scores, labels)


def evaluated(truth: GroundTruth, found: Shard, options: EvaluatorOptions) -> CocoResult:
    evaluator = CocoEvaluator(CLASSES, truth, options)
    evaluator.merge([found])
    return evaluator.compute()


def compare(truth: GroundTruth, found: Shard, weights: np.ndarray, options: EvaluatorOptions = OPTIONS) -> None:
    values = average_precision(match(truth, found, 3, options), weights, CLASSES.names)
    for i, drawn in enumerate(weights):
        result = evaluated(*repeated(truth, found, drawn), options)
        wanted = {name: result.metrics[name] for name in METRICS}
        wanted |= {f"per_class:{name}": result.per_class[name]["ap"] for name in CLASSES.names}
        for name, value in wanted.items():
            if value is None:
                assert np.isnan(values[name][i]), name
            else:
                assert values[name][i] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("seed", range(3))
def test_every_metric_of_every_resample_is_the_evaluators(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = make_images(random, 14)
    found = train(random, truth, Skill(jitter=0.08 + 0.04 * seed), luck=0.2)
    compare(truth, found, np.concatenate((np.ones((1, 14), np.int32), resample(14, 5, seed))))


def test_more_detections_than_count_of_one_class() -> None:
    random = np.random.default_rng(7)
    truth = make_images(random, 4)
    found = train(random, truth, Skill(wrong=260.0), luck=0.0)
    assert found.counts.max() > 200
    compare(truth, found, resample(4, 3, 1))


@pytest.mark.parametrize("engine", ["pycocotools", "faster"])
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_equal_scores_within_and_between_images(steps: int, engine: Any) -> None:
    random = np.random.default_rng(steps)
    truth = make_images(random, 9)
    found = train(random, truth, Skill(wrong=6.0), luck=0.0)
    found = found._replace(scores=(np.round(found.scores * steps) / steps).astype(np.float32))
    weights = np.concatenate((np.ones((1, 9), np.int32), resample(9, 4, steps)))
    assert weights.max() > 2
    compare(truth, found, weights, replace(OPTIONS, engine=engine))


def test_an_image_drawn_twice_with_equal_scores_by_hand() -> None:
    one = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    truth = GroundTruth(
        np.array([1]), np.array([0, 1]), one[:1], np.zeros(1, int), np.zeros(1, bool), np.array([100.0])
    )
    found = Shard(np.array([1]), np.array([2]), one, np.full(2, 0.5, np.float32), np.zeros(2, int))
    values = average_precision(match(truth, found, 1, OPTIONS), np.array([[1], [2]], np.int32), ("a",))
    # Twice: right, wrong, right, wrong. Precision is 1 up to recall 1/2 (51 of 101 recalls), 2/3 beyond.
    assert values["ap"] == pytest.approx([1.0, (51 + 50 * 2 / 3) / 101])


@pytest.mark.parametrize("empty", ["objects", "detections", "both"])
def test_nothing_there(empty: str) -> None:
    random = np.random.default_rng(5)
    truth = make_images(random, 5)
    found = train(random, truth, Skill(), luck=0.0)
    if empty in ("objects", "both"):
        nothing = (x[:0] for x in (truth.boxes, truth.labels, truth.crowd, truth.area))
        truth = GroundTruth(truth.image_ids, np.zeros(6, int), *nothing)  # type: ignore[arg-type]
    if empty in ("detections", "both"):
        found = Shard(found.image_ids, np.zeros(5, int), found.boxes[:0], found.scores[:0], found.labels[:0])
    compare(truth, found, resample(5, 3, 0))


def test_a_resample_without_the_class_has_no_figure_for_it() -> None:
    random = np.random.default_rng(0)
    truth = make_images(random, 10)
    found = train(random, truth, Skill(), luck=0.0)
    weights = np.zeros((1, 10), np.int32)
    weights[0, int(np.flatnonzero(np.diff(truth.offsets) == 1)[0])] = 10
    values = average_precision(match(truth, found, 3, OPTIONS), weights, CLASSES.names)
    assert sum(np.isnan(values[f"per_class:{name}"][0]) for name in ("a", "b")) == 1
    compare(truth, found, weights)


def test_matches_survive_the_disk(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    truth = make_images(random, 10)
    kept = match(truth, train(random, truth, Skill(), luck=0.0), 3, OPTIONS)
    save_matches(tmp_path / "matches.npz", kept)
    weights = resample(10, 4)
    before = average_precision(kept, weights, CLASSES.names)
    after = average_precision(load_matches(tmp_path / "matches.npz"), weights, CLASSES.names)
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    truth = make_images(random, 10)
    found = train(random, truth, Skill(), luck=0.0)
    found = found._replace(scores=np.round(found.scores * 4).astype(np.float32) / 4)  # type: ignore[arg-type]
    kept, weights = match(truth, found, 3, OPTIONS), resample(10, 20)
    whole = average_precision(kept, weights, CLASSES.names)
    monkeypatch.setattr("detkit.evaluate.bootstrap.CHUNK", 64)
    assert np.array_equal(whole["ap"], average_precision(kept, weights, CLASSES.names)["ap"])


def test_weights_are_draws_with_replacement() -> None:
    weights = resample(50, 400)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(0.98, abs=0.05)  # binomial(50, 1 / 50)
    assert np.array_equal(weights, resample(50, 400))


def test_weights_of_other_images_are_refused(refuses: Refuses) -> None:
    random = np.random.default_rng(0)
    truth = make_images(random, 6)
    kept = match(truth, train(random, truth, Skill(), luck=0.0), 3, OPTIONS)
    with refuses(ValueError):
        average_precision(kept, resample(7, 2), CLASSES.names)

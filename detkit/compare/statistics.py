"""Means, paired differences, intervals, p-values and verdicts of a bench.

The model. Run s of variant v is measured as m(v, s) on N validation images. Its difference to the baseline of
the same seed, d(s), has two sources of chance: the training (order of images, augmentation, initial weights:
another d for every seed) and the images (another N images would give other figures, to all seeds alike). With
S seeds

    variance of the mean difference = A + B,    A = var(d) / S,    B = variance over resamples of the images

A is estimated from S numbers, so a percentile of resampled seeds would be far too narrow for S = 3 (it can't leave
their range). The interval is mean +- sqrt(t(S - 1)^2 A + t(N - 1)^2 B), each part with its own quantile of Student's
t (the MOVER of Zou and Donner, 2008, for a sum). What one training happens to do on one image is in both A and B, so
the interval is too wide rather than too narrow: by simulation, for S = 2 to 10, it errs in 5 % where A is the luck of
trainings alone or B that of images alone, in 0.4 % where all luck is of one training on one image, and in between
elsewhere; Satterthwaite's degrees of freedom give up to 13 %. The p-value is the level at which the interval touches
zero. B comes from a bootstrap (Efron, 1979) in which variant and baseline are given the same images. For AP of a
class or a size, N is the number of images that have such an object; on one alone nothing can be told.

The permutation test exchanges variant and baseline in any subset of the seeds: exact, but with S seeds it
can't give less than 2^(1 - S), which is 0.25 for three. Exchanging them image by image would give smaller ones and
is wrong: a training's luck is shared by all its images, so the same loss would be told apart (see
EXPERIMENTS.md). It is reported; the verdict goes by the interval's p with Holm's correction (1979) over the
variants of the plan, finished or not, but for those that diverged. Letters: S seeds, R resamples, N images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detkit.compare.bootstrap import average_precision, images_behind, resample
from detkit.compare.matches import Matches

LEVEL = 0.05
POWER = 0.8
RESAMPLES = 1000
BETTER, WORSE, NONE, DIVERGED = "better", "worse", "no difference shown", "diverged"
MOST_PERMUTED = 12
"""Seeds up to which all 2^S exchanges are tried; beyond, as many are drawn."""

Figures = dict[str, NDArray[np.float64]]
"""Metric -> (1 + R,): on all images, then on each resample."""


@dataclass(frozen=True)
class Difference:
    """A paired difference, as results.json has it. low, high: of the interval, 95 %."""

    difference: float
    low: float
    high: float
    p: float
    p_permutation: float
    smallest_detectable: float
    seeds_differences: list[float]


def figures(matches: Matches, class_names: tuple[str, ...], weights: NDArray[np.int32]) -> Figures:
    """Every metric on all images and on each resample of them; weights (R, N)."""
    whole = np.ones((1, matches.num_images), np.int32)
    return average_precision(matches, np.concatenate((whole, weights)), class_names)


def analyse(
    matches: Mapping[str, Mapping[int, Matches]],
    states: Mapping[str, Mapping[int, str]],
    class_names: tuple[str, ...],
    *,
    baseline: str,
    resamples: int = RESAMPLES,
) -> dict[str, dict[str, Any]]:
    """Variant -> "summary" and "versus_baseline" of results.json.

    matches: of the finished runs. states: of all runs, `finished`, `diverged`, `failed` or `missing`. A
    variant is compared only if all its runs finished, and only if all of the baseline did. One with a
    diverged run gets that as its verdict.
    """
    some = next((m for runs in matches.values() for m in runs.values()), None)
    weights = resample(some.num_images, resamples) if some else np.zeros((resamples, 0), np.int32)
    found = {v: {s: figures(m, class_names, weights) for s, m in runs.items()} for v, runs in matches.items()}
    family = sum(v != baseline and DIVERGED not in runs.values() for v, runs in states.items())
    compared = {
        v: compare(found[v], found[baseline], images_behind(some, class_names), family)
        for v in states
        if some and v != baseline and _whole(states[v]) and _whole(states[baseline])
    }
    corrected = correct(compared, family)
    result = {}
    for v, runs in states.items():
        versus: dict[str, Any] | None = corrected.get(v)
        if v != baseline and DIVERGED in runs.values():
            versus = {"ap": _diverged()}
        result[v] = {"summary": summarise(found.get(v, {}), list(runs)), "versus_baseline": versus}
    return result


def _whole(states: Mapping[int, str]) -> bool:
    return all(state == "finished" for state in states.values())


def _diverged() -> dict[str, Any]:
    names = ("difference", "low", "high", "p", "p_permutation", "p_holm", "smallest_detectable")
    return {**dict.fromkeys(names), "verdict": DIVERGED, "seeds_differences": []}


def summarise(runs: Mapping[int, Figures], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Metric -> mean, standard deviation (n - 1) and the value of every seed, null where there is none.

    Mean and deviation are null, too, unless every seed has a value.
    """
    names = list(next(iter(runs.values()))) if runs else []
    result = {}
    for name in names:
        values = [_or_none(runs[s][name][0]) if s in runs else None for s in seeds]
        good = [v for v in values if v is not None]
        whole = len(good) == len(values)
        result[name] = {
            "mean": float(np.mean(good)) if whole else None,
            "std": float(np.std(good, ddof=1)) if whole and len(good) > 1 else None,
            "values": values,
        }
    return result


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def compare(
    runs: Mapping[int, Figures], base: Mapping[int, Figures], images: Mapping[str, int], family: int = 1
) -> dict[str, Difference]:
    """Every metric that both have on all images -> the paired difference.

    images: on how many each metric rests. family: variants compared.
    """
    seeds = sorted(runs)
    result = {}
    for name in runs[seeds[0]]:
        each = np.stack([runs[s][name] - base[s][name] for s in seeds])
        if not np.isnan(each[:, 0]).any():
            result[name] = difference(each, images[name], family)
    return result


def difference(each: NDArray[np.float64], num_images: int, family: int = 1) -> Difference:
    """(S, 1 + R) differences on all images and on resamples -> mean, interval, p-values, smallest detectable.

    family: as many variants are compared; the smallest detectable difference is shown whatever the others are.
    With one seed the variance by training is unknown, with one image that by images: interval and p are NaN, and
    there is no verdict.
    """
    own = each[:, 0]
    count, mean = len(own), float(own.mean())
    drawn = each[:, 1:].mean(axis=0)
    drawn = drawn[~np.isnan(drawn)]
    of_images = float(drawn.var(ddof=1)) if len(drawn) > 1 and num_images > 1 else math.nan
    of_seeds = float(own.var(ddof=1)) / count if count > 1 else math.nan
    spread = Spread(of_seeds, of_images, count - 1, num_images - 1)
    if of_seeds + of_images == 0 and mean == 0:  # the same detections, or none, in every run: no spread to reckon from
        return Difference(mean, mean, mean, 1.0, 1.0, math.nan, own.tolist())
    half = spread.half(LEVEL)
    smallest = spread.detectable(LEVEL / family)
    return Difference(mean, mean - half, mean + half, spread.p(mean), permutation_p(own), smallest, own.tolist())


@dataclass(frozen=True)
class Spread:
    """Variance of a mean difference by training and by images, with their degrees of freedom."""

    of_seeds: float
    of_images: float
    seeds: int
    images: int

    def half(self, level: float) -> float:
        """Half the width of the two-sided interval that misses with probability `level`."""
        if math.isnan(self.of_seeds + self.of_images):
            return math.nan
        seeds, images = self._squares(level)
        return math.sqrt(self.of_seeds * seeds + self.of_images * images)

    def _squares(self, level: float) -> tuple[float, float]:
        """Squared quantiles of Student's t, 0 for a part without variance."""
        from scipy.stats import t as student

        parts = ((self.of_seeds, self.seeds), (self.of_images, self.images))
        seeds, images = (float(student.isf(level / 2, n)) ** 2 if variance > 0 else 0.0 for variance, n in parts)
        return seeds, images

    def detectable(self, level: float) -> float:
        """The difference that is shown at `level` with probability POWER, were these the true variances.

        The estimated variance of S seeds is that times chi-square over S - 1: its distribution is summed over.
        """
        from scipy.optimize import brentq
        from scipy.stats import chi2, norm

        total = self.of_seeds + self.of_images
        if total == 0 or math.isnan(total):
            return total
        seeds, images = self._squares(level)
        estimated = self.of_seeds * chi2.ppf((np.arange(400) + 0.5) / 400, self.seeds) / self.seeds
        halves, deviation = np.sqrt(estimated * seeds + self.of_images * images), math.sqrt(total)

        def missing(true: float) -> float:
            return POWER - float(norm.sf((halves - true) / deviation).mean())

        return float(brentq(missing, 0.0, halves[-1] + 5 * deviation))

    def p(self, mean: float) -> float:
        """The level at which the interval around `mean` touches zero."""
        from scipy.optimize import brentq

        if math.isnan(self.of_seeds + self.of_images):
            return math.nan
        lowest = 1e-12
        if self.half(lowest) <= abs(mean):
            return lowest
        return float(brentq(lambda level: self.half(level) - abs(mean), lowest, 1.0, xtol=1e-12))


def permutation_p(own: NDArray[np.float64]) -> float:
    """Two-sided p of the mean of S paired differences when every sign was as likely as its opposite."""
    count = len(own)
    if count <= MOST_PERMUTED:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
    else:
        drawn = np.random.default_rng(0).choice((1.0, -1.0), (2**MOST_PERMUTED - 1, count))
        signs = np.concatenate((np.ones((1, count)), drawn))
    means = np.abs(signs @ own)
    return float((means >= means[0] * (1 - 1e-12)).mean())


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979); NaN stays NaN and is not counted."""
    values = np.asarray(p, dtype=np.float64)
    there = np.flatnonzero(~np.isnan(values))
    order = there[np.argsort(values[there], kind="stable")]
    result = np.full(len(values), np.nan)
    result[order] = np.minimum(np.maximum.accumulate(values[order] * (len(order) - np.arange(len(order)))), 1.0)
    return [float(v) for v in result]


def correct(compared: Mapping[str, Mapping[str, Difference]], family: int) -> dict[str, dict[str, Any]]:
    """Adds Holm's p, over the variants, and the verdict to every metric.

    family: how many variants the plan compares. One whose runs are not there yet counts, as if its p were 1, so that
    a verdict doesn't turn when they are.
    """
    result: dict[str, dict[str, Any]] = {v: {} for v in compared}
    for name in sorted({name for found in compared.values() for name in found}):
        having = [v for v in compared if name in compared[v]]
        unknown = [1.0] * (family - len(compared))
        for v, p in zip(having, holm([compared[v][name].p for v in having] + unknown), strict=False):
            found = compared[v][name]
            result[v][name] = {
                **{key: _or_null(value) for key, value in vars(found).items()},
                "p_holm": _or_null(p),
                "verdict": verdict(found.difference, p),
            }
    return result


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def verdict(difference: float, p: float) -> str:
    """In words; p is corrected. Without a p (one seed) nothing is shown."""
    if math.isnan(p) or p >= LEVEL:
        return NONE
    return BETTER if difference > 0 else WORSE

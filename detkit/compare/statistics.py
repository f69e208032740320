"""Means, paired differences, intervals, p-values and verdicts of a bench.

docs/compare.md, "What a verdict says", has the model. The interval, mean +- sqrt(t(S - 1)^2 A + t(N - 1)^2 B) with A =
variance of the paired differences / S and B = variance over resamples of the images (Efron's bootstrap, 1979), gives
each part its own quantile of Student's t (the MOVER of Zou and Donner, 2008, for a sum). What one training happens to
do on one image is in both A and B, so the interval is too wide rather than too narrow: by simulation, for S = 2 to 10,
it errs in 5 % where A is the luck of trainings alone or B that of images alone, in 0.4 % where all luck is of one
training on one image, and in between elsewhere; Satterthwaite's degrees of freedom give up to 13 %. For AP of a class
or a size, N is the number of images that have such an object; on one alone there is no interval.

The permutation test exchanges variant and baseline by seed. Exchanging them image by image would give smaller p and is
wrong: a training's luck is shared by all its images, so a loss would differ from itself (see EXPERIMENTS.md).
Letters: S seeds, R resamples, N images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from detkit.compare.cell_folder import DIVERGED, FINISHED
from detkit.evaluate.bootstrap import average_precision, images_behind, resample
from detkit.evaluate.matches import Matches
from detkit.utils.types import Floats, Tree

T = TypeVar("T")

LEVEL = 0.05
POWER = 0.8
RESAMPLES = 1000
BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference shown"
DIVERGED_FIGURES = ("difference", "low", "high", "p", "p_permutation", "p_holm", "smallest_detectable")
MOST_PERMUTED = 12
"""Number of seeds up to which all 2^S exchanges are tried; with more seeds, as many exchanges are drawn."""

Figures: TypeAlias = dict[str, NDArray[np.float64]]
"""Metric -> (1 + R,): on all images, then on each resample."""


@dataclass(frozen=True)
class Difference:
    """A paired difference, as results.json has it. low, high: ends of the 95 % interval."""

    difference: float
    low: float
    high: float
    p: float
    p_permutation: float
    smallest_detectable: float
    seeds_differences: list[float]


def analyse(
    matches: Mapping[str, Mapping[int, Matches]],
    states: Mapping[str, Mapping[int, str]],
    class_names: tuple[str, ...],
    *,
    baseline: str,
    resamples: int = RESAMPLES,
) -> dict[str, Tree]:
    """Variant -> "summary" and "versus_baseline" of results.json.

    matches: of the finished runs. states: of all runs, `finished`, `diverged`, `failed` or `missing`. A variant is
    compared if all its runs and all runs of the baseline finished. The verdict on a variant with a diverged run is
    "diverged".
    """
    first = next((m for runs in matches.values() for m in runs.values()), None)
    measured: dict[str, dict[int, Figures]] = {}
    if first:
        weights = np.concatenate((np.ones((1, first.num_images), np.int32), resample(first.num_images, resamples)))
        for v, of_variant in matches.items():
            measured[v] = {s: average_precision(m, weights, class_names) for s, m in of_variant.items()}
    family = sum(v != baseline and DIVERGED not in runs.values() for v, runs in states.items())
    compared = {
        v: compare(measured[v], measured[baseline], images_behind(first, class_names), family)
        for v in states
        if first and v != baseline and {*states[v].values(), *states[baseline].values()} == {FINISHED}
    }
    corrected = correct(compared, family)
    result = {}
    for v, runs in states.items():
        versus: Tree | None = corrected.get(v)
        if v != baseline and DIVERGED in runs.values():
            versus = {"ap": {**dict.fromkeys(DIVERGED_FIGURES), "verdict": DIVERGED, "seeds_differences": []}}
        result[v] = {"summary": summarise(measured.get(v, {}), list(runs)), "versus_baseline": versus}
    return result


def summarise(runs: Mapping[int, Figures], seeds: Sequence[int]) -> Tree:
    """Metric -> mean, standard deviation (n - 1) and the value of every seed, null where it is unknown.

    Mean and deviation are null unless every seed has a value.
    """
    result = {}
    for name in next(iter(runs.values()), {}):
        values = [_or_null(float(runs[s][name][0])) if s in runs else None for s in seeds]
        known = [v for v in values if v is not None]
        complete = len(known) == len(values)
        result[name] = {
            "mean": float(np.mean(known)) if complete else None,
            "std": float(np.std(known, ddof=1)) if complete and len(known) > 1 else None,
            "values": values,
        }
    return result


def compare(
    runs: Mapping[int, Figures], base: Mapping[int, Figures], images: Mapping[str, int], family: int = 1
) -> dict[str, Difference]:
    """Metric that both have on all images -> paired difference.

    images: number of images that each metric rests on. family: number of variants compared.
    """
    seeds = sorted(runs)
    differences = {name: np.stack([runs[s][name] - base[s][name] for s in seeds]) for name in runs[seeds[0]]}
    return {
        name: difference(each, images[name], family)
        for name, each in differences.items()
        if not np.isnan(each[:, 0]).any()
    }


def difference(each: NDArray[np.float64], num_images: int, family: int = 1) -> Difference:
    """(S, 1 + R) differences on all images and on resamples -> mean, interval, p-values, smallest detectable.

    family: number of variants compared; the smallest detectable difference holds whatever the others are. With one
    seed the variance by training is unknown, with one image that by images: interval and p are NaN, and there is no
    verdict.
    """
    by_seed = each[:, 0]
    count, mean = len(by_seed), float(by_seed.mean())
    resampled = each[:, 1:].mean(axis=0)
    resampled = resampled[~np.isnan(resampled)]
    of_images = float(resampled.var(ddof=1)) if len(resampled) > 1 and num_images > 1 else math.nan
    of_seeds = float(by_seed.var(ddof=1)) / count if count > 1 else math.nan
    spread = Spread(of_seeds, of_images, count - 1, num_images - 1)
    if of_seeds + of_images == 0 and mean == 0:  # the same detections, or none, in every run: the spread is unknown
        return Difference(mean, mean, mean, 1.0, 1.0, math.nan, by_seed.tolist())
    half = spread.half(LEVEL)
    smallest = spread.detectable(LEVEL / family)
    return Difference(
        mean, mean - half, mean + half, spread.p(mean), permutation_p(by_seed), smallest, by_seed.tolist()
    )


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
        """Squared quantiles of Student's t for seeds and images, 0 for a part without variance."""
        from scipy.stats import t as student

        parts = ((self.of_seeds, self.seeds), (self.of_images, self.images))
        seeds, images = (float(student.isf(level / 2, n)) ** 2 if variance > 0 else 0.0 for variance, n in parts)
        return seeds, images

    def detectable(self, level: float) -> float:
        """The difference that is shown at `level` with probability POWER if these are the true variances.

        The variance estimated from S seeds is the true one times chi-square over S - 1; the mean over its
        distribution is taken.
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


def permutation_p(differences: Floats) -> float:
    """Two-sided p of the mean of S paired differences if every sign is as likely as its opposite."""
    count = len(differences)
    if count <= MOST_PERMUTED:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
    else:
        drawn = np.random.default_rng(0).choice((1.0, -1.0), (2**MOST_PERMUTED - 1, count))
        signs = np.concatenate((np.ones((1, count)), drawn))
    means = np.abs(signs @ differences)
    return float((means >= means[0] * (1 - 1e-12)).mean())


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979); NaN stays NaN and is not counted."""
    values = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    result = np.full(len(values), np.nan)
    result[order] = np.minimum(np.maximum.accumulate(values[order] * (len(order) - np.arange(len(order)))), 1.0)
    return [float(v) for v in result]


def correct(compared: Mapping[str, Mapping[str, Difference]], family: int) -> dict[str, Tree]:
    """Adds Holm's p, over the variants, and the verdict to every metric.

    family: number of variants that the plan compares. A variant whose runs are missing counts as if its p were 1, so
    that a verdict does not change when they are made.
    """
    result: dict[str, Tree] = {v: {} for v in compared}
    for name in sorted({name for metrics in compared.values() for name in metrics}):
        variants = [v for v in compared if name in compared[v]]
        unknown = [1.0] * (family - len(compared))
        for v, p in zip(variants, holm([compared[v][name].p for v in variants] + unknown), strict=False):
            paired = compared[v][name]
            result[v][name] = {
                **{key: _or_null(value) for key, value in vars(paired).items()},
                "p_holm": _or_null(p),
                "verdict": verdict(paired.difference, p),
            }
    return result


def _or_null(value: T) -> T | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def verdict(difference: float, p: float) -> str:
    """The verdict in words. p: corrected; NaN with one seed, so that no difference is shown."""
    if math.isnan(p) or p >= LEVEL:
        return NO_DIFFERENCE
    return BETTER if difference > 0 else WORSE

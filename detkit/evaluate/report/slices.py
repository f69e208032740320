"""Groups of images by what their metadata say, and the figures of each group."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from detkit.data.datasets.base import DetectionDataset
from detkit.evaluate.bootstrap import average_precision, resample
from detkit.evaluate.matches import Matches
from detkit.utils.console import nearest, shorten_list
from detkit.utils.types import Floats, Ints, Scalar, Tree

GROUPS = 12
"""Values of a text column that are groups of their own; the rest is one group."""
QUANTILES = 4
RESAMPLES = 200

Column = Sequence[Scalar | None]
"""A value for each image of a data set, None where it has none."""


def image_columns(dataset: DetectionDataset) -> dict[str, Column]:
    """Column -> its value for each image: width, height and objects of all data, then what the files have."""
    records = dataset.records
    sizes = [(width, height) if height > 0 else (None, None) for height, width in records.sizes.tolist()]
    ends = records.truth.ends
    objects = np.add.reduceat(np.append(~records.truth.is_ignore, False).astype(np.int64), [0, *ends[:-1].tolist()])
    objects[np.diff(ends, prepend=0) == 0] = 0  # reduceat gives the next element there
    columns: dict[str, Column] = {
        "width": [width for width, _ in sizes],
        "height": [height for _, height in sizes],
        "objects": objects.tolist(),
    }
    rows = metadata_of(dataset)
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys} | columns


def metadata_of(dataset: DetectionDataset) -> list[Mapping[str, Scalar]]:
    """The metadata of each image, from the data sets that hold them."""
    known: dict[int, list[Mapping[str, Scalar]]] = {}
    rows = []
    for i in range(len(dataset)):
        holder, inner = dataset.origin(i)
        key = id(holder.records)  # which copies of a data set share
        if key not in known:
            known[key] = holder.image_metadata()
        rows.append(known[key][inner])
    return rows


def chosen_columns(dataset: DetectionDataset, keys: Sequence[str]) -> dict[str, Column]:
    """The columns of `--slice`; ValueError for one that the data does not have."""
    columns = image_columns(dataset) if keys else {}
    for key in keys:
        if key not in columns:
            raise ValueError(
                f"--slice: {key!r} is no column of {dataset.name}{nearest(key, list(columns))} Its columns: "
                f"{shorten_list(list(columns), 20)}"
            )
    return {key: columns[key] for key in dict.fromkeys(keys)}


def groups_of(column: Column) -> dict[str, Ints]:
    """Name of a group -> indices of its images. Numbers of more than a few values are cut at their quartiles."""
    present = [i for i, value in enumerate(column) if not is_missing(value)]
    absent = [i for i, value in enumerate(column) if is_missing(value)]
    numeric = all(isinstance(column[i], (int, float)) and not isinstance(column[i], bool) for i in present)
    if numeric and len({column[i] for i in present}) > QUANTILES + 2:
        groups = quantile_groups(np.array([column[i] for i in present], np.float64), np.array(present))
    else:
        groups = value_groups(column, present, numeric)
    return groups | ({"no value": np.array(absent)} if absent else {})


def is_missing(value: Scalar | None) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def quantile_groups(values: Floats, images: Ints) -> dict[str, Ints]:
    """Four groups of about as many images; fewer where many values are equal. The upper end belongs to a group."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, QUANTILES + 1)))
    group = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, None)
    texts = [f"{edge:.6g}" for edge in edges]
    names = [f"{texts[0]} to {texts[1]}", *(f"above {a} to {b}" for a, b in pairwise(texts[1:]))]
    return {name: images[group == g] for g, name in enumerate(names) if (group == g).any()}


def value_groups(column: Column, images: Sequence[int], numeric: bool) -> dict[str, Ints]:
    """A group for each of the most frequent values, and one for all others."""
    names = {i: value_text(column[i]) for i in images}
    counts = Counter(names.values())
    frequent = [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    kept = frequent if len(frequent) <= GROUPS else frequent[: GROUPS - 1]
    if numeric:
        kept = sorted(kept, key=float)
    groups = {name: np.array([i for i in images if names[i] == name]) for name in kept}
    rest = [i for i in images if names[i] not in groups]
    return groups | ({f"{len(counts) - len(kept)} other values": np.array(rest)} if rest else {})


def value_text(value: Scalar | None) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)


def slice_figures(
    column: Column, matches: Matches, class_names: tuple[str, ...], position: Ints, objects: Ints
) -> list[Tree]:
    """The figures of every group: images, objects, AP with its interval, AP50, AP75.

    position: (B,) of each image of the data set in the matches. objects: (B,) that count.
    """
    rows = []
    for name, images in groups_of(column).items():
        weights = np.zeros((1 + RESAMPLES, matches.num_images), np.int32)
        weights[0, position[images]] = 1
        weights[1:, position[images]] = resample(len(images), RESAMPLES)
        figures = average_precision(matches, weights, class_names)
        low, high = interval(figures["ap"][1:], len(images))
        rows.append(
            {
                "name": name, "images": len(images), "objects": int(objects[images].sum()), "low": low, "high": high,
                **{key: number(figures[key][0]) for key in ("ap", "ap50", "ap75")},
            }
        )  # fmt: skip
    return rows


def interval(values: Floats, images: int) -> tuple[float | None, float | None]:
    """Ends of the 95 % interval: percentiles 2.5 and 97.5 of the resamples; None for fewer than two images."""
    known = values[np.isfinite(values)]
    if images < 2 or not len(known):
        return None, None
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


def number(value: float) -> float | None:
    """A figure for JSON, None in place of NaN."""
    return None if math.isnan(value) else float(value)

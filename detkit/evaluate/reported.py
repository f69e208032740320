"""An evaluation, and the report of it if one is wanted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from detkit.data.datasets.base import DetectionDataset
from detkit.data.loader import Loader
from detkit.detectors.dense import DenseDetector
from detkit.evaluate.arrays import Shard
from detkit.evaluate.coco import CocoResult
from detkit.evaluate.loop import evaluate
from detkit.evaluate.options import EvaluatorOptions
from detkit.evaluate.report import write_report
from detkit.evaluate.report.findings import Evaluated, find
from detkit.evaluate.report.slices import chosen_columns


def evaluate_and_report(
    detector: DenseDetector,
    dataset: DetectionDataset,
    loader: Loader,
    options: EvaluatorOptions,
    *,
    report: str | os.PathLike[str] | None,
    slices: Sequence[str],
    title: str,
    progress: bool = True,
    on_detections: Callable[[Shard], None] | None = None,
) -> CocoResult:
    """`evaluate`, then its report in the folder `report`; None for no report.

    slices: columns of the images' metadata in the report; ValueError, before the evaluation, for one that the data does
    not have. title: heading of the report.
    """
    columns = chosen_columns(dataset, slices)
    collected: list[Shard] = []

    def keep(detections: Shard) -> None:
        collected.append(detections)
        if on_detections is not None:
            on_detections(detections)

    result = evaluate(detector, dataset, loader, options, progress=progress, on_detections=keep)
    if report is not None:
        write_report(find(Evaluated(result, dataset, collected[0], options), title, columns), os.fspath(report))
    return result

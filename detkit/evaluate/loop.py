"""The one evaluation loop: `detkit eval` and the evaluation during training both run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.records import count_differences
from detkit.data.loader import SampleError
from detkit.detectors.dense import DenseDetector
from detkit.distributed import comm
from detkit.evaluate.arrays import Shard
from detkit.evaluate.coco import CocoEvaluator, CocoResult, ground_truth_from, training_truth_from
from detkit.evaluate.options import EvaluatorOptions
from detkit.predict.rescale import to_original
from detkit.structures import Batch, Detections, Predictions
from detkit.utils.console import bar_stream


def evaluate(
    detector: DenseDetector,
    dataset: DetectionDataset,
    loader: Iterable[Batch],
    options: EvaluatorOptions | None = None,
    *,
    progress: bool = True,
    on_detections: Callable[[Shard], None] | None = None,
    on_predictions: Callable[[Predictions, Batch], None] | None = None,
) -> CocoResult:
    """Runs the detector over the loader and compares with the data set's ground truth.

    In a process group each rank's loader gives a part of the images; every rank returns the result over all of them,
    the same as one process would. The detector runs in eval mode and keeps its own mode afterwards.
    `CocoResult.seconds` splits this rank's time into data, network, postprocess and metrics. on_detections: gets
    this rank's detections before they are measured, images ascending by id. on_predictions: gets the raw predictions of
    each batch, inference tensors on the detector's device. Raises SampleError on every rank if one
    of them can't read its images.
    """
    clock = _Clock(next(detector.parameters()).device)
    problem: SampleError | None = None
    try:
        evaluator = collect(
            detector, dataset, loader, options, progress=progress, clock=clock, on_predictions=on_predictions
        )
    except SampleError as error:
        problem = error
    # An error of one rank is raised on all of them: the others would wait for its detections.
    if texts := [text for text in comm.all_gather(str(problem) if problem else None) if text is not None]:
        raise SampleError(texts[0]) from problem
    if on_detections is not None:
        on_detections(evaluator.sorted())
    result = compute_everywhere(evaluator)
    clock.lap("metrics")
    return replace(result, seconds=clock.seconds)


def collect(
    detector: DenseDetector,
    dataset: DetectionDataset,
    loader: Iterable[Batch],
    options: EvaluatorOptions | None = None,
    *,
    progress: bool = True,
    clock: _Clock | None = None,
    on_predictions: Callable[[Predictions, Batch], None] | None = None,
) -> CocoEvaluator:
    """Returns an evaluator with the detections in this rank's images: the first half of `evaluate`."""
    evaluator = CocoEvaluator(dataset.classes, ground_truth_from(dataset), options)
    device = next(detector.parameters()).device
    clock = clock or _Clock(device)
    was_training = detector.training
    detector.eval()
    try:
        clock.last = time.perf_counter()
        for batch in _with_progress(loader, progress):
            clock.lap("data")
            with torch.inference_mode():
                pred = detector(batch.images.to(device, non_blocking=True), batch.sizes)
                clock.lap("network")
                detections = to_original(detector.detect(pred, batch.sizes), batch.sizes, batch.original_sizes)
                if on_predictions is not None:
                    on_predictions(pred, batch)
            clock.lap("postprocess")
            evaluator.add(batch.image_ids, detections)
            clock.lap("metrics")
    finally:
        detector.train(was_training)
    return evaluator


@dataclass(frozen=True)
class SelfTest:
    """Results of the ground truth as predictions.

    pipeline: against the boxes that training uses; every AP that is defined must be 1. file: against the boxes
    of the file, which evaluation uses. differing: objects whose boxes differ between the two; missing: objects
    of the file that training leaves out.
    """

    pipeline: CocoResult
    file: CocoResult
    differing: int
    missing: int


def self_test(dataset: DetectionDataset, loader: Iterable[Batch], options: EvaluatorOptions | None = None) -> SelfTest:
    """Evaluates the ground truth, as the loader yields it, as predictions.

    A figure of `pipeline` below 1 means that files, transforms, label map, resize or evaluator are wrong, or that an
    image holds more objects of a class than `max_detections` admits. `file` has less where boxes are unusable.
    """
    trained = CocoEvaluator(dataset.classes, training_truth_from(dataset), options)
    measured = CocoEvaluator(dataset.classes, ground_truth_from(dataset), options)
    for batch in loader:
        perfect = [Detections(t.boxes, torch.ones(len(t.boxes)), t.labels) for t in batch.targets]
        trained.add(batch.image_ids, to_original(perfect, batch.sizes, batch.original_sizes))
    measured.merge([trained.shard()])
    missing, differing = count_differences(dataset.records)
    return SelfTest(compute_everywhere(trained), compute_everywhere(measured), differing, missing)


def compute_everywhere(evaluator: CocoEvaluator) -> CocoResult:
    """Returns `evaluator.compute()` over the images of all ranks on every rank, or raises its error there."""
    shards = comm.gather(evaluator.shard())

    def compute() -> CocoResult:
        merged = CocoEvaluator(evaluator.classes, evaluator.truth, evaluator.options)
        merged.merge(shards)
        return merged.compute()

    return comm.from_first_rank(compute)


class _Clock:
    """Adds the time since the last lap to a part; waits for a GPU to finish its work first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(("data", "network", "postprocess", "metrics"), 0.0)
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now


def _with_progress(loader: Iterable[Batch], progress: bool) -> Iterable[Batch]:
    """Shows a progress bar on a terminal, on rank 0."""
    from tqdm import tqdm

    if not progress or not comm.is_first():
        return loader
    return tqdm(loader, desc="evaluating", unit="batch", leave=False, disable=None, file=bar_stream())

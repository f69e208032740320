"""The one evaluation loop: `detkit eval` and the evaluation during training both run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from detkit import boxes as box_ops
from detkit.data.datasets.records import count_differences
from detkit.data.loader import SampleError
from detkit.evaluate.arrays import Shard
from detkit.evaluate.coco import CocoEvaluator, CocoResult, ground_truth_from, training_truth_from
from detkit.evaluate.options import EvaluatorOptions
from detkit.structures import Batch, Detections
from detkit.utils.console import bar_stream

if TYPE_CHECKING:
    from detkit.data.datasets.base import DetectionDataset


def evaluate(
    detector: nn.Module,
    dataset: DetectionDataset,
    loader: Iterable[Batch],
    options: EvaluatorOptions | None = None,
    *,
    progress: bool = True,
    on_found: Callable[[Shard], None] | None = None,
) -> CocoResult:
    """Run the detector over the loader and compare with the data set's ground truth.

    In a process group each rank's loader gives a part of the images; every rank gets the whole result,
    the same as one process would. The detector is in eval mode meanwhile and left as it was found.
    `CocoResult.seconds` splits this rank's time into data, network, postprocess and metrics. on_found: gets
    this rank's detections before they are measured, images ascending by id. Raises SampleError on every rank if one
    of them can't read its images.
    """
    clock = _Clock(next(detector.parameters()).device)
    evaluator, problem = None, None
    try:
        evaluator = collect(detector, dataset, loader, options, progress=progress, clock=clock)
    except SampleError as error:
        problem = error
    _raise_everywhere(problem)
    assert evaluator is not None
    if on_found is not None:
        on_found(evaluator.sorted())
    result = compute_everywhere(evaluator)
    clock.lap("metrics")
    return replace(result, seconds=clock.seconds)


def collect(
    detector: nn.Module,
    dataset: DetectionDataset,
    loader: Iterable[Batch],
    options: EvaluatorOptions | None = None,
    *,
    progress: bool = True,
    clock: _Clock | None = None,
) -> CocoEvaluator:
    """The first half of `evaluate`: an evaluator that holds what the detector finds in this rank's images."""
    evaluator = CocoEvaluator(dataset.classes, ground_truth_from(dataset), options)
    device = next(detector.parameters()).device
    clock = clock or _Clock(device)
    was_training = detector.training
    detector.eval()
    try:
        clock.start()
        for batch in _with_progress(loader, progress):
            clock.lap("data")
            with torch.inference_mode():
                pred = detector(batch.images.to(device, non_blocking=True), batch.sizes)
                clock.lap("network")
                found = detector.detect(pred, batch.sizes)  # type: ignore[operator]
                found = to_original(found, batch.sizes, batch.original_sizes)
            clock.lap("postprocess")
            evaluator.add(batch.image_ids, found)
            clock.lap("metrics")
    finally:
        detector.train(was_training)
    return evaluator


@dataclass(frozen=True)
class SelfTest:
    """The ground truth, as the loader hands it out, as predictions.

    pipeline: against the boxes that training uses; every AP that is defined must be 1. file: against the boxes
    of the file, which evaluation uses. differing: objects whose boxes differ between the two; missing: objects
    of the file that training leaves out.
    """

    pipeline: CocoResult
    file: CocoResult
    differing: int
    missing: int


def self_test(dataset: DetectionDataset, loader: Iterable[Batch], options: EvaluatorOptions | None = None) -> SelfTest:
    """The ground truth, as the loader hands it out, as predictions.

    Goes through files, transforms, label map, resize and its undoing, and the evaluator; so a figure of
    `pipeline` below 1 means that one of them is wrong, or that one image holds more objects of a class than
    `max_detections` admits. `file` has less where boxes reach over the edge or are unusable.
    """
    trained = CocoEvaluator(dataset.classes, training_truth_from(dataset), options)
    measured = CocoEvaluator(dataset.classes, ground_truth_from(dataset), options)
    for batch in loader:
        found = [Detections(t.boxes, torch.ones(len(t.boxes)), t.labels) for t in batch.targets]
        trained.add(batch.image_ids, to_original(found, batch.sizes, batch.original_sizes))
    measured.merge([trained.shard()])
    missing, differing = count_differences(dataset.records)
    return SelfTest(compute_everywhere(trained), compute_everywhere(measured), differing, missing)


def to_original(found: list[Detections], sizes: Tensor, original_sizes: Tensor) -> list[Detections]:
    """Detections in pixels of the network's input -> of the image on disk, on the CPU."""
    return [
        Detections(
            box_ops.rescale(d.boxes.float(), (int(h), int(w)), (int(to_h), int(to_w))).cpu(),
            d.scores.float().cpu(),
            d.labels.cpu(),
        )
        for d, (h, w), (to_h, to_w) in zip(found, sizes.tolist(), original_sizes.tolist(), strict=True)
    ]


def compute_everywhere(evaluator: CocoEvaluator) -> CocoResult:
    """`evaluator.compute()` over the images of all ranks; an error on rank 0 is raised on every rank."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return evaluator.compute()
    rank = dist.get_rank()
    shards: list[Any] | None = [None] * dist.get_world_size() if rank == 0 else None
    dist.gather_object(evaluator.shard(), shards, dst=0)
    outcome: list[Any] = [None]
    if shards is not None:
        whole = CocoEvaluator(evaluator.classes, evaluator.truth, evaluator.options)
        whole.merge(Shard(*s) for s in shards)
        try:
            outcome = [whole.compute()]
        except ValueError as error:
            outcome = [error]
    dist.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[0], ValueError):
        raise outcome[0]
    result: CocoResult = outcome[0]
    return result


def _raise_everywhere(problem: Exception | None) -> None:
    """Raises what one rank has met on all of them: the others would wait for its detections."""
    told: list[str | None] = [None if problem is None else str(problem)]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        told = told * dist.get_world_size()
        dist.all_gather_object(told, None if problem is None else str(problem))
    texts = [text for text in told if text is not None]
    if texts:
        raise SampleError(texts[0]) from problem


class _Clock:
    """Adds the time since the last lap to a part; on a GPU only after it has finished its work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(("data", "network", "postprocess", "metrics"), 0.0)
        self.start()

    def start(self) -> None:
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now


def _with_progress(loader: Iterable[Batch], progress: bool) -> Iterator[Batch]:
    """A bar on a terminal's rank 0, nothing elsewhere."""
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    if not progress or rank:
        yield from loader
        return
    from tqdm import tqdm

    yield from tqdm(loader, desc="evaluating", unit="batch", leave=False, disable=None, file=bar_stream())

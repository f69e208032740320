"""The two libraries that match detections with ground truth, behind one function.

faster-coco-eval is the default. Both get the same dictionaries, with labels as category ids and
positions as image ids, and both return the precision and recall arrays that pycocotools defines.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detkit.boxes import to_xywh
from detkit.evaluate.arrays import AREAS, GroundTruth, Shard
from detkit.evaluate.options import EvaluatorOptions
from detkit.structures import ClassMap
from detkit.utils.types import Floats, Tree

ENGINES = {
    "faster": ("faster-coco-eval", "faster_coco_eval", "COCOeval_faster"),
    "pycocotools": ("pycocotools", "pycocotools.cocoeval", "COCOeval"),
}
"""Engine -> package, module and class."""


def run_engine(
    truth: GroundTruth, detections: Shard, num_classes: int, options: EvaluatorOptions
) -> tuple[Floats, Floats]:
    """Returns precision and recall of detections (images ascending by id, all present).

    precision: (T, R, K, areas, limits): at 10 IoU thresholds and 101 recalls; recall: (T, K, areas,
    limits). -1 where a class has no ground truth in an area range.
    """
    evaluation = _load(options.engine)
    # Both libraries print; what is worth saying is in the result.
    with contextlib.redirect_stdout(io.StringIO()), _no_collection():
        run = evaluation(*coco_inputs(truth, detections, num_classes), iouType="bbox")
        run.params.maxDets = list(options.max_detections)
        run.params.areaRng = options.area_ranges
        run.params.areaRngLbl = list(AREAS)
        run.evaluate()
        run.accumulate()
    shape = (10, 101, num_classes, len(AREAS), len(options.max_detections))
    precision = np.asarray(run.eval["precision"], dtype=np.float64).reshape(shape)
    recall = np.asarray(run.eval["recall"], dtype=np.float64).reshape(shape[:1] + shape[2:])
    return precision, recall


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Switches the garbage collector off: half a million young dictionaries cost it half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _load(engine: str) -> Any:
    package, module, name = ENGINES[engine]
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ImportError(
            f"evaluator.engine={engine} needs the package {package} ({error}): pip install {package}"
        ) from error


def coco_inputs(truth: GroundTruth, detections: Shard, num_classes: int) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Ground truth and detections as the two libraries take them: COCO objects without what no engine calls."""
    image_ids, category_ids = list(range(len(detections.image_ids))), list(range(num_classes))

    def as_coco(annotations: list[Tree]) -> SimpleNamespace:
        return SimpleNamespace(
            getImgIds=lambda: image_ids,
            getCatIds=lambda: category_ids,
            getAnnIds=lambda **_: range(len(annotations)),
            loadAnns=lambda _: annotations,
        )

    return as_coco(_truth_dicts(truth, detections)), as_coco(_detection_dicts(detections))


def coco_results(detections: Shard, classes: ClassMap) -> list[Tree]:
    """Detections in the form of a COCO results file, with the image and category ids of the annotations."""
    return [
        {
            "image_id": int(detections.image_ids[d["image_id"]]),
            "category_id": classes.ids[d["category_id"]],
            "bbox": d["bbox"],
            "score": d["score"],
        }
        for d in _detection_dicts(detections)
    ]


def _truth_dicts(truth: GroundTruth, detections: Shard) -> list[Tree]:
    position = np.searchsorted(detections.image_ids, truth.image_ids)
    images = np.repeat(position, np.diff(truth.offsets))
    xywh = to_xywh(truth.boxes.astype(np.float64)) if truth.xywh is None else truth.xywh
    return [
        {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for i, image, label, box, area, crowd in _rows(images, truth.labels, xywh, truth.area, truth.crowd)
    ]


def _detection_dicts(detections: Shard) -> list[Tree]:
    images = np.repeat(np.arange(len(detections.image_ids)), detections.counts)
    boxes = detections.boxes.astype(np.float64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return [
        {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": area, "score": score, "iscrowd": 0}
        for i, image, label, box, area, score in _rows(
            images, detections.labels, to_xywh(boxes), areas, detections.scores
        )
    ]


def _rows(*columns: NDArray[Any]) -> Iterator[tuple[Any, ...]]:
    # An id of 0 would mean "unmatched" to both engines, so they start at 1.
    return zip(range(1, len(columns[0]) + 1), *(column.tolist() for column in columns), strict=True)

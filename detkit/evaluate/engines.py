"""The two libraries that match detections with ground truth, behind one function.

faster-coco-eval is the default. Both are given the same dictionaries, with labels as category ids and
positions as image ids, and both return the precision and recall arrays that pycocotools defines.
"""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from detkit.evaluate.arrays import GroundTruth, Shard
    from detkit.evaluate.options import EvaluatorOptions
    from detkit.structures import ClassMap


def run_engine(
    truth: GroundTruth, found: Shard, num_classes: int, options: EvaluatorOptions
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ground truth and detections (images ascending by id, all present) -> precision and recall.

    precision: (T, R, K, areas, limits): at 10 IoU thresholds and 101 recalls; recall: (T, K, areas,
    limits). -1 where a class has no ground truth in an area range.
    """
    from detkit.evaluate.arrays import AREAS, area_ranges

    eval_class = _load(options.engine)
    # Both libraries print; what is worth saying is in the result.
    with contextlib.redirect_stdout(io.StringIO()), _no_collection():
        size = len(found.image_ids), num_classes
        gt, dt = Annotations(truth_dicts(truth, found), *size), Annotations(found_dicts(found), *size)
        run = eval_class(gt, dt, iouType="bbox")
        run.params.maxDets = list(options.max_detections)
        run.params.areaRng = area_ranges(options)
        run.params.areaRngLbl = list(AREAS)
        run.evaluate()
        run.accumulate()
    shape = (10, 101, num_classes, len(AREAS), len(options.max_detections))
    precision = np.asarray(run.eval["precision"], dtype=np.float64).reshape(shape)
    recall = np.asarray(run.eval["recall"], dtype=np.float64).reshape(shape[:1] + shape[2:])
    return precision, recall


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Half a million young dictionaries make the collector scan them over and over: half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _load(engine: str) -> Any:
    try:
        if engine == "pycocotools":
            from pycocotools.cocoeval import COCOeval

            return COCOeval
        from faster_coco_eval import COCOeval_faster
    except ImportError as error:
        package = {"faster": "faster-coco-eval"}.get(engine, engine)
        raise ImportError(
            f"evaluator.engine={engine} needs the package {package} ({error}): pip install {package}"
        ) from error
    return COCOeval_faster


class Annotations:
    """What the engines ask of a COCO object: all images, classes and annotations, without its indices."""

    def __init__(self, annotations: list[dict[str, Any]], num_images: int, num_classes: int) -> None:
        self.annotations, self.num_images, self.num_classes = annotations, num_images, num_classes

    def getImgIds(self) -> list[int]:
        return list(range(self.num_images))

    def getCatIds(self) -> list[int]:
        return list(range(self.num_classes))

    def getAnnIds(self, **_: Any) -> range:
        return range(len(self.annotations))

    def loadAnns(self, ids: range) -> list[dict[str, Any]]:
        assert len(ids) == len(self.annotations)
        return self.annotations


def truth_dicts(truth: GroundTruth, found: Shard) -> list[dict[str, Any]]:
    position = np.searchsorted(found.image_ids, truth.image_ids)
    images = np.repeat(position, np.diff(truth.offsets))
    xywh = _xywh(truth.boxes) if truth.xywh is None else truth.xywh.tolist()
    # An id of 0 would mean "unmatched" to both engines, so they start at 1.
    columns = zip(
        images.tolist(), truth.labels.tolist(), xywh, truth.area.tolist(), truth.crowd.tolist(),
        strict=True,
    )  # fmt: skip
    return [
        {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for i, (image, label, box, area, crowd) in enumerate(columns, start=1)
    ]


def coco_results(found: Shard, classes: ClassMap) -> list[dict[str, Any]]:
    """Detections in the form of a COCO results file, with the image and category ids of the annotations."""
    return [
        {
            "image_id": int(found.image_ids[d["image_id"]]),
            "category_id": classes.ids[d["category_id"]],
            "bbox": d["bbox"],
            "score": d["score"],
        }
        for d in found_dicts(found)
    ]


def found_dicts(found: Shard) -> list[dict[str, Any]]:
    images = np.repeat(np.arange(len(found.image_ids)), found.counts)
    boxes = found.boxes.astype(np.float64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    columns = zip(
        images.tolist(),
        found.labels.tolist(),
        _xywh(boxes),
        area.tolist(),
        found.scores.tolist(),
        strict=True,
    )
    return [
        {
            "id": i,
            "image_id": image,
            "category_id": label,
            "bbox": box,
            "area": size,
            "score": score,
            "iscrowd": 0,
        }
        for i, (image, label, box, size, score) in enumerate(columns, start=1)
    ]


def _xywh(boxes: NDArray[Any]) -> list[list[float]]:
    wide = boxes.astype(np.float64)
    result: list[list[float]] = np.concatenate((wide[:, :2], wide[:, 2:] - wide[:, :2]), axis=1).tolist()
    return result

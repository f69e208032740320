"""AP on a file is what pycocotools finds on that file, however odd its boxes are."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detkit.data.datasets.coco import CocoDataset
from detkit.evaluate.coco import CocoEvaluator, CocoResult, ground_truth_from
from detkit.evaluate.options import EvaluatorOptions
from detkit.structures import Detections

SIDE = 100
CATEGORIES = [{"id": 5, "name": "cat"}, {"id": 2, "name": "dog"}]
METRICS = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip


def reference(path: Path, rows: list[dict[str, Any]]) -> list[float | None]:
    """pycocotools' twelve figures; None where it says -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        run = COCOeval(truth, truth.loadRes(rows), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [None if v == -1 else float(v) for v in run.stats]


def ours(path: Path, found: dict[int, Detections], engine: Any, **arguments: Any) -> CocoResult:
    data = CocoDataset(annotations=str(path), images=str(path.parent), **arguments)
    evaluator = CocoEvaluator(data.classes, ground_truth_from(data), EvaluatorOptions(engine=engine))
    for image_id in data.records.image_ids.tolist():
        evaluator.add([image_id], [found[image_id]])
    return evaluator.compute()


def write(folder: Path, annotations: list[dict[str, Any]], images: int = 2) -> Path:
    for i in range(1, images + 1):
        if not (folder / f"{i}.png").exists():
            Image.new("RGB", (SIDE, SIDE)).save(folder / f"{i}.png")
    listed = [{"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in range(1, images + 1)]
    path = folder / "truth.json"
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": CATEGORIES}))
    return path


def detections(rows: list[tuple[int, int, list[float]]]) -> tuple[dict[int, Detections], list[dict[str, Any]]]:
    """(image, label, xyxy) with falling scores: as detkit takes them, and as results for pycocotools."""
    ids = {0: 2, 1: 5}  # labels follow the category ids
    found, results = {}, []
    scores = np.linspace(0.99, 0.01, len(rows) + 1, dtype=np.float32)
    for image in (1, 2):
        mine = [(k, label, b) for k, (at, label, b) in enumerate(rows) if at == image]
        boxes = torch.tensor([b for _, _, b in mine], dtype=torch.float32).reshape(-1, 4)
        found[image] = Detections(
            boxes,
            torch.tensor([scores[k] for k, _, _ in mine]),
            torch.tensor([label for _, label, _ in mine], dtype=torch.int64),
        )
        for (k, label, _), (x1, y1, x2, y2) in zip(mine, boxes.double().tolist(), strict=True):
            results.append({"image_id": image, "category_id": ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1],
                            "score": float(scores[k])})  # fmt: skip
    return found, results


coordinate = st.one_of(
    st.sampled_from([-20.0, -0.5, 0.0, 10.0, 20.0, 50.0, 99.5, 100.0, 120.0]),
    st.floats(-50, 150, allow_nan=False, width=32),
)
side = st.one_of(
    st.sampled_from([-10.0, 0.0, 0.25, 3.0, 20.0, 40.0, 95.0, 5000.0]), st.floats(0, 120, allow_nan=False, width=32)
)
area = st.one_of(st.sampled_from([-5.0, 0.0, 1024.0, 9216.0, 1e11]), st.floats(0, 20000, allow_nan=False))
annotation = st.fixed_dictionaries(
    {
        "image_id": st.sampled_from([1, 2]),
        "category_id": st.sampled_from([5, 2]),
        "bbox": st.tuples(coordinate, coordinate, side, side).map(list),
        "area": area,
        "iscrowd": st.sampled_from([0, 0, 0, 1]),
    }
)
anywhere = st.tuples(
    st.sampled_from([1, 2]),
    st.sampled_from([0, 1]),
    st.tuples(coordinate, coordinate, side, side).map(lambda b: [b[0], b[1], b[0] + abs(b[2]), b[1] + abs(b[3])]),
)


@pytest.mark.parametrize("engine", ["faster", "pycocotools"])
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(annotations=st.lists(annotation, min_size=1, max_size=8), rows=st.lists(anywhere, max_size=6), data=st.data())
def test_any_file_gives_the_reference_figures(
    engine: str, tmp_path_factory: pytest.TempPathFactory, annotations: Any, rows: Any, data: Any
) -> None:
    """Half of the detections lie on objects, clipped to the image as a detector's are, so that there are matches."""
    folder = tmp_path_factory.getbasetemp() / "property"
    folder.mkdir(exist_ok=True)
    label = {2: 0, 5: 1}
    for a in annotations:
        if data.draw(st.booleans()):
            x, y, w, h = a["bbox"]
            box = [min(max(v, 0.0), SIDE) for v in (x, y, x + w, y + h)]
            rows = [*rows, (a["image_id"], label[a["category_id"]], box)]
    path = write(folder, [{"id": i, **a} for i, a in enumerate(annotations, start=1)])
    found, results = detections(rows)
    if not results:
        return
    expected = reference(path, results)
    result = ours(path, found, engine)
    for name, figure in zip(METRICS, expected, strict=True):
        assert result.metrics[name] == (None if figure is None else pytest.approx(figure, abs=1e-12)), name

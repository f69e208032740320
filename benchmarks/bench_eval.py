"""Seconds of a COCO evaluation: detkit's evaluator against pycocotools, on the same detections.

    python -m benchmarks.bench_eval                      # 5000 images; some two minutes
    python -m benchmarks.bench_eval --images 500 --json eval.json

Every image has 7 objects (1 % crowd) of 80 classes and 100 detections, some of them near an object. detkit:
from one `Detections` of tensors an image to the finished result. pycocotools: from a list of result
dictionaries in memory to `summarize`; making that list is not counted. All 12 figures must agree to 1e-9.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time

import numpy as np
import torch

from benchmarks.common import json_output, machine_line
from detkit.evaluate.arrays import GroundTruth
from detkit.evaluate.coco import CocoEvaluator, CocoResult
from detkit.evaluate.options import EvaluatorOptions
from detkit.structures import ClassMap, Detections
from detkit.utils.outputs import write_marked_json

CLASSES, OBJECTS, FOUND = 80, 7, 100
KEYS = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
KEYS += ["ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"]


def make_data(images: int) -> tuple[GroundTruth, list[Detections]]:
    """Objects of all sizes; a third of the detections are jittered objects, the rest is noise."""
    rng = np.random.default_rng(0)

    def random_boxes(n: int) -> np.ndarray:
        corner = rng.random((n, 2)) * 500
        return np.concatenate((corner, corner + np.exp(rng.uniform(2, 5.5, (n, 2)))), axis=1)

    boxes = random_boxes(images * OBJECTS).astype(np.float32)
    labels = rng.integers(0, CLASSES, images * OBJECTS)
    crowd = rng.random(images * OBJECTS) < 0.01
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    truth = GroundTruth(
        np.arange(1, images + 1), np.arange(images + 1) * OBJECTS, boxes, labels, crowd, sides.prod(axis=1)
    )
    found = []
    for i in range(images):
        near = rng.integers(0, OBJECTS, FOUND // 3) + i * OBJECTS
        jitter = rng.normal(0, 0.1, (len(near), 4)) * np.tile(sides[near], 2)
        noise = FOUND - len(near)
        box = np.concatenate((boxes[near] + jitter, random_boxes(noise))).astype(np.float32)
        label = np.concatenate((labels[near], rng.integers(0, CLASSES, noise)))
        box[:, 2:] = np.maximum(box[:, :2] + 1, box[:, 2:])
        score = np.concatenate((rng.random(len(near)), rng.random(noise) * 0.7)).astype(np.float32)
        order = np.argsort(-score, kind="stable")
        found.append(Detections(*(torch.from_numpy(a[order]) for a in (box, score, label))))
    return truth, found


def run_detkit(truth: GroundTruth, found: list[Detections]) -> tuple[float, CocoResult]:
    start = time.perf_counter()
    classes = ClassMap(tuple(f"class {k}" for k in range(CLASSES)), tuple(range(1, CLASSES + 1)))
    evaluator = CocoEvaluator(classes, truth, EvaluatorOptions())
    for first in range(0, len(found), 8):
        ids = truth.image_ids[first : first + 8].tolist()
        evaluator.add(ids, found[first : first + 8])
    result = evaluator.compute()
    return time.perf_counter() - start, result


def run_pycocotools(truth: GroundTruth, found: list[Detections]) -> tuple[dict[str, float], np.ndarray]:
    """Seconds of each phase and the 12 figures, by pycocotools' own documented calls."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(boxes: np.ndarray) -> list[list[float]]:
        wide = boxes.astype(np.float64)
        return np.concatenate((wide[:, :2], wide[:, 2:] - wide[:, :2]), axis=1).tolist()

    owner = np.repeat(truth.image_ids, np.diff(truth.offsets)).tolist()
    columns = zip(
        owner,
        truth.labels.tolist(),
        xywh(truth.boxes),
        truth.area.tolist(),
        truth.crowd.tolist(),
        strict=True,
    )
    results = [
        {"image_id": image, "category_id": label + 1, "bbox": box, "score": score}
        for image, d in zip(truth.image_ids.tolist(), found, strict=True)
        for box, score, label in zip(xywh(d.boxes.numpy()), d.scores.tolist(), d.labels.tolist(), strict=True)
    ]
    seconds = {}
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "images": [{"id": i} for i in truth.image_ids.tolist()],
            "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)],
            "annotations": [
                {"id": i, "image_id": o, "category_id": k + 1, "bbox": b, "area": a, "iscrowd": int(c)}
                for i, (o, k, b, a, c) in enumerate(columns, start=1)
            ],
        }
        gt.createIndex()
        start = time.perf_counter()
        run = COCOeval(gt, gt.loadRes(results), "bbox")
        seconds["load"] = time.perf_counter() - start
        for phase in ("evaluate", "accumulate", "summarize"):
            start = time.perf_counter()
            getattr(run, phase)()
            seconds[phase] = time.perf_counter() - start
    return seconds, run.stats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3, help="runs of detkit, of which the median counts")
    parser.add_argument("--json", type=json_output, help="write the figures here, too")
    args = parser.parse_args()
    print(machine_line())
    print(f"{args.images} images, {OBJECTS} objects and {FOUND} detections each, {CLASSES} classes", flush=True)
    truth, found = make_data(args.images)
    runs = [run_detkit(truth, found) for _ in range(args.rounds)]
    ours, result = float(np.median([seconds for seconds, _ in runs])), runs[-1][1]
    print(f"{'detkit':<12} {ours:8.2f} s   median of {', '.join(f'{s:.2f}' for s, _ in runs)}", flush=True)
    phases, stats = run_pycocotools(truth, found)
    theirs = sum(phases.values())
    print(f"{'pycocotools':<12} {theirs:8.2f} s   " + ", ".join(f"{k} {v:.2f}" for k, v in phases.items()))
    figures = np.array([-1.0 if result.metrics[k] is None else result.metrics[k] for k in KEYS])
    difference = float(np.abs(figures - stats).max())
    print(f"{'ratio':<12} {theirs / ours:8.2f}     AP {result.ap:.6f}, largest difference {difference:.1e}")
    if args.json:
        report = {
            "machine": machine_line(), "images": args.images, "objects": OBJECTS, "detections": FOUND,
            "classes": CLASSES, "detkit_s": ours, "detkit_all_s": [s for s, _ in runs],
            "pycocotools_s": theirs, "pycocotools_phases_s": phases, "ratio": theirs / ours,
            "largest_difference": difference, "metrics": result.metrics,
        }  # fmt: skip
        write_marked_json(args.json, report)
    if difference > 1e-9:
        raise SystemExit(f"the figures disagree: {dict(zip(KEYS, zip(figures, stats, strict=True), strict=True))}")


if __name__ == "__main__":
    main()

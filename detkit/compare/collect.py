"""What lies in the folder of a bench -> results.json (see docs/compare.md for its keys)."""

from __future__ import annotations

import base64
import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from detkit.compare.cell import CELL, DETECTIONS, DIAGNOSIS, FINISHED, MATCHES, START
from detkit.compare.diagnosis import merge
from detkit.compare.errors import CORRECT, judge
from detkit.compare.fairness import fairness
from detkit.compare.launchers import CONSOLE
from detkit.compare.matches import load_matches
from detkit.compare.plan import Cell, Plan, Variant, cell_folder, read_plan, saved
from detkit.compare.run import last_words
from detkit.compare.statistics import analyse
from detkit.evaluate.coco import GroundTruth, Shard, ground_truth_from
from detkit.registry import DATASETS
from detkit.train.run_folder import METRICS, RESULT, environment

CURVE_POINTS = 100
SAMPLES, SAMPLE_SIDE, SAMPLE_THRESHOLD = 6, 320, 0.3
METRIC_KEYS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def collect_results(folder: Path) -> dict[str, Any]:
    """Everything the reports show, of the bench in `folder`."""
    plan = read_plan(folder)
    dataset = DATASETS.build(plan.base.require("data.val.dataset"))
    truth = ground_truth_from(dataset)
    cells = {
        v.name: {s: read_cell(Cell(v.name, s, cell_folder(folder, v.name, s))) for s in plan.seeds}
        for v in plan.variants
    }
    shards = {
        name: {s: read_shard(cell_folder(folder, name, s)) for s, cell in runs.items() if cell["status"] == FINISHED}
        for name, runs in cells.items()
    }
    starts = {name: {s: cell["start"] for s, cell in runs.items() if cell["start"]} for name, runs in cells.items()}
    matched = {
        name: {s: load_matches(cell_folder(folder, name, s) / MATCHES) for s in runs} for name, runs in shards.items()
    }
    states = {name: {s: cell["status"] for s, cell in runs.items()} for name, runs in cells.items()}
    figures = analyse(matched, states, dataset.classes.names, baseline=plan.baseline)
    fair = fairness(plan, starts)
    first = next((start for runs in starts.values() for start in runs.values()), None)
    found = environment()
    return {
        "schema": 1,
        "title": plan.title,
        "created": date.today().isoformat(),
        "baseline": plan.baseline,
        "seeds": list(plan.seeds),
        "complete": all(
            cell["status"] in ("finished", "diverged") for runs in cells.values() for cell in runs.values()
        ),
        "withheld": withheld(plan, cells, fair),
        "machine": found["machine"],
        "versions": found["versions"],
        "code": found["git"],
        "data": {
            "hash": "/".join(first["data"]) if first else None,
            "train": first["train"] if first else None,
            "val": dataset.summary(),
            "classes": list(dataset.classes.names),
            "num_val_images": len(dataset),
        },
        "config": plan.base.to_yaml(),
        "command": saved(folder)["command"],
        "iterations": plan.base.require("train.iterations"),
        "fairness": fair,
        "variants": [variant_result(v, cells[v.name], figures[v.name], folder) for v in plan.variants],
        "samples": samples(plan, dataset, truth, shards),
        "sample_threshold": SAMPLE_THRESHOLD,
        "tuning": tuning(folder),
    }


def withheld(plan: Plan, cells: dict[str, dict[int, dict[str, Any]]], fair: dict[str, Any]) -> list[str]:
    """Why there is no verdict, or not on everything."""
    reasons = [
        f"{name}: seed {seed} {'is missing' if cell['status'] == 'missing' else 'has failed'}"
        for name, runs in cells.items()
        for seed, cell in runs.items()
        if cell["status"] in ("missing", "failed")
    ]
    reasons += [f"not fair: {check['name']} ({check['detail']})" for check in fair["checks"] if not check["ok"]]
    return reasons


def read_cell(cell: Cell) -> dict[str, Any]:
    """One run: its state, and what there is of it."""
    folder = cell.folder
    start = _json(folder / START)
    done = _json(folder / CELL)
    if done is not None:
        status, error = done["status"], done["error"]
    elif (folder / CONSOLE).exists():
        status, error = "failed", last_words(folder)
    else:
        status, error = "missing", None
    result = (_json(folder / RESULT) or {}) if status == FINISHED else {}
    curve, evals = read_metrics(folder / METRICS)
    return {
        "seed": cell.seed,
        "status": status,
        "error": error,
        "metrics": {key: result.get(key) for key in METRIC_KEYS} if result else {},
        "per_class": {name: values["ap"] for name, values in result.get("per_class", {}).items()},
        "curve": curve,
        "evals": evals,
        "cost": (done or {}).get("cost") or {},
        "step0": start["step0"] if start else None,
        "start": start,
    }


def read_metrics(path: Path) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """Loss curves, averaged to at most `CURVE_POINTS` points, and the evaluations, of a metrics.jsonl."""
    steps: list[dict[str, Any]] = []
    evals = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            break
        if "eval" in entry:
            evals.append({"step": entry["step"], **{key: entry["eval"][key] for key in ("ap", "ap50", "ap75")}})
        else:
            steps.append(entry)
    size = max(1, -(-len(steps) // CURVE_POINTS))
    groups = [steps[i : i + size] for i in range(0, len(steps), size)]
    curve: dict[str, list[Any]] = {"step": [group[-1]["step"] for group in groups]}
    for key in ("loss", "loss_classification", "loss_box"):
        curve[key] = [_mean([e[key] for e in group]) for group in groups]
    return curve, evals


def _mean(values: list[Any]) -> float | None:
    """Rounded; None if one of them is."""
    return None if None in values else round(sum(values) / len(values), 5)


def read_shard(folder: Path) -> Shard:
    """The detections of a finished run."""
    with np.load(folder / DETECTIONS) as arrays:
        return Shard(*(arrays[name] for name in Shard._fields))


def variant_result(variant: Variant, cells: dict[int, Any], figures: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A variant's part of results.json."""
    losses = variant.config.to_dict()["losses"]
    diagnoses = [
        _json(cell_folder(folder, variant.name, seed) / DIAGNOSIS)
        for seed, cell in cells.items()
        if cell["status"] == FINISHED
    ]
    return {
        "name": variant.name,
        "label": variant.name,
        "class_loss": losses["classification"]["type"],
        "box_loss": losses["box"]["type"],
        "normalizer": losses["normalizer"]["type"],
        "cells": [{key: value for key, value in cell.items() if key != "start"} for cell in cells.values()],
        "summary": figures["summary"],
        "versus_baseline": figures["versus_baseline"],
        "diagnosis": merge([d for d in diagnoses if d is not None]),
    }


def samples(plan: Plan, dataset: Any, truth: GroundTruth, shards: dict[str, dict[int, Shard]]) -> list[dict[str, Any]]:
    """A few validation images with what each variant finds in them, of the first seed that all have."""
    seed = next((s for s in plan.seeds if all(s in runs for runs in shards.values())), None)
    if seed is None:
        return []
    objects = np.diff(truth.offsets)
    chosen = [int(i) for i in np.flatnonzero(objects > 0)[:SAMPLES]]
    return [sample(i, dataset, truth, {name: runs[seed] for name, runs in shards.items()}) for i in chosen]


def sample(i: int, dataset: Any, truth: GroundTruth, shards: dict[str, Shard]) -> dict[str, Any]:
    """Image number i of the data set; boxes in pixels of the small picture."""
    image = dataset.checked_image(i)
    factor = min(1.0, SAMPLE_SIDE / max(image.size))
    small = image.convert("RGB").resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=80)
    names = dataset.classes.names
    own = slice(truth.offsets[i], truth.offsets[i + 1])
    alone = GroundTruth(
        truth.image_ids[i : i + 1], np.array([0, own.stop - own.start]), truth.boxes[own], truth.labels[own],
        truth.crowd[own], truth.area[own],
    )  # fmt: skip

    def placed(box: Any) -> list[float]:
        return [round(float(v) * factor, 1) for v in box]

    def detections(shard: Shard) -> list[dict[str, Any]]:
        at = int(np.searchsorted(shard.image_ids, truth.image_ids[i]))
        rows = slice(int(shard.counts[:at].sum()), int(shard.counts[: at + 1].sum()))
        order = np.argsort(-shard.scores[rows], kind="stable")
        boxes, scores, labels = shard.boxes[rows][order], shard.scores[rows][order], shard.labels[rows][order]
        one = Shard(truth.image_ids[i : i + 1], np.array([len(boxes)]), boxes, scores, labels)
        kinds = judge(alone, one, most=len(boxes) or 1).kind
        return [
            {"box": placed(b), "score": round(float(s), 3), "label": names[k], "correct": bool(kind == CORRECT)}
            for b, s, k, kind in zip(boxes, scores, labels, kinds, strict=True)
            if s >= SAMPLE_THRESHOLD
        ]

    return {
        "image_id": int(truth.image_ids[i]),
        "width": small.width,
        "height": small.height,
        "image": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(),
        "truth": [
            {"box": placed(b), "label": names[k]}
            for b, k, crowd in zip(alone.boxes, alone.labels, alone.crowd, strict=True)
            if not crowd
        ],
        "detections": {name: detections(shard) for name, shard in shards.items()},
    }


def tuning(folder: Path) -> Any:
    """What `--tune` found, if it was asked for."""
    return _json(folder / "tuning.json")


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else None

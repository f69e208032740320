"""What lies in the folder of a bench -> results.json (see docs/compare.md for its keys)."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detkit.compare.cell import CELL, DETECTIONS, DIAGNOSIS, FINISHED, MATCHES, START, UNREADABLE, damage
from detkit.compare.diagnosis import merge
from detkit.compare.errors import CORRECT, judge
from detkit.compare.fairness import check_configs, fairness
from detkit.compare.launchers import CONSOLE
from detkit.compare.matches import Matches, load_matches, match, save_matches
from detkit.compare.plan import Cell, Plan, Variant, cell_folder, read_plan, saved
from detkit.compare.run import last_words, state
from detkit.compare.statistics import analyse
from detkit.config import Config
from detkit.evaluate.coco import GroundTruth, Shard, ground_truth_from
from detkit.evaluate.options import EvaluatorOptions
from detkit.registry import DATASETS
from detkit.train.resume import differences
from detkit.train.run_folder import CONFIG, ENVIRONMENT, METRICS, RESULT, environment

TUNING = "tuning.json"
CURVE_POINTS = 100
SAMPLES, SAMPLE_SIDE, SAMPLE_THRESHOLD = 6, 320, 0.3
METRIC_KEYS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def collect_results(folders: Sequence[Path], *, allow: Sequence[str] = ()) -> dict[str, Any]:
    """Everything the reports show, of the bench in a folder or of several together.

    allow: what may differ between the folders: data, code, config. Else ValueError says what does.
    """
    plan, where, twice = merged([read_plan(folder) for folder in folders], folders, allow)
    dataset = DATASETS.build(plan.base.require("data.val.dataset"))
    truth = ground_truth_from(dataset)
    cells = {v.name: {s: read_cell(where[v.name, s]) for s in plan.seeds} for v in plan.variants}
    check_alike(cells, folders, allow)
    finished = {
        name: {s: where[name, s].folder for s, cell in runs.items() if cell["status"] == FINISHED}
        for name, runs in cells.items()
    }
    shards = {name: {s: read_shard(run) for s, run in runs.items()} for name, runs in finished.items()}
    options = plan.base.options("evaluator")
    matched = {
        name: {s: read_matches(run, truth, shards[name][s], len(dataset.classes), options) for s, run in runs.items()}
        for name, runs in finished.items()
    }
    starts = {name: {s: cell["start"] for s, cell in runs.items() if cell["start"]} for name, runs in cells.items()}
    states = {name: {s: cell["status"] for s, cell in runs.items()} for name, runs in cells.items()}
    code = {name: {s: cell["code"] for s, cell in runs.items() if cell["code"]} for name, runs in cells.items()}
    fair = fairness(plan, starts, code)
    fair["checks"].insert(1, check_configs(plan, configs_of(finished)))
    fair["flags"] += twice
    figures = analyse(matched, states, dataset.classes.names, baseline=plan.baseline)
    if unfair(fair):
        figures = {name: {**found, "versus_baseline": None} for name, found in figures.items()}
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
        "code": ", ".join(sorted({c for runs in code.values() for c in runs.values()})) or found["git"],
        "data": {
            "hash": "/".join(first["data"]) if first else None,
            "train": first["train"] if first else None,
            "val": dataset.summary(),
            "classes": list(dataset.classes.names),
            "num_val_images": len(dataset),
        },
        "config": plan.base.to_yaml(),
        "command": "; ".join(saved(folder)["command"] for folder in folders),
        "iterations": plan.base.require("train.iterations"),
        "fairness": fair,
        "variants": [variant_result(v, cells[v.name], figures[v.name], finished[v.name]) for v in plan.variants],
        "samples": samples(plan, dataset, truth, shards),
        "sample_threshold": SAMPLE_THRESHOLD,
        "tuning": next((found for folder in folders if (found := _json(folder / TUNING))), None),
    }


def merged(
    plans: Sequence[Plan], folders: Sequence[Path], allow: Sequence[str]
) -> tuple[Plan, dict[tuple[str, int], Cell], list[str]]:
    """One plan of several, where each of its runs lies, and a sentence on each run that came out differently in two.

    The first gives title and baseline. A variant that is in two must be the same in both, and gets the
    seeds of both (of a run in both, the first that is done); with `config` allowed, one that differs is NAME@FOLDER.
    """
    twice: list[str] = []
    variants: dict[str, Variant] = {}
    where: dict[tuple[str, int], Cell] = {}
    for plan, folder in zip(plans, folders, strict=True):
        if "config" not in allow:
            check_bases(plans[0], plan, folders[0], folder)
        for variant in plan.variants:
            name = variant.name
            if name in variants and variants[name].config.hash() != variant.config.hash():
                if "config" not in allow:
                    changed = describe_differences(variants[name].config, variant.config)
                    raise ValueError(f"{folder}: {name} has another config than before:\n{changed}\n{ALLOWED}")
                name = f"{name}@{folder.name}"
                while name in variants and variants[name].config.hash() != variant.config.hash():
                    name += "'"
            variants.setdefault(name, Variant(name, variant.config))
            for seed in plan.seeds:
                cell = Cell(name, seed, cell_folder(folder, variant.name, seed))
                there = where.setdefault((name, seed), cell)
                if state(there) is None and state(cell) is not None:
                    where[name, seed] = cell
                elif there is not cell and state(cell) and (one := _ap(there)) != (other := _ap(cell)):
                    twice.append(
                        f"{cell.name}: AP {one} in {there.folder}, which is shown, and {other} in {cell.folder}."
                    )
    seeds = tuple(sorted({seed for plan in plans for seed in plan.seeds}))
    for name in variants:
        for seed in seeds:
            where.setdefault((name, seed), Cell(name, seed, cell_folder(folders[0], name, seed)))
    first = plans[0]
    return Plan(first.title, tuple(variants.values()), first.baseline, seeds, first.base), where, twice


def _ap(cell: Cell) -> float | None:
    found = _json(cell.folder / RESULT)
    return None if found is None else round(found["ap"], 4)


ALLOWED = "--allow config shows them together all the same."


def check_bases(one: Plan, other: Plan, first: Path, folder: Path) -> None:
    """Raises ValueError unless both benches lay their variants over the same config."""
    if one.base.hash() != other.base.hash():
        changed = describe_differences(one.base, other.base)
        raise ValueError(f"{folder}: another config than that of {first}:\n{changed}\n{ALLOWED}")


def describe_differences(one: Config, other: Config) -> str:
    """A line for every key."""
    found = differences(one.to_dict(), other.to_dict())
    return "\n".join(f"  {key}: {a!r} and {b!r}" for key, (a, b) in sorted(found.items()))


def check_alike(cells: dict[str, dict[int, dict[str, Any]]], folders: Sequence[Path], allow: Sequence[str]) -> None:
    """Raises ValueError if several benches ran on different data or with different code."""
    if len(folders) == 1:
        return  # the fairness table shows it
    alike("data", runs_by(cells, lambda cell: "/".join(cell["start"]["data"]) if cell["start"] else None), allow)
    measured = runs_by(cells, lambda cell: cell["start"]["data"][1] if cell["start"] else None)
    if len(measured) > 1:
        lines = "\n".join(f"  {value}: {', '.join(runs)}" for value, runs in measured.items())
        raise ValueError(f"the runs have different validation images, and can't be compared image by image:\n{lines}")
    alike("code", runs_by(cells, lambda cell: cell["code"]), allow)


def runs_by(
    cells: dict[str, dict[int, dict[str, Any]]], get: Callable[[dict[str, Any]], str | None]
) -> dict[str, list[str]]:
    """Value -> the runs that have it."""
    found: dict[str, list[str]] = {}
    for name, runs in cells.items():
        for seed, cell in runs.items():
            if (value := get(cell)) is not None:
                found.setdefault(value, []).append(f"{name}, seed {seed}")
    return found


def alike(what: str, found: dict[str, list[str]], allow: Sequence[str]) -> None:
    """Raises ValueError if there is more than one value and that is not allowed."""
    if len(found) > 1 and what not in allow:
        lines = "\n".join(f"  {value}: {', '.join(runs)}" for value, runs in found.items())
        raise ValueError(f"the runs differ in their {what}:\n{lines}\n--allow {what} shows them together all the same.")


def withheld(plan: Plan, cells: dict[str, dict[int, dict[str, Any]]], fair: dict[str, Any]) -> list[str]:
    """Why there is no verdict, or not on everything."""
    reasons = [
        f"{name}: seed {seed} {'is missing' if cell['status'] == 'missing' else 'has failed'}"
        for name, runs in cells.items()
        for seed, cell in runs.items()
        if cell["status"] in ("missing", "failed")
    ]
    reasons += [
        f"{plan.baseline}, seed {seed}, diverged: there is nothing to compare with"
        for seed, cell in cells[plan.baseline].items()
        if cell["status"] == "diverged"
    ]
    return reasons + [f"not fair: {check['name']} ({check['detail']})" for check in unfair(fair)]


def unfair(fair: dict[str, Any]) -> list[dict[str, Any]]:
    """The failed checks that forbid a verdict. Another revision of the code does not: it may be that of a text."""
    return [check for check in fair["checks"] if not check["ok"] and check["name"] != "code"]


def read_cell(cell: Cell) -> dict[str, Any]:
    """One run: its state, and what there is of it."""
    folder = cell.folder
    damaged = damage(folder) if (folder / CELL).exists() else None
    start, done = (None, None) if damaged else (_json(folder / START), _json(folder / CELL))
    if damaged:
        status, error = "failed", f"{damaged}; the bench makes this run again"
    elif done is not None:
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
        "code": (_json(folder / ENVIRONMENT) or {}).get("git"),
    }


def configs_of(finished: dict[str, dict[int, Path]]) -> dict[tuple[str, int], dict[str, Any] | str]:
    """The config that each finished run says it was made with, or what is wrong with that file."""
    found: dict[tuple[str, int], dict[str, Any] | str] = {}
    for name, runs in finished.items():
        for seed, folder in runs.items():
            path = folder / CONFIG
            try:
                values = Config.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")), name=str(path)).to_dict()
                found[name, seed] = json.loads(json.dumps(values))
            except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
                found[name, seed] = str(error)
    return found


def read_metrics(path: Path) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """Loss curves, averaged to at most `CURVE_POINTS` points, and the evaluations, of a metrics.jsonl."""
    steps: list[dict[str, Any]] = []
    evals = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
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


def read_matches(
    folder: Path, truth: GroundTruth, found: Shard, num_classes: int, options: EvaluatorOptions
) -> Matches:
    """The matches of a finished run; made anew where they are damaged or another detkit kept them otherwise."""
    try:
        return load_matches(folder / MATCHES)
    except UNREADABLE:
        matches = match(truth, found, num_classes, options)
        save_matches(folder / MATCHES, matches)
        return matches


def variant_result(
    variant: Variant, cells: dict[int, Any], figures: dict[str, Any], finished: dict[int, Path]
) -> dict[str, Any]:
    """A variant's part of results.json."""
    losses = variant.config.to_dict()["losses"]
    diagnoses = [_json(folder / DIAGNOSIS) for folder in finished.values()]
    return {
        "name": variant.name,
        "label": variant.name,
        "class_loss": losses["classification"]["type"],
        "box_loss": losses["box"]["type"],
        "normalizer": losses["normalizer"]["type"],
        "cells": [
            {key: value for key, value in cell.items() if key not in ("start", "code")} for cell in cells.values()
        ],
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


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

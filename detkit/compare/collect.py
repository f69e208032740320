"""What lies in the folder of a bench -> results.json (see docs/compare.md for its keys)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detkit.compare.cell_folder import (
    CELL,
    DETECTIONS,
    DIAGNOSIS,
    FINISHED,
    MATCHES,
    START,
    UNREADABLE,
    damage,
    last_words,
    state,
)
from detkit.compare.checks import changed_truth, check_one_code, ended, flat, more_checks
from detkit.compare.diagnosis import merge
from detkit.compare.evidence import named, note_again, same_detections, truth_hash
from detkit.compare.fairness import check_configs, fairness
from detkit.compare.launchers import CONSOLE
from detkit.compare.matches import Matches, load_matches, match, save_matches
from detkit.compare.plan import CELLS, Cell, Plan, Variant, cell_folder, read_plan, saved
from detkit.compare.provenance import (
    MACHINE,
    VERSIONS,
    in_words,
    own_code,
    read_record,
    revisions,
    short,
)
from detkit.compare.samples import SAMPLE_THRESHOLD, samples
from detkit.compare.statistics import analyse
from detkit.config import Config
from detkit.data.build import usable_dataset
from detkit.evaluate.arrays import GroundTruth, Shard
from detkit.evaluate.coco import ground_truth_from
from detkit.evaluate.options import EvaluatorOptions
from detkit.runs.folder import CONFIG, METRICS, RESULT
from detkit.runs.metrics import read_metrics
from detkit.runs.settings import differing_settings
from detkit.structures import ClassMap

TUNING = "tuning.json"
CURVE_POINTS = 100
METRIC_KEYS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def collect_results(folders: Sequence[Path], *, allow: Sequence[str] = ()) -> dict[str, Any]:
    """Everything the reports show, of the bench in a folder or of several together.

    allow: what may differ between the folders: data, code, config. Else ValueError says what does.
    """
    plan, where, twice = merged([read_plan(folder) for folder in folders], folders, allow)
    cells = {v.name: {s: read_cell(where[v.name, s]) for s in plan.seeds} for v in plan.variants}
    dataset = usable_dataset(plan.base, "val", trained_classes(cells), "the bench's training data")
    truth = ground_truth_from(dataset)
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
    figures = analyse(matched, states, dataset.classes.names, baseline=plan.baseline)
    fair = fairness(plan, starts)
    fair["checks"].insert(1, check_configs(plan, configs_of(finished)))
    records = {run: read_record(where[run].folder) for run, cell in flat(cells).items() if ended(cell)}
    fair["checks"] += more_checks(plan, where, cells, figures, flat(shards), records, allow, folders)
    check_one_code(fair["checks"], folders, allow)
    fair["flags"] += [
        *twice,
        *left_out(where, folders),
        *same_detections(flat(shards)),
        *own_code(records),
        *changed_truth(starts, truth),
    ]
    if unfair(fair):
        figures = {name: {**found, "versus_baseline": None} for name, found in figures.items()}
    first = next((start for runs in starts.values() for start in runs.values()), None)
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
        "machine": in_words(("threads", *MACHINE), records),
        "versions": in_words(VERSIONS, records),
        "code": revisions(records),
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


def trained_classes(cells: dict[str, dict[int, dict[str, Any]]]) -> ClassMap | None:
    """The classes that the runs were trained on, by name; None in a bench of an older detkit, whose splits agree."""
    starts = [cell["start"] for runs in cells.values() for cell in runs.values() if cell["start"]]
    names = next((start["classes"] for start in starts if "classes" in start), None)
    return None if names is None else ClassMap(tuple(names), tuple(range(len(names))))


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


def left_out(where: Mapping[tuple[str, int], Cell], folders: Sequence[Path]) -> list[str]:
    """A sentence on runs that are there and not in the report, as seeds that nobody asked for: they could be choice."""
    shown = {cell.folder for cell in where.values()}
    found = []
    for path in sorted(path.parent for folder in folders for path in folder.glob(f"{CELLS}/*/seed_*/{CELL}")):
        variant, seed = path.parent.name, path.name.removeprefix("seed_")
        if path not in shown and seed.isdecimal() and (variant, int(seed)) not in where:
            found.append(named((variant, int(seed))))
    return [f"Done and not in this report: {short(found)}."] if found else []


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
    found = differing_settings(one.to_dict(), other.to_dict())
    return "\n".join(f"  {key}: {a!r} and {b!r}" for key, (a, b) in sorted(found.items()))


def check_alike(cells: dict[str, dict[int, dict[str, Any]]], folders: Sequence[Path], allow: Sequence[str]) -> None:
    """Raises ValueError if several benches ran on different data."""
    if len(folders) == 1:
        return  # the fairness table shows it
    alike("data", runs_by(cells, lambda cell: "/".join(cell["start"]["data"]) if cell["start"] else None), allow)
    measured = runs_by(cells, lambda cell: cell["start"]["data"][1] if cell["start"] else None)
    if len(measured) > 1:
        lines = "\n".join(f"  {value}: {', '.join(runs)}" for value, runs in measured.items())
        raise ValueError(f"the runs have different validation images, and can't be compared image by image:\n{lines}")


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
    """The failed checks that forbid a verdict; others show what may matter, or what was allowed."""
    return [check for check in fair["checks"] if check["ok"] is False and check.get("withholds", True)]


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
    curve, evals = read_curves(folder / METRICS)
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
        "end": done,
        "steps": result.get("step"),
    }


def configs_of(finished: dict[str, dict[int, Path]]) -> dict[tuple[str, int], dict[str, Any] | str]:
    """The config that each finished run says it was made with, or what is wrong with that file."""
    found: dict[tuple[str, int], dict[str, Any] | str] = {}
    completed: dict[str, dict[str, Any]] = {}  # runs of a variant differ in their seed alone
    for name, runs in finished.items():
        for seed, folder in runs.items():
            path = folder / CONFIG
            try:
                plain = yaml.safe_load(path.read_text(encoding="utf-8"))
                own = plain.pop("seed", 0)
                key = json.dumps(plain, sort_keys=True)
                if key not in completed:
                    completed[key] = Config.from_dict(plain, name=str(path)).to_dict()
                found[name, seed] = completed[key] | {"seed": own}
            except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
                found[name, seed] = str(error)
    return found


def read_curves(path: Path) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """Loss curves, averaged to at most `CURVE_POINTS` points, and the evaluations, of a metrics.jsonl."""
    try:
        steps, evaluations = read_metrics(path)
    except (FileNotFoundError, ValueError):
        steps, evaluations = [], []
    evals = [{key: entry[key] for key in ("step", "ap", "ap50", "ap75")} for entry in evaluations]
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
    """The matches of a finished run; made again where they are damaged or another detkit kept them otherwise."""
    try:
        return load_matches(folder / MATCHES)
    except UNREADABLE:
        noted = (_json(folder / START) or {}).get("truth")
        if noted is not None and noted != truth_hash(truth):
            raise ValueError(
                f"{folder / MATCHES} is damaged and can't be made again, as the validation annotations have changed "
                f"since: bring the old annotations back, or delete {folder} and run the bench again"
            ) from None
        matches = match(truth, found, num_classes, options)
        save_matches(folder / MATCHES, matches)
        note_again(folder, MATCHES)
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
            {key: value for key, value in cell.items() if key not in ("start", "end")} for cell in cells.values()
        ],
        "summary": figures["summary"],
        "versus_baseline": figures["versus_baseline"],
        "diagnosis": merge([d for d in diagnoses if d is not None]),
    }


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

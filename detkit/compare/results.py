"""Reads the folders of a bench into results.json (docs/compare.md describes its keys)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

from detkit.compare.cell_folder import (
    DIAGNOSIS,
    DIVERGED,
    ENDED,
    FAILED,
    MATCHES,
    MISSING,
    UNREADABLE,
    RunRecord,
    read_json,
    read_run,
)
from detkit.compare.checks import Check
from detkit.compare.diagnosis import average
from detkit.compare.fairness import changed_truth, fairness
from detkit.compare.hashes import truth_hash
from detkit.compare.integrity import identical_variants, update_hash
from detkit.compare.merge import check_same_code, check_same_data, merge_plans, unreported_runs
from detkit.compare.plan import TUNING, Plan, RunKey, Variant, read_plan, read_plan_json
from detkit.compare.provenance import MACHINE, VERSIONS, revisions, summarise_facts, variant_code
from detkit.compare.samples import SAMPLE_THRESHOLD, sample_images
from detkit.compare.statistics import analyse
from detkit.data.build import usable_dataset
from detkit.evaluate.arrays import GroundTruth
from detkit.evaluate.coco import ground_truth_from
from detkit.evaluate.matches import Matches, load_matches, match, save_matches
from detkit.evaluate.options import EvaluatorOptions
from detkit.structures import ClassMap
from detkit.utils.types import Tree

T = TypeVar("T")


def collect_results(folders: Sequence[Path], *, allow: Sequence[str] = ()) -> Tree:
    """Everything the reports show, of one bench or of several together.

    allow: what may differ between the folders: data, code, config. Raises ValueError for any other difference.
    """
    plan, cells, conflicts = merge_plans([read_plan(folder) for folder in folders], folders, allow)
    runs = {(v.name, seed): read_run(cells[v.name, seed]) for v in plan.variants for seed in plan.seeds}
    starts = [run.start for run in runs.values() if run.start]
    dataset = usable_dataset(plan.base, "val", trained_classes(starts), "the bench's training data")
    truth, options = ground_truth_from(dataset), plan.base.options("evaluator")
    if len(folders) > 1:  # in a single bench, the fairness table shows it
        check_same_data(runs, allow)
    finished = {key: run.detections for key, run in runs.items() if run.detections}
    matches = {key: read_matches(runs[key], truth, len(dataset.classes), options) for key in finished}
    figures = analyse(
        by_variant(plan, matches), by_variant(plan, {key: run.status for key, run in runs.items()}),
        dataset.classes.names, baseline=plan.baseline,
    )  # fmt: skip
    ap = {
        (name, seed): value
        for name, figure in figures.items()
        for seed, value in zip(plan.seeds, figure["summary"].get("ap", {}).get("values", []), strict=False)
    }
    provenance = {key: run.provenance for key, run in runs.items() if run.provenance}
    fair = fairness(plan, runs, ap, folders, allow)
    if len(folders) > 1:
        check_same_code(fair["checks"])
    fair["flags"] += [
        *conflicts,
        *unreported_runs(cells, folders),
        *identical_variants(finished),
        *variant_code(provenance),
        *changed_truth(runs, truth),
    ]
    failed = [check for check in fair["checks"] if check["ok"] is False and check.get("withholds", True)]
    if failed:
        figures = {name: {**figure, "versus_baseline": None} for name, figure in figures.items()}
    first = starts[0] if starts else None
    return {
        "schema": 1,
        "title": plan.title,
        "created": date.today().isoformat(),
        "baseline": plan.baseline,
        "seeds": list(plan.seeds),
        "complete": all(run.status in ENDED for run in runs.values()),
        "withheld": withheld(plan, runs, failed),
        "machine": summarise_facts(("threads", *MACHINE), provenance),
        "versions": summarise_facts(VERSIONS, provenance),
        "code": revisions(provenance),
        "data": {
            "hash": "/".join(first["data"]) if first else None,
            "train": first["train"] if first else None,
            "val": dataset.summary(),
            "classes": list(dataset.classes.names),
            "num_val_images": len(dataset),
        },
        "config": plan.base.to_yaml(),
        "command": "; ".join(read_plan_json(folder)["command"] for folder in folders),
        "iterations": plan.base.require("train.iterations"),
        "fairness": fair,
        "variants": [
            variant_result(v, [runs[v.name, seed] for seed in plan.seeds], figures[v.name]) for v in plan.variants
        ],
        "samples": sample_images(plan, dataset, truth, finished),
        "sample_threshold": SAMPLE_THRESHOLD,
        "tuning": next((tuning for folder in folders if (tuning := read_json(folder / TUNING))), None),
    }


def by_variant(plan: Plan, runs: Mapping[RunKey, T]) -> dict[str, dict[int, T]]:
    """(variant, seed) -> value as variant -> seed -> value."""
    return {v.name: {s: runs[v.name, s] for s in plan.seeds if (v.name, s) in runs} for v in plan.variants}


def trained_classes(starts: Iterable[Tree]) -> ClassMap | None:
    """The classes that the runs were trained on, by name; None in a bench of an older detkit, whose splits agree."""
    names = next((start["classes"] for start in starts if "classes" in start), None)
    return None if names is None else ClassMap(tuple(names), tuple(range(len(names))))


def read_matches(run: RunRecord, truth: GroundTruth, num_classes: int, options: EvaluatorOptions) -> Matches:
    """The matches of a finished run; recomputed where the file is damaged or of another format."""
    assert run.detections is not None
    path = run.folder / MATCHES
    try:
        return load_matches(path)
    except UNREADABLE:
        recorded = (run.start or {}).get("truth")
        if recorded is not None and recorded != truth_hash(truth):
            raise ValueError(
                f"{path} is damaged and cannot be recomputed, as the validation annotations have changed: restore the "
                f"old annotations, or delete {run.folder} and rerun the bench"
            ) from None
        matches = match(truth, run.detections, num_classes, options)
        save_matches(path, matches)
        update_hash(run.folder, MATCHES)
        return matches


def withheld(plan: Plan, runs: Mapping[RunKey, RunRecord], failed: Iterable[Check]) -> list[str]:
    reasons = [
        f"{name}: seed {seed} {'is missing' if run.status == MISSING else 'failed'}"
        for (name, seed), run in runs.items()
        if run.status in (MISSING, FAILED)
    ]
    reasons += [
        f"the baseline diverged ({run.cell.name}): there is nothing to compare with"
        for (name, _), run in runs.items()
        if name == plan.baseline and run.status == DIVERGED
    ]
    return reasons + [f"not fair: {check['name']} ({check['detail']})" for check in failed]


def variant_result(variant: Variant, runs: Sequence[RunRecord], figures: Tree) -> Tree:
    losses = variant.config.to_dict()["losses"]
    files = [run.folder / DIAGNOSIS for run in runs if run.detections]
    return {
        "name": variant.name,
        "label": variant.name,
        "class_loss": losses["classification"]["type"],
        "box_loss": losses["box"]["type"] if "box" in losses else None,
        "normalizer": losses["normalizer"]["type"],
        "cells": [run.to_json() for run in runs],
        "summary": figures["summary"],
        "versus_baseline": figures["versus_baseline"],
        "diagnosis": average([read_json(file) for file in files if file.is_file()]),  # a joint loss has none
    }

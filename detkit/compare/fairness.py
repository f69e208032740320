"""The fairness table: whether all variants were given the same, and whether the runs are what they claim to be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from detkit.compare.cell_folder import RunRecord, read_configs
from detkit.compare.checks import Check, check, grouped
from detkit.compare.hashes import truth_hash
from detkit.compare.integrity import check_distinct_runs, check_figures, check_files
from detkit.compare.plan import Plan, RunKey, differing_keys, run_name
from detkit.compare.provenance import check_code, check_facts, read_trials
from detkit.evaluate.arrays import GroundTruth
from detkit.runs.settings import differing_settings
from detkit.utils.console import shorten_list
from detkit.utils.types import Tree, Value

Runs: TypeAlias = Mapping[RunKey, RunRecord]

SHARED = {
    "order": ("order of images", "over the whole training"),
    "images": ("images and augmentation", "every pixel and box of the first batches"),
}
"""Key of start.json that is one hash for all variants of a seed -> name and extent of the check."""
SECTIONS = (
    "backbone", "neck", "anchors", "head", "assigner", "coder", "losses.classification", "losses.box",
    "losses.normalizer", "optimizer", "schedule", "train", "hooks", "data", "evaluator",
)  # fmt: skip
UNCHECKED_KEYS = ("seed", "data.train.dataset.", "data.val.dataset.")
"""Config keys that other checks cover: the seed, and the data, which may have moved and is known by its hashes."""
DATA_HASHES = {"training_images": "training images", "validation": "validation annotations and images"}
"""Hashes of the data in start.json and cell.json."""
SET_BY_LOSS = ("class_loss.", "box_loss.", "normalizer.")
MOST_PARAMETERS = 5


def fairness(
    plan: Plan, runs: Runs, ap: Mapping[RunKey, float | None], folders: Sequence[Path], allow: Sequence[str]
) -> Tree:
    """The "fairness" of results.json: checks, differing and equal settings, normalisers, flags.

    ap: AP of the detections of each finished run.
    """
    configs = {v.name: v.config.to_dict() for v in plan.variants}
    differing = differing_keys(configs)
    keys = [entry["key"] for entry in differing]
    normalizers = {name: values["losses"]["normalizer"]["type"] for name, values in configs.items()}
    ended = {key: run.provenance for key, run in runs.items() if run.provenance}
    finished = {key: run.detections for key, run in runs.items() if run.detections}
    devices = {key: str(made.starts[-1].facts.get("device")) for key, made in ended.items() if made.starts}
    with_code = [key for key, made in ended.items() if any(start.code for start in made.starts)]
    return {
        "checks": [
            check_seeds(runs),
            check_configs(plan, read_configs(runs)),
            check_weights(plan, runs),
            *check_shared(plan, runs),
            check_data(runs, allow),
            check_code(plan, ended, read_trials(folders, plan), allow),
            *check_facts(ended),
            check_length(plan, {key: runs[key].result.get("step") for key in finished}),
            check_files({key: runs[key].folder for key in ended}, with_code),
            check_figures({key: runs[key].folder for key in finished}, ap, devices),
            check_distinct_runs(finished),
        ],
        "differs": differing,
        "normalizers": normalizers,
        "equal": [section for section in SECTIONS if not differs(section, keys)],
        "flags": [*setup_flags(keys, normalizers), *identical_configs(plan)],
    }


def check_seeds(runs: Runs) -> Check:
    """Every run started from the seed of its folder."""
    wrong = [
        f"{run_name(key)}: ran with {run.start['seed']}"
        for key, run in runs.items()
        if run.start and run.start["seed"] != key[1]
    ]
    return check("seeds", wrong, "every run has the seed of its folder")


def check_configs(plan: Plan, configs: Mapping[RunKey, Tree | str]) -> Check:
    """Every run was made with the config of its variant. configs: of each run, or why it is unknown."""
    wrong = []
    expected = {variant.name: json.loads(json.dumps(variant.config.to_dict())) for variant in plan.variants}
    for run, config in configs.items():
        if isinstance(config, str):
            wrong.append(f"{run_name(run)}: {config}")
            continue
        keys = sorted(differing_settings(expected[run[0]], config))
        if changed := [key for key in keys if not key.startswith(UNCHECKED_KEYS)]:
            wrong.append(f"{run_name(run)}: {', '.join(changed)}")
    return check("config", wrong, "every run has the config of its variant")


def check_weights(plan: Plan, runs: Runs) -> Check:
    """Every parameter that variants share by name and shape began equal, apart from those that the losses set."""
    wrong, others, count = [], set(), 0
    for seed, reference, starts in by_seed(plan, runs):
        for variant, start in starts.items():
            for parameter, (shape, hashed) in start["weights"].items():
                expected_shape, expected = starts[reference]["weights"].get(parameter, (None, None))
                if shape == expected_shape and hashed == expected:
                    count += 1
                elif shape != expected_shape or set_by_loss(parameter):
                    others.add(parameter)
                else:
                    wrong.append(f"{run_name((variant, seed))}: {parameter}")
    differing = [shorten_list(wrong, MOST_PARAMETERS)] if wrong else []
    fine = f"{count} equal hashes; set by the losses: {', '.join(sorted(others)) or 'none'}"
    return check("initial weights", differing, fine)


def set_by_loss(parameter: str) -> bool:
    """Whether a parameter is the bias of the class outputs, which a class loss sets (its prior), or part of a loss."""
    return parameter.startswith(SET_BY_LOSS) or ("class_out" in parameter and parameter.endswith("bias"))


def check_shared(plan: Plan, runs: Runs) -> Iterator[Check]:
    """Order of images and augmentation have one hash for all variants of a seed."""
    for key, (name, extent) in SHARED.items():
        wrong = [
            f"{run_name((variant, seed))}: {start.get(key)} where {reference} has {starts[reference].get(key)}"
            for seed, reference, starts in by_seed(plan, runs)
            for variant, start in starts.items()
            if start.get(key) != starts[reference].get(key)
        ]
        yield check(name, wrong, f"equal: {extent}")


def by_seed(plan: Plan, runs: Runs) -> Iterator[tuple[int, str, dict[str, Tree]]]:
    """Seed, variant that the others are compared with (the baseline if it has run), variant -> start.json."""
    for seed in plan.seeds:
        starts = {v.name: start for v in plan.variants if (start := runs[v.name, seed].start)}
        if starts:
            yield seed, plan.baseline if plan.baseline in starts else next(iter(starts)), starts


def check_data(runs: Runs, allow: Sequence[str] = ()) -> Check:
    """Every run had the same annotations and images of both splits, from its start to its end."""
    starts = {key: run.start for key, run in runs.items() if run.start}
    ends = {key: run.end for key, run in runs.items() if run.end}
    wrong: list[str] = []
    for i, split in enumerate(("training", "validation")):
        wrong += outliers(f"{split} annotations", {run: start["data"][i] for run, start in starts.items()})
    for contents, when in ((starts, "start"), (ends, "end")):
        for key, what in DATA_HASHES.items():
            wrong += outliers(f"{what} at the {when}", {run: content.get(key) for run, content in contents.items()})
    for run, end in ends.items():
        for key, what in DATA_HASHES.items():
            before, after = starts.get(run, {}).get(key), end.get(key)
            if before and after and before != after:
                change = f"{before} at the start, {after} at the end"
                wrong.append(f"{run_name(run)}: {what} changed during the run: {change}")
    return check("data", wrong, "equal: annotations and images of both splits") | {"withholds": "data" not in allow}


def outliers(what: str, values: Mapping[RunKey, Value]) -> list[str]:
    """A line for every run that does not have the most frequent value; None is unknown."""
    runs_of = grouped((value, run) for run, value in values.items() if value is not None)
    if not runs_of:
        return []
    most, (first, *_) = max(runs_of.items(), key=lambda item: len(item[1]))
    return [
        f"{run_name(run)}: {what}: {value} where {run_name(first)} has {most}"
        for run, value in values.items()
        if value not in (None, most)
    ]


def check_length(plan: Plan, steps: Mapping[RunKey, int | None]) -> Check:
    """Every run trained as long as its config says. steps: None where they are unknown."""
    expected = {variant.name: int(variant.config.require("train.iterations")) for variant in plan.variants}
    wrong = [
        f"{run_name(run)}: {done} of {expected[run[0]]} steps"
        for run, done in steps.items()
        if done not in (None, expected[run[0]])
    ]
    return check("length", wrong, "every run trained to its last step") | {"withholds": False}


def changed_truth(runs: Runs, truth: GroundTruth) -> list[str]:
    """A sentence if the validation annotations are no longer those that the runs were measured against."""
    recorded = {run.start["truth"] for run in runs.values() if run.start and run.start.get("truth")}
    if recorded <= {truth_hash(truth)}:
        return []
    return ["The validation annotations have changed since the runs: figures use the old, sample images the new ones."]


def identical_configs(plan: Plan) -> Iterator[str]:
    """A sentence for every config with several names."""
    for same in grouped((variant.config.hash(), variant.name) for variant in plan.variants).values():
        if len(same) > 1:
            yield f"{' and '.join(same)} have the same config: a difference between them is chance."


def differs(section: str, keys: Sequence[str]) -> bool:
    """Whether one of the differing keys is the section or in it."""
    return any(key == section or key.startswith(f"{section}.") for key in keys)


def setup_flags(keys: Sequence[str], normalizers: Mapping[str, str]) -> Iterator[str]:
    """Sentences on settings besides the loss that differ. keys: the differing ones."""
    if len(set(normalizers.values())) > 1:
        types = ", ".join(f"{name}: {kind}" for name, kind in normalizers.items())
        yield f"The normalisers differ ({types}): this scales the losses, as another learning rate does."
    elif differs("losses.normalizer", keys):
        yield "The settings of the normaliser differ."
    if differs("imports", keys):
        yield "The imports differ: parts of the same name may be different code."
    for section in (
        "assigner",
        "head",
        "schedule",
        "data",
        "train",
        "hooks",
        "optimizer",
        "backbone",
        "neck",
        "anchors",
    ):
        if differs(section, keys):
            yield f"Settings of {section} differ: the comparison is not of the losses alone."

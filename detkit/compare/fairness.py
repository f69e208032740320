"""Were the variants of a bench given the same? Compares what each run noted at its start (start.json)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detkit.compare.evidence import check, named
from detkit.compare.plan import Plan
from detkit.runs.settings import differing_settings, flatten

Starts = Mapping[str, Mapping[int, dict[str, Any]]]
"""Variant -> seed -> start.json."""

SHARED = {
    "order": ("order of images", "over the whole training"),
    "images": ("images and augmentation", "every pixel and box of the first batches"),
}
SECTIONS = (
    "backbone", "neck", "anchors", "head", "assigner", "coder", "losses.classification", "losses.box",
    "losses.normalizer", "optimizer", "schedule", "train", "data", "evaluator",
)  # fmt: skip


def fairness(plan: Plan, starts: Starts) -> dict[str, Any]:
    """The "fairness" of results.json: checks, what differs, what is equal, normalisers, flags."""
    configs = {v.name: v.config.to_dict() for v in plan.variants}
    differing = differs(configs)
    keys = [entry["key"] for entry in differing]
    equal = [s for s in SECTIONS if not any(key == s or key.startswith(f"{s}.") for key in keys)]
    normalizers = {name: values["losses"]["normalizer"]["type"] for name, values in configs.items()}
    return {
        "checks": [check_seeds(plan, starts), *check_weights(plan, starts), *check_shared(plan, starts)],
        "differs": differing,
        "normalizers": normalizers,
        "equal": equal,
        "flags": [*flags(keys, normalizers), *same_configs(plan)],
    }


def check_seeds(plan: Plan, starts: Starts) -> dict[str, Any]:
    """Every run started from the seed that it stands under."""
    wrong = [
        f"{name}, seed {seed}: ran with {start['seed']}"
        for name, runs in starts.items()
        for seed, start in runs.items()
        if start["seed"] != seed
    ]
    return {"name": "seeds", "ok": not wrong, "detail": "; ".join(wrong) or "every run has the seed it stands under"}


ELSEWHERE = ("seed", "data.train.dataset.", "data.val.dataset.")
"""Keys that the config check leaves to others: the seed, and the data, which may have moved and are known by hash."""


def check_configs(plan: Plan, ran: Mapping[tuple[str, int], Mapping[str, Any] | str]) -> dict[str, Any]:
    """Every run was made with the config of its variant. ran: (variant, seed) -> its config, or why there is none."""
    wrong = []
    for variant in plan.variants:
        asked = json.loads(json.dumps(variant.config.to_dict()))
        for (name, seed), config in ran.items():
            if name != variant.name:
                continue
            if isinstance(config, str):
                wrong.append(f"{name}, seed {seed}: {config}")
            elif keys := [key for key in sorted(differing_settings(asked, config)) if not key.startswith(ELSEWHERE)]:
                wrong.append(f"{name}, seed {seed}: {', '.join(keys)}")
    return {"name": "config", "ok": not wrong, "detail": "; ".join(wrong) or "every run has that of its variant"}


def check_data(
    starts: Mapping[tuple[str, int], Mapping[str, Any]], ends: Mapping[tuple[str, int], Mapping[str, Any]],
    allow: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Every run has the same annotations and images of both splits, from its start to its end.

    starts: start.json by (variant, seed); ends: cell.json.
    """
    wrong: list[str] = []
    for what, values in (
        ("training annotations", {run: start["data"][0] for run, start in starts.items()}),
        ("validation annotations", {run: start["data"][1] for run, start in starts.items()}),
        *((f"{what} at the start", {run: s.get(key) for run, s in starts.items()}) for key, what in NOTED.items()),
        *((f"{what} at the end", {run: end.get(key) for run, end in ends.items()}) for key, what in NOTED.items()),
    ):
        wrong += unlike(what, {run: value for run, value in values.items() if value is not None})
    for run, end in ends.items():
        for key, what in NOTED.items():
            before, after = starts.get(run, {}).get(key), end.get(key)
            if before and after and before != after:
                wrong.append(f"{named(run)}: {what} changed while it ran: {before} at its start, {after} at its end")
    fine = "equal: annotations and images of both splits"
    return check("data", wrong, fine) | {"withholds": "data" not in allow}


NOTED = {"training_images": "training images", "validation": "validation annotations and images"}
"""What start.json and cell.json note of the data, by key."""


def unlike(what: str, values: Mapping[tuple[str, int], Any]) -> list[str]:
    """A line for every run that does not have the value of most."""
    if len(set(values.values())) < 2:
        return []
    most = Counter(values.values()).most_common(1)[0][0]
    first = next(run for run, value in values.items() if value == most)
    return [f"{named(run)}: {what}: {v} where {named(first)} has {most}" for run, v in values.items() if v != most]


def check_length(plan: Plan, steps: Mapping[tuple[str, int], Any]) -> dict[str, Any]:
    """Every run trained as long as its config says. steps: by (variant, seed), None where a run doesn't say."""
    asked = {variant.name: int(variant.config.require("train.iterations")) for variant in plan.variants}
    wrong = [
        f"{named(run)}: {done} of {asked[run[0]]} steps"
        for run, done in steps.items()
        if done not in (None, asked[run[0]])
    ]
    return check("length", wrong, "every run trained to its last step", withholds=False)


def check_weights(plan: Plan, starts: Starts) -> Iterator[dict[str, Any]]:
    """Every parameter that variants share by name and shape began equal; the others are named."""
    wrong, others, count = [], set(), 0
    for seed, (first, runs) in _by_seed(plan, starts).items():
        reference = runs[first]["weights"]
        for name, start in runs.items():
            for parameter, (shape, hashed) in start["weights"].items():
                if parameter not in reference or reference[parameter][0] != shape:
                    others.add(parameter)
                elif reference[parameter][1] != hashed and not _owned_by_loss(parameter):
                    wrong.append(f"{name}, seed {seed}: {parameter}")
                elif reference[parameter][1] != hashed:
                    others.add(parameter)
                else:
                    count += 1
    detail = "; ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
    if not wrong:
        detail = f"{count} hashes equal; the loss itself sets {', '.join(sorted(others)) or 'none'}"
    yield {"name": "initial weights", "ok": not wrong, "detail": detail}


def _owned_by_loss(parameter: str) -> bool:
    """The bias of the class outputs, which a class loss sets (its prior), and what lies in the losses themselves."""
    return parameter.startswith(("class_loss.", "box_loss.", "normalizer.")) or (
        "class_out" in parameter and parameter.endswith("bias")
    )


def check_shared(plan: Plan, starts: Starts) -> Iterator[dict[str, Any]]:
    """Data, order and augmentation: one hash for all variants of a seed."""
    for key, (name, what) in SHARED.items():
        wrong = [
            f"{variant}, seed {seed}: {start.get(key)} where {first} has {runs[first].get(key)}"
            for seed, (first, runs) in _by_seed(plan, starts).items()
            for variant, start in runs.items()
            if start.get(key) != runs[first].get(key)
        ]
        yield {"name": name, "ok": not wrong, "detail": "; ".join(wrong) or f"equal: {what}"}


def _by_seed(plan: Plan, starts: Starts) -> dict[int, tuple[str, dict[str, dict[str, Any]]]]:
    """Seed -> (the variant that the others are held against, variant -> start); the baseline if it has run."""
    found = {}
    for seed in plan.seeds:
        runs = {v.name: starts[v.name][seed] for v in plan.variants if seed in starts.get(v.name, {})}
        if runs:
            found[seed] = (plan.baseline if plan.baseline in runs else next(iter(runs)), runs)
    return found


def differs(configs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keys that do not have one value in all variants; a variant without the key is left out of `values`."""
    flat = {name: flatten(values) for name, values in configs.items()}
    keys = sorted({key for values in flat.values() for key in values})
    found = []
    for key in keys:
        values = {name: flat[name][key] for name in flat if key in flat[name]}
        if len(values) < len(flat) or len({json.dumps(v, sort_keys=True) for v in values.values()}) > 1:
            found.append({"key": key, "values": values})
    return found


def same_configs(plan: Plan) -> Iterator[str]:
    """A sentence for every config that stands under several names."""
    names: dict[str, list[str]] = {}
    for variant in plan.variants:
        names.setdefault(variant.config.hash(), []).append(variant.name)
    for same in names.values():
        if len(same) > 1:
            yield f"{' and '.join(same)} are one and the same config: a difference between them is chance."


def flags(keys: list[str], normalizers: Mapping[str, str]) -> Iterator[str]:
    """Sentences on differences that a reader has to know of."""
    if len(set(normalizers.values())) > 1:
        listed = ", ".join(f"{name}: {kind}" for name, kind in normalizers.items())
        yield f"The normalisers differ ({listed}): losses are then of another size, and so is the learning rate."
    elif any(key.startswith("losses.normalizer") for key in keys):
        yield "The settings of the normaliser differ."
    if any(key == "imports" or key.startswith("imports.") for key in keys):
        yield "The imports differ: parts of one name may be different code."
    for section, what in (("assigner", "matchers"), ("head", "heads"), ("schedule", "schedules")):
        if any(key == section or key.startswith(f"{section}.") for key in keys):
            yield f"The {what} differ: not the loss alone is compared."
    for section in ("data", "train", "optimizer", "backbone", "neck", "anchors"):
        if any(key.startswith(f"{section}.") for key in keys):
            yield f"Settings of {section} differ: not the loss alone is compared."

"""Were the variants of a bench given the same? Compares what each run noted at its start (start.json)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from detkit.compare.plan import Plan
from detkit.train.resume import differences, flatten

Starts = Mapping[str, Mapping[int, dict[str, Any]]]
"""Variant -> seed -> start.json."""

SHARED = {
    "order": ("order of images", "over the whole training"),
    "images": ("images and augmentation", "every pixel and box of the first batches"),
    "data": ("data", "annotations of both splits"),
}
SECTIONS = (
    "backbone", "neck", "anchors", "head", "assigner", "coder", "losses.classification", "losses.box",
    "losses.normalizer", "optimizer", "schedule", "train", "data", "evaluator",
)  # fmt: skip


def fairness(plan: Plan, starts: Starts, code: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    """The "fairness" of results.json: checks, what differs, what is equal, normalisers, flags.

    code: variant -> seed -> source revision.
    """
    configs = {v.name: v.config.to_dict() for v in plan.variants}
    differing = differs(configs)
    keys = [entry["key"] for entry in differing]
    equal = [s for s in SECTIONS if not any(key == s or key.startswith(f"{s}.") for key in keys)]
    normalizers = {name: values["losses"]["normalizer"]["type"] for name, values in configs.items()}
    revisions = check_code(code)
    said = [] if revisions["ok"] else [f"Not all runs were made by one revision of the code: {revisions['detail']}."]
    return {
        "checks": [check_seeds(plan, starts), *check_weights(plan, starts), *check_shared(plan, starts), revisions],
        "differs": differing,
        "normalizers": normalizers,
        "equal": equal,
        "flags": [*flags(keys, normalizers), *same_configs(plan), *said],
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
            elif keys := [key for key in sorted(differences(asked, config)) if not key.startswith(ELSEWHERE)]:
                wrong.append(f"{name}, seed {seed}: {', '.join(keys)}")
    return {"name": "config", "ok": not wrong, "detail": "; ".join(wrong) or "every run has that of its variant"}


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
            f"{variant}, seed {seed}: {start[key]} where {first} has {runs[first][key]}"
            for seed, (first, runs) in _by_seed(plan, starts).items()
            for variant, start in runs.items()
            if start[key] != runs[first][key]
        ]
        yield {"name": name, "ok": not wrong, "detail": "; ".join(wrong) or f"equal: {what}"}


def check_code(code: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    """One revision of detkit made all runs. What was changed without a commit can't be told apart."""
    found: dict[str, list[str]] = {}
    for name, runs in code.items():
        for seed, revision in runs.items():
            found.setdefault(revision, []).append(f"{name}, seed {seed}")
    if len(found) > 1:
        most = max(found, key=lambda revision: len(found[revision]))
        others = "; ".join(f"{rev}: {', '.join(runs)}" for rev, runs in found.items() if rev != most)
        return {"name": "code", "ok": False, "detail": f"{others}; all else {most}"}
    revision = next(iter(found), "no revision known")
    changed = " (with changes that were not committed)" if revision.endswith("+changes") else ""
    return {"name": "code", "ok": True, "detail": f"{revision}{changed}"}


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
    for section, what in (("assigner", "matchers"), ("head", "heads"), ("schedule", "schedules")):
        if any(key == section or key.startswith(f"{section}.") for key in keys):
            yield f"The {what} differ: not the loss alone is compared."
    for section in ("data", "train", "optimizer", "backbone", "neck", "anchors"):
        if any(key.startswith(f"{section}.") for key in keys):
            yield f"Settings of {section} differ: not the loss alone is compared."

"""A small declared sweep for each variant, so that no loss is beaten by its scale.

Every variant chooses for itself among the same factors on its loss weight, on the learning rate, or on both, by AP
after a quarter of the training on four fifths of the training data, measured on the last fifth. The validation
images of the bench are not looked at. One seed: the first of the bench.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detkit.compare.cell_folder import CELL
from detkit.compare.fairness import differs
from detkit.compare.launchers import CONSOLE, Job, python
from detkit.compare.plan import Plan, Variant
from detkit.config import Config
from detkit.runs.folder import RESULT, remove, run_files, write_json, write_text
from detkit.utils.outputs import foreign_files_error

log = logging.getLogger("detkit")

FACTORS = (0.5, 1.0, 2.0)
SHARE = 4
"""A trial is this many times shorter than a run."""
TUNING = "tuning.json"
FOLDER = "tuning"


def tuned(
    plan: Plan, folder: Path, what: Sequence[str], *, jobs: int, threads: int, launcher: Callable[..., None]
) -> Plan:
    """The plan with every variant's own choice; the plan itself where nothing is to be tuned.

    Trials that are done are not run again. Raises ValueError if a variant has no trial with a result.
    """
    if not what:
        return plan
    trials = {variant.name: list(candidates(plan, variant, what)) for variant in plan.variants}
    todo = []
    for variant in plan.variants:
        file = folder / FOLDER / f"{variant.name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, variant.config.to_yaml())
        for name, overrides in trials[variant.name]:
            run = folder / FOLDER / variant.name / name
            forget_another(run, plan, variant, overrides)
            if not (run / RESULT).exists() and not (run / CELL).exists():  # the latter: it diverged
                todo.append(job(file, run, plan, variant, overrides))
    count = sum(map(len, trials.values()))
    log.info("tuning %s: %d trials, %d of them done", ", ".join(what), count, count - len(todo))
    launcher(todo, at_once=jobs, threads=threads, finished=_said, started=lambda job: log.info("%s: started", job.name))
    found = {variant: [result(folder, variant, *trial) for trial in each] for variant, each in trials.items()}
    chosen = {variant: best(variant, each, folder) for variant, each in found.items()}
    write_json(folder / TUNING, {"what": list(what), "factors": list(FACTORS), "trials": found, "chosen": chosen})
    return replace(plan, variants=tuple(with_choice(v, chosen[v.name]["overrides"]) for v in plan.variants))


def forget_another(run: Path, plan: Plan, variant: Variant, overrides: list[str]) -> None:
    """Removes a trial of another config or seed, of a bench that was stopped while tuning and then changed."""
    asked = {"config": variant.config.to_dict(), "seed": plan.seeds[0], "overrides": overrides, "share": SHARE}
    path, asked = run.with_name(f"{run.name}.json"), json.loads(json.dumps(asked))
    if run.exists() and (not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != asked):
        log.info("%s, %s: made anew, its config or seed was another", variant.name, run.name)
        ours, foreign = run_files(run)
        if foreign:
            raise foreign_files_error("--output", foreign)
        remove(run, [*ours, *(run / name for name in (CELL, CONSOLE))])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asked)


def candidates(plan: Plan, variant: Variant, what: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Name and overrides of every trial of a variant."""
    weight = f"losses.{compared_loss(plan)}.weight"
    keys = {"weight": weight, "lr": "optimizer.lr"}
    found = []
    for factors in itertools.product(FACTORS, repeat=len(what)):
        named = list(zip(what, factors, strict=True))
        overrides = [f"{keys[word]}={float(variant.config.require(keys[word])) * factor:g}" for word, factor in named]
        found.append(("-".join(f"{word}_x{factor:g}" for word, factor in named), overrides))
    return found


def compared_loss(plan: Plan) -> str:
    """`box` if the variants differ in the box loss and not in the class loss, else `classification`."""
    keys = [entry["key"] for entry in differs({v.name: v.config.to_dict() for v in plan.variants})]
    both = {name: any(key.startswith(f"losses.{name}.") for key in keys) for name in ("classification", "box")}
    return "box" if both["box"] and not both["classification"] else "classification"


def job(file: Path, run: Path, plan: Plan, variant: Variant, overrides: list[str]) -> Job:
    """The process of a trial."""
    steps = max(1, int(variant.config.require("train.iterations")) // SHARE)
    warmup = int(variant.config.to_dict()["schedule"].get("warmup_iterations", 0)) // SHARE
    short = [f"train.iterations={steps}", "train.eval_every=0", f"schedule.warmup_iterations={warmup}"]
    arguments = (str(file), "--seed", str(plan.seeds[0]), "--output", str(run), "--trial", *overrides, *short)
    return Job(f"{variant.name}, {run.name}", python("detkit.compare.cell", *arguments), run)


def _said(job: Job, code: int) -> None:
    failed = f"failed with exit code {code} and is no candidate; see {job.folder / CONSOLE}"
    log.info("%s: %s", job.name, {0: "finished", 3: "diverged"}.get(code, failed))


def result(folder: Path, variant: str, name: str, overrides: list[str]) -> dict[str, Any]:
    """What came out of a trial; AP null if it did not finish."""
    path = folder / FOLDER / variant / name / RESULT
    ap = json.loads(path.read_text(encoding="utf-8"))["ap"] if path.exists() else None
    return {"name": name, "overrides": overrides, "ap": ap}


def best(variant: str, trials: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The trial of highest AP, of equal ones the first."""
    finished = [trial for trial in trials if trial["ap"] is not None]
    if not finished:
        raise ValueError(f"tuning: no trial of {variant} has a result; see {folder / FOLDER / variant}/*/console.txt")
    return max(finished, key=lambda trial: float(trial["ap"]))


def with_choice(variant: Variant, overrides: list[str]) -> Variant:
    """The variant with what it chose."""
    return Variant(variant.name, Config.from_dict(variant.config.to_dict(), overrides, name=variant.name))

"""A small sweep for each variant, so that no loss loses by its scale (docs/compare.md, "Tuning each variant")."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from detkit.compare.cell_folder import CELL, STATUS_OF_EXIT_CODE, read_json
from detkit.compare.launchers import CONSOLE, Job, Launcher, python
from detkit.compare.plan import TRIALS, TUNING, Plan, Variant, differing_keys
from detkit.config import Config
from detkit.data.final import KEY as FINAL
from detkit.runs.folder import RESULT, remove, run_files, write_json, write_text
from detkit.utils.outputs import foreign_files_error
from detkit.utils.types import Tree

log = logging.getLogger("detkit")

FACTORS = (0.5, 1.0, 2.0)
SHORTENING = 4
"""A trial is this many times shorter than a run."""


def tune_variants(
    plan: Plan, folder: Path, parameters: Sequence[str], *, jobs: int, threads: int, launcher: Launcher
) -> Plan:
    """Returns the plan with the choice of every variant; the plan itself without parameters to tune.

    parameters: of `weight` and `lr`. Finished trials are not run again. Raises ValueError if a variant has no trial
    with a result.
    """
    if not parameters:
        return plan
    trials = {variant.name: list(candidates(plan, variant, parameters)) for variant in plan.variants}
    todo = []
    for variant in plan.variants:
        file = folder / TRIALS / f"{variant.name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, variant.config.to_yaml())
        for name, overrides in trials[variant.name]:
            run = folder / TRIALS / variant.name / name
            remove_stale_trial(run, plan, variant, overrides)
            if not (run / RESULT).exists() and not (run / CELL).exists():  # cell.json: it diverged
                todo.append(job(file, run, plan, variant, overrides))
    count = sum(map(len, trials.values()))
    log.info("tuning %s: %d trials, %d of them done", ", ".join(parameters), count, count - len(todo))
    launcher(todo, at_once=jobs, threads=threads, finished=log_end, started=lambda j: log.info("%s: started", j.name))
    results = {variant: [result(folder, variant, *trial) for trial in each] for variant, each in trials.items()}
    chosen = {variant: best(variant, each, folder) for variant, each in results.items()}
    content = {"what": list(parameters), "factors": list(FACTORS), "trials": results, "chosen": chosen}
    write_json(folder / TUNING, content)
    tuned = (
        Variant(v.name, Config.from_dict(v.config.to_dict(), chosen[v.name]["overrides"], name=v.name))
        for v in plan.variants
    )
    return replace(plan, variants=tuple(tuned))


def remove_stale_trial(run: Path, plan: Plan, variant: Variant, overrides: list[str]) -> None:
    """Removes a trial of another config or seed, of a bench that was stopped while tuning and then changed."""
    wanted = {"config": variant.config.to_dict(), "seed": plan.seeds[0], "overrides": overrides, "share": SHORTENING}
    path, wanted = run.with_name(f"{run.name}.json"), json.loads(json.dumps(wanted))
    if run.exists() and read_json(path) != wanted:
        log.info("%s, %s: rerunning: its config or seed changed", variant.name, run.name)
        written, foreign = run_files(run)
        if foreign:
            raise foreign_files_error("--output", foreign)
        remove(run, [*written, *(run / name for name in (CELL, CONSOLE))])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)


def candidates(plan: Plan, variant: Variant, parameters: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Name and overrides of every trial of a variant."""
    keys = {"weight": f"losses.{compared_loss(plan)}.weight", "lr": "optimizer.lr"}
    trials = []
    for factors in itertools.product(FACTORS, repeat=len(parameters)):
        pairs = list(zip(parameters, factors, strict=True))
        overrides = [f"{keys[name]}={float(variant.config.require(keys[name])) * factor:g}" for name, factor in pairs]
        trials.append(("-".join(f"{name}_x{factor:g}" for name, factor in pairs), overrides))
    return trials


def compared_loss(plan: Plan) -> str:
    """`box` if the variants differ in the box loss and not in the class loss, else `classification`."""
    keys = [entry["key"] for entry in differing_keys({v.name: v.config.to_dict() for v in plan.variants})]
    differ = {name: any(key.startswith(f"losses.{name}.") for key in keys) for name in ("classification", "box")}
    return "box" if differ["box"] and not differ["classification"] else "classification"


def job(file: Path, run: Path, plan: Plan, variant: Variant, overrides: list[str]) -> Job:
    arguments = (
        str(file),
        "--seed",
        str(plan.seeds[0]),
        "--output",
        str(run),
        "--trial",
        *overrides,
        *shortened(variant),
    )
    return Job(f"{variant.name}, {run.name}", python("detkit.compare.cell", *arguments), run)


def shortened(variant: Variant) -> list[str]:
    """Overrides that make a training a share of its length, with as much of its beginning and end."""
    config, final = variant.config, f"{FINAL}.iterations"
    steps = max(1, int(config.require("train.iterations")) // SHORTENING)
    warmup = int(config.to_dict()["schedule"].get("warmup_iterations", 0)) // SHORTENING
    short = [f"train.iterations={steps}", "train.eval_every=0", f"schedule.warmup_iterations={warmup}"]
    if final in config and (last := float(config.require(final))) >= 1:  # a fraction is one of fewer steps, too
        short.append(f"{final}={max(1, int(last) // SHORTENING)}")
    return short


def log_end(job: Job, code: int) -> None:
    failed = f"failed with exit code {code} and is skipped; see {job.folder / CONSOLE}"
    log.info("%s: %s", job.name, STATUS_OF_EXIT_CODE.get(code, failed))


def result(folder: Path, variant: str, name: str, overrides: list[str]) -> Tree:
    """The result of a trial; AP is None if it did not finish."""
    ap = (read_json(folder / TRIALS / variant / name / RESULT) or {}).get("ap")
    return {"name": name, "overrides": overrides, "ap": ap}


def best(variant: str, trials: list[Tree], folder: Path) -> Tree:
    """The trial with the highest AP, the first of equal ones."""
    finished = [trial for trial in trials if trial["ap"] is not None]
    if not finished:
        raise ValueError(f"tuning: no trial of {variant} has a result; see {folder / TRIALS / variant}/*/{CONSOLE}")
    return max(finished, key=lambda trial: float(trial["ap"]))

"""Several benches as one: their plans, and whether they may be shown together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from detkit.compare.cell_folder import CELL, RunRecord, ended_status, read_json
from detkit.compare.checks import Check, grouped, listed
from detkit.compare.plan import CELLS, Cell, Plan, RunKey, Variant, cell_folder, run_name
from detkit.config import Config
from detkit.runs.folder import RESULT
from detkit.runs.settings import differing_settings

ALLOW = "Pass --allow {} to combine them anyway."


def merge_plans(
    plans: Sequence[Plan], folders: Sequence[Path], allow: Sequence[str]
) -> tuple[Plan, dict[RunKey, Cell], list[str]]:
    """One plan of several, the cell of each of its runs, and a sentence on each run with two different results.

    The first plan gives title and baseline. A variant of two benches must have the same config in both, and gets the
    seeds of both; of a run in both, the first that has ended counts. With `config` allowed, a variant of another
    config becomes NAME@FOLDER.
    """
    conflicts: list[str] = []
    variants: dict[str, Variant] = {}
    cells: dict[RunKey, Cell] = {}
    for plan, folder in zip(plans, folders, strict=True):
        check_config(plans[0].base, plan.base, f"{folder}: its config differs from that of {folders[0]}", allow)
        for variant in plan.variants:
            name, digest = variant.name, variant.config.hash()
            known = variants.get(name, variant).config
            check_config(known, variant.config, f"{folder}: {name} has another config than before", allow)
            if known.hash() != digest:
                name = f"{name}@{folder.name}"
                while variants.get(name, variant).config.hash() != digest:
                    name += "'"
            variants.setdefault(name, Variant(name, variant.config))
            for seed in plan.seeds:
                cell = Cell(name, seed, cell_folder(folder, variant.name, seed))
                first = cells.setdefault((name, seed), cell)
                if ended_status(first.folder) is None and ended_status(cell.folder) is not None:
                    cells[name, seed] = cell
                elif first is not cell and ended_status(cell.folder) and (one := _ap(first)) != (other := _ap(cell)):
                    conflicts.append(f"{cell.name}: AP {one} in {first.folder} (reported), {other} in {cell.folder}.")
    seeds = tuple(sorted({seed for plan in plans for seed in plan.seeds}))
    for name in variants:
        for seed in seeds:
            cells.setdefault((name, seed), Cell(name, seed, cell_folder(folders[0], name, seed)))
    return replace(plans[0], variants=tuple(variants.values()), seeds=seeds), cells, conflicts


def _ap(cell: Cell) -> float | None:
    result = read_json(cell.folder / RESULT)
    return None if result is None else round(result["ap"], 4)


def unreported_runs(cells: Mapping[RunKey, Cell], folders: Sequence[Path]) -> list[str]:
    """A sentence on ended runs that the report leaves out, as of seeds that were dropped: they could be choice."""
    reported = {cell.folder for cell in cells.values()}
    names = []
    for path in sorted(path.parent for folder in folders for path in folder.glob(f"{CELLS}/*/seed_*/{CELL}")):
        variant, seed = path.parent.name, path.name.removeprefix("seed_")
        if path not in reported and seed.isdecimal() and (variant, int(seed)) not in cells:
            names.append(run_name((variant, int(seed))))
    return [f"Finished runs that this report leaves out: {listed(names)}."] if names else []


def check_config(old: Config, new: Config, message: str, allow: Sequence[str]) -> None:
    """Raises ValueError with a line for every key in which two configs differ, unless that is allowed."""
    if "config" not in allow and old.hash() != new.hash():
        changed = sorted(differing_settings(old.to_dict(), new.to_dict()).items())
        lines = "\n".join(f"  {key}: {a!r} and {b!r}" for key, (a, b) in changed)
        raise ValueError(f"{message}:\n{lines}\n{ALLOW.format('config')}")


def check_same_data(runs: Mapping[RunKey, RunRecord], allow: Sequence[str]) -> None:
    hashes = {run_name(key): run.start["data"] for key, run in runs.items() if run.start}
    data = grouped(("/".join(each), name) for name, each in hashes.items())
    validation = grouped((each[1], name) for name, each in hashes.items())
    if len(data) > 1 and "data" not in allow:
        raise ValueError(f"the runs differ in their data:\n{_lines(data)}\n{ALLOW.format('data')}")
    if len(validation) > 1:
        message = "the runs have different validation images, and cannot be compared image by image:\n"
        raise ValueError(message + _lines(validation))


def _lines(names: Mapping[str, Sequence[str]]) -> str:
    return "\n".join(f"  {value}: {', '.join(runs)}" for value, runs in names.items())


def check_same_code(checks: Sequence[Check]) -> None:
    code = next(check for check in checks if check["name"] == "code")
    if code["ok"] is False and code["withholds"]:
        lines = "\n".join(f"  {line}" for line in code["detail"].split("; "))
        raise ValueError(f"the runs differ in their code:\n{lines}\n{ALLOW.format('code')}")

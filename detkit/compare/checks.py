"""How the runs of a bench were made, and whether their files still are what they were: the checks of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from detkit.compare.evidence import check_copies, check_figures, check_files, truth_hash
from detkit.compare.fairness import check_data, check_length
from detkit.compare.plan import Cell, Plan
from detkit.compare.provenance import Records, check_code, check_facts, trial_records
from detkit.evaluate.arrays import GroundTruth, Shard

T = TypeVar("T")


def flat(nested: Mapping[str, Mapping[int, T]]) -> dict[tuple[str, int], T]:
    """Variant -> seed -> value, by (variant, seed)."""
    return {(name, seed): value for name, runs in nested.items() for seed, value in runs.items()}


def ended(cell: Mapping[str, Any]) -> bool:
    """Whether a run came to its end, so that what it noted counts."""
    return cell["status"] in ("finished", "diverged")


def more_checks(
    plan: Plan, where: Mapping[tuple[str, int], Cell], cells: Mapping[str, Mapping[int, dict[str, Any]]],
    figures: Mapping[str, Any], shards: Mapping[tuple[str, int], Shard], records: Records, allow: Sequence[str],
    folders: Sequence[Path],
) -> list[dict[str, Any]]:  # fmt: skip
    """Checks on how the runs were made, and on whether their files are what they were."""
    runs = {run: where[run].folder for run, cell in flat(cells).items() if ended(cell)}
    finished = {run: folder for run, folder in runs.items() if run in shards}
    starts = {run: cell["start"] for run, cell in flat(cells).items() if cell["start"]}
    ends = {run: cell["end"] for run, cell in flat(cells).items() if cell["end"]}
    computed = {
        (name, seed): value
        for name, found in figures.items()
        for seed, value in zip(cells[name], found["summary"].get("ap", {}).get("values", []), strict=False)
    }
    devices = {run: str(record.starts[-1].facts.get("device")) for run, record in records.items() if record.starts}
    return [
        check_data(starts, ends, allow),
        check_code(plan, records, allow, trial_records(folders, plan)),
        *check_facts(records),
        check_length(plan, {run: cell["steps"] for run, cell in flat(cells).items() if run in finished}),
        check_files(runs, [run for run, record in records.items() if any(s.code for s in record.starts)]),
        check_figures(finished, computed, devices),
        check_copies(shards),
    ]


def check_one_code(checks: Sequence[dict[str, Any]], folders: Sequence[Path], allow: Sequence[str]) -> None:
    """Raises ValueError if several benches ran with different code; of a single one, the fairness table shows it."""
    code = next(check for check in checks if check["name"] == "code")
    if len(folders) > 1 and code["ok"] is False and "code" not in allow:
        lines = "\n".join(f"  {line}" for line in code["detail"].split("; "))
        raise ValueError(f"the runs differ in their code:\n{lines}\n--allow code shows them together all the same.")


def changed_truth(starts: Mapping[str, Mapping[int, Mapping[str, Any]]], truth: GroundTruth) -> list[str]:
    """A sentence if the validation annotations are not what the runs were measured against."""
    noted = {start["truth"] for start in flat(starts).values() if start.get("truth")}
    if noted <= {truth_hash(truth)}:
        return []
    return ["The validation annotations have changed since the runs: figures are of then, pictures are of now."]

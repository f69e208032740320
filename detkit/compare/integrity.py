"""Whether the files of a run still are what they were when it ended, and whether its figures agree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from detkit.compare.cell_folder import CELL, HASHED_FILES, read_json
from detkit.compare.checks import Check, check, grouped
from detkit.compare.hashes import arrays_hash
from detkit.compare.plan import RunKey, run_name
from detkit.evaluate.arrays import Shard
from detkit.runs.folder import RESULT, write_json
from detkit.utils.outputs import file_sha256
from detkit.utils.types import Tree

FILES = "files"
AP_TOLERANCE_CPU = 1e-6
"""Between the AP in result.json and the AP of detections.npz: on a CPU both come from the same bits."""
AP_TOLERANCE_GPU = 1e-3


def file_hashes(folder: Path) -> dict[str, str]:
    return {name: file_sha256(folder / name) for name in HASHED_FILES if (folder / name).is_file()}


def with_hashes(content: Tree, folder: Path) -> Tree:
    """The content of cell.json with the hashes of all files, its own included."""
    files = file_hashes(folder)
    return {**content, FILES: {**files, CELL: content_hash({**content, FILES: files})}}


def content_hash(content: Tree) -> str:
    """Hash of the content of cell.json but for this hash."""
    files = {name: value for name, value in content[FILES].items() if name != CELL}
    return hashlib.sha256(json.dumps({**content, FILES: files}, sort_keys=True).encode()).hexdigest()


def update_hash(folder: Path, name: str) -> None:
    """Writes the new hash of a file that detkit itself recomputed from files whose hashes hold."""
    content = read_json(folder / CELL)
    if FILES in content:
        content[FILES][name] = file_sha256(folder / name)
        content[FILES][CELL] = content_hash(content)
        write_json(folder / CELL, content)


def changed_files(folder: Path) -> list[str] | None:
    """Files that have changed since the run ended; None if an older detkit made it, which wrote no hashes."""
    content = read_json(folder / CELL)
    if (recorded := content.get(FILES)) is None:
        return None
    if recorded.pop(CELL, None) != content_hash({**content, FILES: recorded}):
        return [CELL]
    current = file_hashes(folder)
    return sorted(name for name in {*recorded, *current} if current.get(name) != recorded.get(name))


def check_files(runs: Mapping[RunKey, Path], new: Collection[RunKey] = ()) -> Check:
    """No file was changed after its run had ended. new: runs of a detkit that writes hashes, which must have them."""
    changed = {run: changed_files(folder) for run, folder in runs.items()}
    changed |= {run: [CELL] for run, files in changed.items() if files is None and run in new}
    wrong = [
        f"{run_name(run)}: {', '.join(files)} {'was' if len(files) == 1 else 'were'} changed after the run ended "
        f"({runs[run]})"
        for run, files in changed.items()
        if files
    ]
    if wrong:
        wrong[-1] += "; restore the files, or delete the folders of these runs and rerun the bench"
    old = [run_name(run) for run, files in changed.items() if files is None]
    answer = check("files", wrong, "every file is unchanged since its run ended") | {"withholds": True}
    if old and not wrong:
        answer |= {"ok": None, "detail": f"an older detkit made {', '.join(old)} and wrote no hashes"}
    return answer


def check_figures(
    runs: Mapping[RunKey, Path], computed: Mapping[RunKey, float | None], devices: Mapping[RunKey, str]
) -> Check:
    """The AP in each result.json is that of the run's detections. devices: `cpu`, or a GPU's name."""
    wrong = []
    for run, folder in runs.items():
        written, ap = read_json(folder / RESULT).get("ap"), computed.get(run)
        tolerance = AP_TOLERANCE_CPU if devices.get(run) == "cpu" else AP_TOLERANCE_GPU
        if not (written == ap if written is None or ap is None else abs(written - ap) <= tolerance):
            says, gives = ("none" if value is None else f"{100 * value:.4f}" for value in (written, ap))
            wrong.append(f"{run_name(run)}: {folder / RESULT} says AP {says}, its detections give {gives}")
    return check("figures", wrong, "the AP of every run is that of its detections") | {"withholds": True}


def check_distinct_runs(detections: Mapping[RunKey, Shard]) -> Check:
    """No two seeds of a variant have the same detections, bit for bit: one would be a copy of the other."""
    wrong = [
        f"{' and '.join(map(run_name, runs))} have the same detections, bit for bit: one is a copy of the other, or "
        "the seed has no effect"
        for runs in identical_runs(detections, 0)
    ]
    return check("distinct runs", wrong, "no two seeds of a variant have the same detections") | {"withholds": True}


def identical_variants(detections: Mapping[RunKey, Shard]) -> Iterator[str]:
    """A sentence for every seed with which several variants have the same detections, bit for bit."""
    for runs in identical_runs(detections, 1):
        names = " and ".join(variant for variant, _ in runs)
        yield f"{names}, seed {runs[0][1]}, have the same detections, bit for bit: their difference has no effect."


def identical_runs(detections: Mapping[RunKey, Shard], part: int) -> list[list[RunKey]]:
    """Groups of runs with the same detections and the same part of their key: variant (0) or seed (1)."""
    groups = grouped(((run[part], arrays_hash(*shard)), run) for run, shard in detections.items() if len(shard.scores))
    return [runs for runs in groups.values() if len(runs) > 1]

"""What a verdict rests on: the files of a finished run by hash, and figures that must fit each other.

A run notes the hashes last, in cell.json. Whoever edits a file afterwards is noticed; whoever makes new hashes as
well forges, and is noticed only where figures contradict each other.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from detkit.compare.cell_folder import CELL, EVIDENCE
from detkit.data.datasets.base import DetectionDataset
from detkit.evaluate.arrays import GroundTruth, Shard
from detkit.evaluate.coco import ground_truth_from
from detkit.runs.folder import RESULT, write_json
from detkit.utils.outputs import file_sha256

FILES = "files"
AP_TOLERANCE = {"cpu": 1e-6}
"""Between the AP that a run wrote and that of its detections: on a CPU both come from the same bits."""
AP_TOLERANCE_ELSEWHERE = 1e-3

Check = dict[str, Any]
"""name, ok (None: not known), detail, and whether it withholds the verdict."""
Runs = Mapping[tuple[str, int], Path]
"""(variant, seed) -> folder of a run that has ended."""


def check(name: str, wrong: Sequence[str], fine: str, *, withholds: bool = True) -> Check:
    """A check that holds where nothing is wrong."""
    return {"name": name, "ok": not wrong, "detail": "; ".join(wrong) or fine, "withholds": withholds}


def file_hashes(folder: Path) -> dict[str, str]:
    """Name -> hash of every file of a run that a verdict rests on."""
    return {name: file_sha256(folder / name) for name in EVIDENCE if (folder / name).is_file()}


def signed(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What cell.json holds: its content, and the hashes of all files, its own included."""
    files = file_hashes(folder)
    return {**content, FILES: {**files, CELL: own_hash({**content, FILES: files})}}


def own_hash(content: Mapping[str, Any]) -> str:
    """Of the content of cell.json but for this hash."""
    files = {name: value for name, value in content[FILES].items() if name != CELL}
    return hashlib.sha256(json.dumps({**content, FILES: files}, sort_keys=True).encode()).hexdigest()


def note_again(folder: Path, name: str) -> None:
    """Notes the new hash of a file that detkit itself made a second time, from files whose hashes hold."""
    content = json.loads((folder / CELL).read_text(encoding="utf-8"))
    if FILES in content:
        content[FILES][name] = file_sha256(folder / name)
        content[FILES][CELL] = own_hash(content)
        write_json(folder / CELL, content)


def changed_files(folder: Path) -> list[str] | None:
    """Files that are not what they were when the run ended; None if an older detkit made it and noted no hashes."""
    content = json.loads((folder / CELL).read_text(encoding="utf-8"))
    if (noted := content.get(FILES)) is None:
        return None
    if noted.pop(CELL, None) != own_hash({**content, FILES: noted}):
        return [CELL]
    there = {name for name in EVIDENCE if (folder / name).is_file()}
    return sorted(
        name
        for name in {*noted, *there}
        if name not in there or name not in noted or file_sha256(folder / name) != noted[name]
    )


def named(run: tuple[str, int]) -> str:
    """As messages name a run."""
    return f"{run[0]}, seed {run[1]}"


def check_files(runs: Runs, new: Collection[tuple[str, int]] = ()) -> Check:
    """No file was changed after its run had ended. new: runs of a detkit that notes hashes: there must be some."""
    found = {run: changed_files(folder) for run, folder in runs.items()}
    found |= {run: [CELL] for run, files in found.items() if files is None and run in new}
    wrong = [
        f"{named(run)}: {', '.join(files)} {'was' if len(files) == 1 else 'were'} changed after the run had ended "
        f"({runs[run]})"
        for run, files in found.items()
        if files
    ]
    if wrong:
        wrong[-1] += "; put the old files back, or delete the folders of these runs and let the bench make them again"
    old = [named(run) for run, files in found.items() if files is None]
    answer = check("files", wrong, "every file is as it was when its run ended")
    if old and not wrong:
        answer |= {"ok": None, "detail": f"an older detkit made {', '.join(old)} and noted no hashes"}
    return answer


def check_figures(runs: Runs, computed: Mapping[tuple[str, int], float | None], devices: Mapping[Any, str]) -> Check:
    """The AP that each run wrote is that of its detections. devices: (variant, seed) -> `cpu` or a GPU's name."""
    wrong = []
    for run, folder in runs.items():
        written, found = json.loads((folder / RESULT).read_text(encoding="utf-8")).get("ap"), computed.get(run)
        if (written is None) != (found is None):
            wrong.append(f"{named(run)}: {folder / RESULT} says AP {written}, its detections give {found}")
        elif written is not None and found is not None:
            tolerance = AP_TOLERANCE.get(devices.get(run, ""), AP_TOLERANCE_ELSEWHERE)
            if not abs(written - found) <= tolerance:
                said = f"says AP {100 * written:.4f}, its detections give {100 * found:.4f}"
                wrong.append(f"{named(run)}: {folder / RESULT} {said}")
    return check("figures", wrong, "the AP of every run is that of its detections")


def check_copies(shards: Mapping[tuple[str, int], Shard]) -> Check:
    """No two seeds of a variant found the same, bit for bit: one would be a copy of the other."""
    alike: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for run, shard in shards.items():
        if len(shard.scores):
            alike[run[0], shard_hash(shard)].append(run)
    wrong = [
        f"{' and '.join(map(named, runs))} found the same, bit for bit: is one a copy of the other, or has the seed no "
        "effect?"
        for runs in alike.values()
        if len(runs) > 1
    ]
    return check("distinct runs", wrong, "no two seeds of a variant found the same")


def same_detections(shards: Mapping[tuple[str, int], Shard]) -> Iterator[str]:
    """A sentence for every seed under which several variants found the same, bit for bit."""
    alike: dict[tuple[int, str], list[str]] = defaultdict(list)
    for (name, seed), shard in shards.items():
        if len(shard.scores):
            alike[seed, shard_hash(shard)].append(name)
    for (seed, _), names in alike.items():
        if len(names) > 1:
            yield f"{' and '.join(names)}, seed {seed}, found the same, bit for bit: their difference has no effect."


def shard_hash(shard: Shard) -> str:
    """Of all detections of a run."""
    return arrays_hash(*shard)


def arrays_hash(*arrays: Any) -> str:
    """Twelve hex digits of the bytes of arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:12]


# ---- the validation data, with its images


def truth_hash(truth: GroundTruth) -> str:
    """Of everything that detections are measured against."""
    return arrays_hash(truth.image_ids, truth.offsets, truth.boxes, truth.labels, truth.crowd, truth.area)


def validation_hash(dataset: DetectionDataset) -> str:
    """Of the annotations and images that a run is measured on: of the files, or of the pixels where there are none."""
    found = hashlib.sha256(truth_hash(ground_truth_from(dataset)).encode())
    for i in range(len(dataset)):
        path = Path(dataset.records.path(i))
        found.update(file_sha256(path).encode() if path.is_file() else np.asarray(dataset.load_image(i)).tobytes())
    return found.hexdigest()[:12]


def images_hash(dataset: DetectionDataset, whole: int = 8 * 2**30) -> str:
    """Of all image files of a training split; images that are drawn, and no files, are known by code and config.

    whole: bytes up to which every file is read whole; of a larger split, its size and three blocks of it.
    """
    paths = [Path(dataset.records.path(i)) for i in range(len(dataset))]
    sizes = [path.stat().st_size if path.is_file() else -1 for path in paths]
    read_all, found = sum(sizes) <= whole, hashlib.sha256(np.array(sizes, np.int64).tobytes())
    for path, size in zip(paths, sizes, strict=True):
        if size >= 0:
            found.update(file_sha256(path).encode() if read_all else blocks(path, size))
    return found.hexdigest()[:12]


def blocks(path: Path, size: int, length: int = 4096) -> bytes:
    """The first, the middle and the last block of a file."""
    with path.open("rb") as file:
        return b"".join(read_at(file, max(0, at), length) for at in (0, (size - length) // 2, size - length))


def read_at(file: BinaryIO, place: int, length: int) -> bytes:
    """Some bytes of an open file."""
    file.seek(place)
    return file.read(length)

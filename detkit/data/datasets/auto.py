"""Data sets whose format is found by looking."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.coco_file import read_json
from detkit.data.datasets.file_formats import describe_json, describe_text, read_text
from detkit.data.datasets.found import SPLIT_NAMES, FoundData, Place, canonical_split, is_run
from detkit.data.datasets.records import BadBoxes
from detkit.data.datasets.splits import SplitOptions, split_lists
from detkit.data.datasets.wrapper import WrapperDataset
from detkit.registry import DATASETS, FractionBelowOne, OpenFraction, PathStr, Seed
from detkit.utils.console import printable, shorten_list
from detkit.utils.types import Tree

log = logging.getLogger("detkit")
ORDER = ("YoloDataset", "CocoDataset", "VocDataset", "ParquetDataset")
"""Parts that are asked first: where a folder holds the same boxes in several formats, the first one wins."""
ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
ANNOTATIONS = (".json", ".xml", ".csv", ".txt", ".tar", *ARCHIVES)
"""Suffixes of files that may say why a folder is no data set."""
LARGEST = 20_000_000
"""Bytes of such a file that is read for that."""
TRAINVAL = re.compile(r"(?<![a-z])trainval(?![a-z])")


def find_data(path: str | Path) -> FoundData:
    """The data set at a file or folder, whatever its format.

    Every registered data set part looks (`DetectionDataset.find`). If several find something, the first of `ORDER` is
    taken and the others are in its notes. FileNotFoundError if nothing is there; ValueError, that says what the place
    holds, if no part knows it.
    """
    place = Place(Path(path))
    if not place.path.exists():
        raise FileNotFoundError(f"no data set {printable(place.path)}: there is no such file or folder")
    found = [each for part in finders() if (each := part.find(place)) is not None and each.splits]
    if not found:
        if place.path.suffix.lower() == ".json" and not place.is_folder:
            read_json(str(place.path))  # says what the file is instead
        raise ValueError(f"{printable(place.path)}: no data set of a known format is there; it holds {contents(place)}")
    first, *others = found
    notes = [f"also found: {other.format}, because of {other.why}; not read" for other in others]
    if shared := [name for name in first.splits if name not in SPLIT_NAMES and canonical_split(name)]:
        notes.append(f"several are of one split, so each is its own: {shorten_list(shared)}")
    if place.is_partial:
        notes.append(
            f"only the first {len(place.files)} files were looked at: name the file or folder of a split instead"
        )
    splits, renamed = with_trainval(first.splits)
    ordered = {name: splits[name] for name in sorted(splits, key=split_position)}
    return FoundData(first.format, first.why, ordered, (*first.notes, *renamed, *notes))


def finders() -> list[type[DetectionDataset]]:
    """Every registered data set part, in the order in which they are asked."""
    known = DATASETS.names()
    names = [name for name in ORDER if name in known] + [name for name in known if name not in ORDER]
    return [part for name in names if issubclass(part := DATASETS.get(name), DetectionDataset)]


def split_position(name: str) -> int:
    """A key that sorts splits as people name them: train, val, test, then all others."""
    return list(SPLIT_NAMES).index(name) if name in SPLIT_NAMES else len(SPLIT_NAMES)


def with_trainval(splits: Mapping[str, Tree]) -> tuple[Mapping[str, Tree], tuple[str, ...]]:
    """The splits, trainval by the name of train where there is neither train nor val, and a note that says so."""
    named = [name for name in splits if TRAINVAL.search(name.lower())]
    if len(named) != 1 or not {"train", "val"}.isdisjoint(splits):
        return splits, ()
    return {"train" if n == named[0] else n: node for n, node in splits.items()}, (f"{named[0]} is read as train",)


def contents(place: Place) -> str:
    """What a place holds, in words."""
    if not place.is_folder:
        known = describe_file(place.path)
        return f"a file with the suffix {place.path.suffix or 'none'}{f', {known}' if known else ''}"
    if is_run(place.path):
        return "a run: name its config.yaml, or the folder of a data set"
    counts = [f"{count} {suffix or 'files without suffix'}" for suffix, count in place.suffixes.most_common()]
    return (shorten_list(counts, 8) or "nothing") + describe_files(place)


def describe_files(place: Place) -> str:
    """The first file of each suffix that annotations have, in words; empty if none is known."""
    known = []
    for suffix in ANNOTATIONS:
        file = next(iter(place.with_suffix(suffix)), None)
        text = file and describe_file(place.path / file)
        if text:
            known.append(f"{printable(file)} is {text}")
    return f". {'; '.join(known)}" if known else ""


def describe_file(path: Path) -> str | None:
    """What an annotation file is, in words; None if that is not known."""
    if path.suffix.lower() not in ANNOTATIONS:
        return None
    if path.suffix.lower() in ARCHIVES:
        return "an archive: unpack it"
    if path.suffix.lower() == ".tar":
        return "a tar file without images that have JSON files of their names"
    try:
        text = read_text(path) if path.stat().st_size < LARGEST else ""
        return (
            describe_json(json.loads(text)) if text and path.suffix.lower() == ".json" else describe_text(text or "?")
        )
    except json.JSONDecodeError:
        return "no JSON, or cut off"
    except (ValueError, OSError, RecursionError):
        return None


@DATASETS.register()
class AutoDataset(WrapperDataset):
    """A data set of any known format, found by looking; the log says which and why.

    Args:
        root: file or folder, as data.yaml, annotations.json, or a folder of images and XML files.
        split: train, val, test or another split that is there; null takes the only one.
        val: fraction of the images that val gets where the data has none, and train loses; null makes no val.
        test: fraction that a split test gets in the same way, where the data has no test.
        split_seed: of the random choice for val.
        stratified: every class gets its fraction in val, as near as whole images allow.
        lists: folder with the lists train.txt and val.txt of that choice, which are written if they are not there, so
            that it stays when images are added; null writes none.
        class_names: the classes and their order; null takes those of the data.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    def __init__(
        self,
        *,
        root: PathStr,
        split: str | None = None,
        val: OpenFraction | None = None,
        test: FractionBelowOne = 0.0,
        split_seed: Seed = 0,
        stratified: bool = True,
        lists: PathStr | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        found = find_data(root)
        for text in (f"{found.format}, because of {found.why}", *found.notes):
            log.info("%s: %s", root, text)
        more = {
            "class_names": class_names,
            "class_map": class_map,
            "ignore_classes": ignore_classes,
            "bad_boxes": bad_boxes,
            "keep_empty": keep_empty,
        }
        made = () if val is None or "val" in found.splits else [s for s in SPLIT_NAMES if s not in found.splits]
        if val is not None and split is not None and made and split in (*made, "train"):
            kept = test if "test" in made else 0.0
            options = SplitOptions(val=val, test=kept, seed=split_seed, stratified=stratified, file=lists)
            dataset = made_split(found, split, str(root), options, more)
        else:
            dataset = DATASETS.build({**split_node(found, split, str(root)), **more})
        self.wrap(dataset.name, [dataset], dataset.classes, dataset.records, ((0, i) for i in range(len(dataset))))
        self.roots, self.layout = dataset.roots, dataset.layout


def made_split(found: FoundData, split: str, name: str, options: SplitOptions, more: Tree) -> DetectionDataset:
    """Train or val of data that has no val: a part of train, or of the only split."""
    node = split_node(found, "train" if "train" in found.splits else None, name)
    whole: DetectionDataset = DATASETS.build({**node, **more})
    images = split_lists(whole, options)[split]
    part: DetectionDataset = DATASETS.build({"type": "SubsetDataset", "dataset": whole, "images": images})
    part.name = f"{whole.name} ({split})"
    chance = f"by chance (data.split: val {options.val:g}, seed {options.seed})"
    chance += "; data.split.file writes them down, so that the split stays"
    which = chance if options.file is None else f"as the lists in {options.file} say"
    log.info("%s: there is no val, so %s is %d of %d images, %s", whole.name, split, len(images), len(whole), which)
    return part


def split_node(found: FoundData, split: str | None, name: str) -> Tree:
    """The config node of a split, or of the only one; ValueError that lists the splits there are."""
    known = shorten_list(list(found.splits))
    if split is None and len(found.splits) != 1:
        raise ValueError(f"{name} has the splits {known}: choose one with `split`")
    key = next(iter(found.splits)) if split is None else canonical_split(split) or split
    own = [name for name, node in found.splits.items() if split is not None and node.get("split") == split]
    for each in (split, *own[:1], key):
        if each is not None and each in found.splits:
            return found.splits[each]
    raise ValueError(f"{name}: {found.format} has no split {split!r}, only {known}")

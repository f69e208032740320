"""The data that `detkit train DATA` names: whether a word is one, and the splits to train and evaluate with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detkit.config.find import configs_named
from detkit.data.datasets.auto import find_data
from detkit.data.datasets.found import FoundData, canonical_split, is_run
from detkit.data.reading import is_config
from detkit.registry import DATASETS
from detkit.runs.folder import CONFIG
from detkit.utils.console import printable, shorten_list
from detkit.utils.types import Tree

YAML = (".yaml", ".yml")
EVALUATED = ("val", "test")
"""Splits that are evaluated on, in order of preference."""


@dataclass(frozen=True)
class Splits:
    """Config nodes of the training and the validation data, and what to say of them.

    val: None where there is nothing to evaluate with, so that a part of train must be put aside.
    """

    train: Tree
    val: Tree | None
    notes: tuple[str, ...]


def names_data(word: str) -> bool:
    """Whether a word of the command line is a data set rather than a config: a folder, a file that is not YAML, or a
    YAML file that is no config, such as YOLO's data.yaml. A config's name goes before a folder in the current one."""
    path = Path(word)
    if not path.exists() or configs_named(word):
        return False
    if path.is_dir():
        if is_run(path):
            raise IsADirectoryError(
                f"{printable(word)} is the folder of a run: name its config, {printable(path / CONFIG)}, with --resume "
                "to continue it; or name the folder of a data set"
            )
        return True
    return path.suffix.lower() not in YAML or not is_config(path)


def find_splits(place: str) -> Splits:
    """The splits of the data at a place; says what was found and why."""
    path = Path(place).absolute()
    if "${" in str(path):
        raise ValueError(
            f"{printable(path)}: in a config, ${{ begins a variable: rename the folder, or link to it by another name"
        )
    found = find_data(path)
    notes = [f"{printable(place)}: {found.format}, because of {found.why}", *found.notes]
    for part in {str(node["type"]) for node in found.splits.values()}:
        DATASETS.get(part)  # an unknown one is reported here, not in the written config
    train = found.splits.get("train")
    if train is not None:
        return with_evaluation(found, train, notes)
    if len(found.splits) == 1:
        (name, node), *_ = found.splits.items()
        return Splits(node, None, (*notes, f"it has no splits: a part of {name} is put aside for validation"))
    raise ValueError(
        f"{printable(place)}: {found.format} has the splits {shorten_list(list(found.splits))}, but none called train: "
        "name the file or folder of one of them, or write a config (docs/own-data.md)"
    )


def with_evaluation(found: FoundData, train: Tree, notes: list[str]) -> Splits:
    """Training data and the split to evaluate with."""
    lacks = no_val(found)
    for name in EVALUATED:
        if name in found.splits:
            more = (f"{lacks}: test is evaluated on",) if name == "test" else ()
            return Splits(train, found.splits[name], (*notes, *more))
    return Splits(train, None, (*notes, f"{lacks}: a part of train is put aside for validation"))


def no_val(found: FoundData) -> str:
    """Why there is no split called val, in words."""
    parts = [name for name in found.splits if canonical_split(name) == "val"]
    if len(parts) > 1:
        return f"val is in several parts, none of which is all of it ({shorten_list(parts)})"
    return "there is no val split"

"""`data.root` and `data.split`: one line for both data sets of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detkit.config.raw import ConfigError, Origin, RawConfig
from detkit.registry.values import value_text
from detkit.utils.types import Tree, Value

SPLITS = ("train", "val")
PARTS = {"val": "val", "seed": "split_seed", "stratified": "stratified", "file": "lists"}
"""Keys of `data.split` -> arguments of AutoDataset."""


def add_datasets(raw: RawConfig, name: str) -> list[str]:
    """Gives train and val the data set of `data.root` where they have none; the keys of those data sets.

    ConfigError for a split of nothing.
    """
    data = raw.values.get("data")
    if not isinstance(data, dict):
        return []
    root, split = data.get("root"), data.get("split")
    where = raw.origin.get("data.split", name)
    if root is None and split is None:
        return []
    if root is None:
        raise ConfigError([f"{where}: data.split: divides the data of data.root; set it, too"])
    if split is not None and not isinstance(split, Mapping):
        raise ConfigError([f"{where}: data.split: {value_text(split)} is not a mapping: write {{val: 0.2}}"])
    made = []
    for part in SPLITS:
        section = data.setdefault(part, {})
        if isinstance(section, dict) and "dataset" not in section:
            section["dataset"] = dataset_node(root, split, part)
            note_origins(raw, part, section["dataset"], name)
            made.append(f"data.{part}.dataset")
    return made


def as_written(key: str, made: Sequence[str]) -> str:
    """A key of a data set, as the user wrote it: below `data.split` for those that `add_datasets` made."""
    dataset = next((prefix for prefix in made if key.startswith(f"{prefix}.")), None)
    if dataset is None:
        return key
    argument, dot, rest = key.removeprefix(f"{dataset}.").partition(".")
    keys = {argument: key for key, argument in PARTS.items()}
    return "data.root" if argument == "root" else f"data.split.{keys.get(argument, argument)}{dot}{rest}"


def dataset_node(root: Value, split: Value, part: str) -> Tree:
    """The data set of train or val at `data.root`."""
    node: Tree = {"type": "AutoDataset", "root": root, "split": part, "val": 0.2}
    given = split if isinstance(split, Mapping) else {}
    return {**node, **{PARTS.get(str(key), str(key)): value for key, value in given.items()}}


def note_origins(raw: RawConfig, part: str, node: Tree, name: str) -> None:
    """The keys of a data set were written where those of `data.root` and `data.split` were."""
    keys = {argument: key for key, argument in PARTS.items()}
    root = raw.origin.get("data.root", name)
    for argument in ("", *node):
        origin = raw.origin.get(f"data.split.{keys.get(argument, argument)}", root)
        if isinstance(origin, Origin):
            raw.origin[f"data.{part}.dataset{argument and '.'}{argument}"] = origin


def remove_keys(values: Value) -> Value:
    """The values without the two keys, once they are data sets."""
    if isinstance(values, dict) and isinstance(values.get("data"), dict):
        for key in ("root", "split"):
            values["data"].pop(key, None)
    return values

"""A model as a folder that anybody may open: model.safetensors, config.json, README.md; no pickle.

model.safetensors holds the text of config.json, too, so that the file alone is enough.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from detkit.checkpoint import Checkpoint
from detkit.config import Config
from detkit.config.paths import raw_value
from detkit.hub.repository import CONFIG, WEIGHTS
from detkit.registry.path_types import is_path
from detkit.structures import ClassMap
from detkit.utils.console import printable
from detkit.utils.outputs import Ledger, write_text
from detkit.utils.tensor_files import read_safetensors, write_safetensors
from detkit.utils.types import Tree
from detkit.version import __version__

log = logging.getLogger("detkit")

FORMAT = 1
MARK = "detkit"
"""Key of the metadata of model.safetensors under which the text of config.json is."""


def write_exported(folder: Path, saved: Checkpoint, ledger: Ledger | None = None) -> None:
    """Writes model.safetensors (the averaged weights, if there are some) and config.json."""
    text = json.dumps(describe(saved), indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS, saved.weights, {MARK: text, "format": "pt"}, ledger)
    write_text(folder / CONFIG, text + "\n", ledger=ledger)


def describe(saved: Checkpoint) -> Tree:
    """The content of config.json: classes, step and the config, with folders of this machine and own code left out."""
    config = Config.from_dict(saved.config, name=str(saved.path or "checkpoint"))
    values = config.to_dict()
    for key in config.paths():
        _shorten(values, key)
    return {
        "library_name": "detkit",
        "format": FORMAT,
        "detkit_version": saved.version or __version__,
        "step": saved.step,
        "needs": [Path(entry).name for entry in values.pop("imports", [])],
        "classes": {"names": list(saved.classes.names), "ids": list(saved.classes.ids)},
        "config": values,
    }


def read_exported(source: Path) -> Checkpoint:
    """A folder of `write_exported`, or its model.safetensors alone -> a checkpoint that nothing resumes from."""
    weights = source / WEIGHTS if source.is_dir() else source
    tensors, text = read_safetensors(weights)
    beside = weights.parent / CONFIG
    if source.is_dir() and beside.is_file():
        return _checkpoint(tensors, beside.read_text(encoding="utf-8"), beside, weights)
    if MARK not in text:
        raise ValueError(
            f"{printable(weights)} has no config of detkit in it: {printable(weights.parent)} must hold the {CONFIG} "
            "that `detkit push` writes"
        )
    return _checkpoint(tensors, text[MARK], weights, weights)


def _checkpoint(tensors: dict[str, Tensor], text: str, origin: Path, weights: Path) -> Checkpoint:
    """origin: the file that `text` is from, for errors."""
    try:
        content: Mapping[str, Any] = json.loads(text)
        version, classes, config = int(content["format"]), content["classes"], dict(content["config"])
        class_map = ClassMap(tuple(map(str, classes["names"])), tuple(map(int, classes["ids"])))
        step, needs = int(content["step"]), [str(name) for name in content.get("needs", [])]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"{printable(origin)} is not the {CONFIG} of a model of detkit: {type(error).__name__}: {error}"
        ) from error
    if version > FORMAT:
        raise ValueError(
            f"{printable(origin)} has format {version}; detkit {__version__} reads up to {FORMAT}: use a newer one"
        )
    config.pop("imports", None)  # a file from elsewhere names no code to run
    if needs:
        log.warning("%s has parts of %s: import that before you load it", printable(origin), ", ".join(needs))
    else:
        Config.from_dict(config, name=printable(origin))
    return Checkpoint(step=step, seed=0, model=tensors, config=config, classes=class_map, path=weights)


def _shorten(values: Tree, key: str) -> None:
    """Cuts a path at a dotted key down to the name of its file or folder."""
    above, _, last = key.rpartition(".")
    node: Any = raw_value(values, above) if above else values
    place = int(last) if isinstance(node, list) else last
    if is_path(str(node[place]), "a path"):
        node[place] = re.split(r"[/\\]", str(node[place]).rstrip("/\\"))[-1]

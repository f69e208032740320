"""What `detkit list configs` prints: the configs that come with detkit, from the comments at their beginning.

A config begins with a sentence about itself. Lines of the form `# data: ...`, `# size: ...` and `# AP: ...` say on what
it trains, how large its detector is, and which AP was measured, with the file of the measurement:

    # A small RetinaNet on blood cells.
    # data: BCCD, 205 photographs in VOC layout
    # size: 13.0 M parameters with 3 classes
    # AP: 0.563 (benchmarks/results/bccd_cpu.json)
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from detkit.config.find import PREFIX, config_name, configs_named, find_config, own_configs
from detkit.utils.types import Tree

Kind: TypeAlias = Literal["config", "detector", "training", "overlay"]
KINDS: tuple[Kind, ...] = ("config", "detector", "training", "overlay")
KIND_OF_FOLDER: dict[str, Kind] = {"base": "detector", "losses": "overlay", "training": "training"}
"""Folder -> what its files are; those of all others can be trained."""
UNMEASURED = "not measured"
FACT = re.compile(r"(data|size|AP): (.+)")
MEASURED = re.compile(r"(0\.\d{3}) \((\S+)\)")
ALIAS = re.compile(r"_base_: (\S+)\n")


@dataclass(frozen=True)
class ConfigEntry:
    """One config that comes with detkit.

    Args:
        name: the shortest name by which commands find it.
        file: the same as `detkit:configs/...`.
        kind: "config" can be trained, "detector" is a base without data and training, "training" one without a
            detector, "overlay" goes over a config.
        summary: its first sentence.
        data: on what it trains; empty unless it is a config.
        size: parameters of the detector; empty unless it is a config.
        ap: measured average precision on the validation images, 0..1; None if it was not measured.
        measured_in: the file of detkit's repository with that measurement.
    """

    name: str
    file: str
    kind: Kind
    summary: str
    data: str = ""
    size: str = ""
    ap: float | None = None
    measured_in: str | None = None

    def to_dict(self) -> Tree:
        """The fields, as JSON takes them."""
        return asdict(self)


def catalog() -> list[ConfigEntry]:
    """Every config that comes with detkit, under its shortest name; a file that only names another is its name."""
    aliases = {find_config(base, path.parent): name for name, path in own_configs().items() if (base := alias_of(path))}
    entries = [read_entry(path, aliases.get(path)) for path in own_configs().values() if not alias_of(path)]
    return sorted(entries, key=lambda entry: (KINDS.index(entry.kind), entry.file))


def alias_of(path: Path) -> str | None:
    """The config that a file stands for, if `_base_` is all that it has."""
    content = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    match = ALIAS.fullmatch(content)
    return match[1] if match else None


def read_entry(path: Path, name: str | None = None) -> ConfigEntry:
    """The entry of a file. name: a shorter one than the path below configs."""
    lines = header(path)
    facts = {match[1]: match[2] for line in lines if (match := FACT.fullmatch(line))}
    measured = MEASURED.fullmatch(facts.get("AP", UNMEASURED))
    full = config_name(path)
    stem = full.rpartition("/")[2]
    return ConfigEntry(
        name=name or (stem if configs_named(stem) == [path] else full),
        file=f"{PREFIX}{full}.yaml",
        kind=KIND_OF_FOLDER.get(full.partition("/")[0], "config"),
        summary=lines[0] if lines else "",
        data=facts.get("data", ""),
        size=facts.get("size", ""),
        ap=float(measured[1]) if measured else None,
        measured_in=measured[2] if measured else None,
    )


def header(path: Path) -> list[str]:
    """The comment lines at the beginning of a file, without their `#`."""
    block = re.match(r"(#.*\n)*", path.read_text(encoding="utf-8"))
    return [line.lstrip("# ") for line in block[0].splitlines()] if block else []

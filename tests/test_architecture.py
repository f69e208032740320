"""ARCHITECTURE.md and the import contract speak of the rooms that there are."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROOMS = TEXT.partition("## The rooms")[2].partition("##")[0]


def layers() -> list[set[str]]:
    """The layers of the import contract, from top to bottom."""
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is part of Python 3.11 and later")
    tomllib = importlib.import_module("tomllib")
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(c for c in content["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    return [set(line.split(" | ")) for line in contract["layers"]]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:detkit|docs|configs|tools|tests)/[\w/.]*)[`:]", TEXT))))
def test_a_path_of_the_map_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`(\w+(?:/\w+)*\.py)(?:`|: )", TEXT.partition("## Glossary")[2])))
)
def test_a_term_is_defined_where_the_glossary_says(path: str) -> None:
    assert (ROOT / "detkit" / path).exists()


@pytest.mark.parametrize(("path", "name"), re.findall(r"`(\w+(?:/\w+)*\.py): (\w+)`", TEXT))
def test_a_class_of_the_glossary_is_there(path: str, name: str) -> None:
    assert re.search(rf"^class {name}\b", (ROOT / "detkit" / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_table_of_rooms_is_the_import_contract() -> None:
    rows = [
        re.findall(r"`(?:detkit/)?([\w/.]+)`", line.split("|")[1])
        for line in ROOMS.splitlines()
        if line.startswith("| `")
    ]
    told = [{name.removesuffix(".py").strip("/") for name in row} - {"csrc"} for row in rows]
    assert told == [layer for layer in layers() if layer != {"__main__"}]


def test_every_package_is_a_room() -> None:
    packages = {p.parent.name for p in (ROOT / "detkit").glob("*/__init__.py")}
    assert packages <= set().union(*layers())

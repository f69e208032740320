"""docs/how-procs-works.md names modules and functions that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-procs-works.md").read_text(encoding="utf-8")


def test_every_module_is_there() -> None:
    modules = set(re.findall(r"\b[a-z]+/[a-z_]+\.py", PAGE))
    assert len(modules) > 15
    assert [module for module in sorted(modules) if not (ROOT / "detkit" / module).is_file()] == []


def test_every_function_is_in_its_module() -> None:
    rows = re.findall(r"`([a-z]+/[a-z_]+\.py)` \(([^)]*)\)", PAGE)
    assert len(rows) > 12
    for module, names in rows:
        source = (ROOT / "detkit" / module).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert f"def {name}(" in source, f"{module}: {name}"


def test_every_method_of_the_coordinator_is_there() -> None:
    source = (ROOT / "detkit/distributed/coordinator.py").read_text(encoding="utf-8")
    methods = re.findall(r"Coordinator\.(\w+)", PAGE)
    assert methods
    assert all(f"def {name}(" in source for name in methods)

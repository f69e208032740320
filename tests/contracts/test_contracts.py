"""Every registered part keeps the contract of its slot: registering is testing."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from detkit.registry import REGISTRIES
from detkit.testing import CONTRACTS, Check
from detkit.testing.contract import Subject, describe
from tests.contracts import examples

ELSEWHERE = ("MLflow", "Trackio", "WandB")
"""Loggers whose contract is in tests/loggers/test_services.py, as they need a store and take seconds to import."""
PARTS = [(r, name) for r in REGISTRIES if r.name in CONTRACTS for name in r.names() if name not in ELSEWHERE]
CASES = [
    pytest.param(r.name, name, check, id=f"{r.name}-{name}-{check.name}")
    for r, name in PARTS
    for check in CONTRACTS[r.name].checks
]


_folders: list[TemporaryDirectory[str]] = []  # removed when Python ends: the parts below live as long


def arguments(registry: str, name: str) -> dict[str, Any]:
    given = examples.EXAMPLES.get(registry, {}).get(name)
    if given is None and registry == "datasets":
        _folders.append(TemporaryDirectory(prefix="detkit-contracts-"))
        return examples.files_for(name, Path(_folders[-1].name))
    return given or {}


@lru_cache(maxsize=2)
def subject(registry: str, name: str) -> Subject:
    found = next(r for r in REGISTRIES if r.name == registry)
    node = {"type": name, **arguments(registry, name)}
    return CONTRACTS[registry].subject(lambda **derived: found.build(node, **derived))


@pytest.mark.parametrize(("registry", "name", "check"), CASES)
def test_contract(registry: str, name: str, check: Check) -> None:
    result = CONTRACTS[registry].run_one(subject(registry, name), check)
    assert result.ok, describe(f"{registry} {name}", result)


@pytest.mark.parametrize(("registry", "name"), [pytest.param(r.name, n, id=f"{r.name}-{n}") for r, n in PARTS])
def test_part_has_defaults_or_an_example(registry: str, name: str) -> None:
    found = next(r for r in REGISTRIES if r.name == registry)
    missing = [k for k, a in found.arguments(name).items() if a.required and k not in arguments(registry, name)]
    assert not missing, f"{registry} {name}: add {', '.join(missing)} to tests/contracts/examples.py"

"""`make check` holds the borders between the rooms: a planted upward import and a planted circle are caught."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
UPWARD = "from detkit.train import trainer as planted"
TYPES_ONLY = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from {module} import {name}"

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """detkit's Python files and the contracts."""
    shutil.copytree(ROOT / "detkit", tmp_path / "detkit", ignore=shutil.ignore_patterns("*.so", "__pycache__", "csrc"))
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> tuple[int, str]:
    done = subprocess.run([LINT_IMPORTS, "--no-cache"], cwd=folder, capture_output=True, text=True)
    return done.returncode, " ".join(done.stdout.split())


def plant(file: Path, line: str) -> None:
    file.write_text(file.read_text(encoding="utf-8") + f"\n\n{line}\n", encoding="utf-8")


def test_check_asks_import_linter() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ncheck:")[2].partition("\n\n")[0]
    assert "$(BIN)/lint-imports\n" in recipe


def test_the_rooms_as_they_are_pass(copy: Path) -> None:
    assert lint(copy)[0] == 0


@pytest.mark.parametrize(
    "line",
    [UPWARD, f"def planted():\n    {UPWARD}", TYPES_ONLY.format(module="detkit.train.trainer", name="Trainer")],
    ids=["at the top", "in a function", "for types only"],
)
def test_an_upward_import_is_caught(copy: Path, line: str) -> None:
    plant(copy / "detkit/losses/focal.py", line)
    code, said = lint(copy)
    assert code == 1
    assert "rooms import downwards BROKEN" in said
    assert "detkit.losses is not allowed to import detkit.train" in said


def test_a_circle_inside_a_room_is_caught_even_if_one_way_is_for_types_only(copy: Path) -> None:
    (copy / "detkit/losses/planted_a.py").write_text("from detkit.losses import planted_b\n", encoding="utf-8")
    (copy / "detkit/losses/planted_b.py").write_text("", encoding="utf-8")
    assert lint(copy)[0] == 0
    plant(copy / "detkit/losses/planted_b.py", TYPES_ONLY.format(module="detkit.losses", name="planted_a"))
    code, said = lint(copy)
    assert code == 1
    assert "rooms import downwards KEPT" in said
    assert "No cycles are allowed in detkit.losses." in said

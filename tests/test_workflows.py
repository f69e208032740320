"""The hosted CI: valid YAML that runs what the Makefile has, on the versions that pyproject.toml promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.check_docs import PATH

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROGRAMS = ("make", "python", ".venv/bin/python", "detkit")


def jobs(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"])


def steps(path: Path) -> list[dict[str, str]]:
    return [step for job in jobs(path).values() for step in job["steps"]]


def test_there_are_three_workflows() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "docs.yml", "wheels.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_says_when_where_and_with_which_rights(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content[True], "`on`, which YAML reads as true"
    assert content["permissions"] == {"contents": "read"}
    for name, job in content["jobs"].items():
        assert job["runs-on"], name
        assert "actions/checkout" in job["steps"][0]["uses"], name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_major_version(path: Path) -> None:
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_commands_targets_and_paths_exist(path: Path) -> None:
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert commands
    for command in commands:
        program, *words = command.split()
        assert program in PROGRAMS, command
        if program == "make":
            assert all(re.search(rf"^{word}:", MAKEFILE, re.MULTILINE) for word in words), command
        assert [name for name in PATH.findall(command) if not (ROOT / name).exists()] == []
    folders = [step["working-directory"] for step in steps(path) if "working-directory" in step]
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_versions_are_the_ends_of_the_promised_ranges() -> None:
    matrix = jobs(ROOT / ".github/workflows/ci.yml")["versions"]["strategy"]["matrix"]
    oldest, newest = matrix["torch"]
    assert newest == "torch torchvision"
    for requirement in oldest.split():
        assert f'"{requirement.replace("==", ">=").removesuffix(".*")}"' in PROJECT
    assert f'requires-python = ">={matrix["python"][0]}"' in PROJECT
    assert matrix["python"] == [f"3.{minor}" for minor in range(10, 14)]


def test_the_version_is_written_once() -> None:
    """pyproject.toml takes it from detkit/version.py; a citation names the version that was used."""
    assert "\nversion = " not in PROJECT.partition("[tool.")[0]
    assert 'version = { attr = "detkit.version.__version__" }' in PROJECT
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

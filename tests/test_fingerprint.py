"""What counts as the code of a run, and under which name."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from detkit import fingerprint as module
from detkit.config import load_config
from detkit.fingerprint import changes, digest, fingerprint, source_alone
from detkit.registry import SCHEDULES

QUICKSTART = Path(__file__).parents[1] / "configs/quickstart/shapes.yaml"
PART = """
import importlib.util, sys
from pathlib import Path
from detkit.registry import SCHEDULES
from detkit.train.schedule import Constant
{imports}

@SCHEDULES.register()
class Odd(Constant):
    def factor(self, step, total):
        {lazy}
        return 1.0
"""
BESIDE = "sys.path.insert(0, str(Path(__file__).parent))\n"
BY_PATH = """
spec = importlib.util.spec_from_file_location("fp_helper", Path(__file__).with_name("fp_helper.py"))
held = importlib.util.module_from_spec(spec)
spec.loader.exec_module(held)
"""


def code_of(*overrides: str, path: Path | None = None) -> dict[str, str]:
    """The fingerprint that a process of its own would take: nothing of these tests is loaded before or after."""
    before = list(sys.path)
    sys.path[:0] = [str(path)] if path else []
    try:
        with SCHEDULES.temporary():
            return fingerprint(load_config(QUICKSTART, overrides))
    finally:
        sys.path[:] = before
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if name.removeprefix("detkit_import_").startswith(("fp_", "same_"))]:
            del sys.modules[name]


def fingerprint_at_start() -> set[str]:
    return {f"{name}.py" for name in module.AT_START if name in sys.modules}


def foreign(code: dict[str, str]) -> set[str]:
    """What isn't detkit's own, without the files that this machine's Python loads at its start, if any."""
    return {name for name in code if not name.startswith("detkit/")} - fingerprint_at_start()


def write(folder: Path, imports: str = "", lazy: str = "pass", helper: str = "FACTOR = 1.0\n") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fp_part.py").write_text(PART.format(imports=imports, lazy=lazy))
    (folder / "fp_helper.py").write_text(helper)
    return f"imports=[{folder}/fp_part.py]"


def test_detkit_itself_counts_file_by_file_with_its_native_library() -> None:
    code = fingerprint(load_config(QUICKSTART))
    package = Path(module.__file__).parent
    own = {f"detkit/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    assert own <= code.keys()
    assert {f"detkit/{path.name.partition('.')[0]}" for path in module.native_libraries()} == (
        code.keys() - own - fingerprint_at_start()
    )
    assert source_alone(code).keys() == own


def test_an_edit_anywhere_in_detkit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(module.__file__).parent
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    copy = Path(shutil.copytree(package, tmp_path / "elsewhere" / "detkit", ignore=ignore))
    before = source_alone(fingerprint(load_config(QUICKSTART)))
    monkeypatch.setattr(module, "PACKAGE", copy)
    assert source_alone(fingerprint(load_config(QUICKSTART))) == before, "the folder is no part of a name"
    focal = copy / "losses" / "focal.py"
    focal.write_text(focal.read_text() + "# a comment\n")
    assert changes(before, source_alone(fingerprint(load_config(QUICKSTART)))) == ["detkit/losses/focal.py has changed"]


@pytest.mark.parametrize(
    ("imports", "lazy"),
    [
        (BESIDE + "import fp_helper", "pass"),
        (BESIDE + "from fp_helper import FACTOR", "pass"),
        (BESIDE, "import fp_helper"),
        (BESIDE + "importlib.import_module('fp_' + 'helper')", "pass"),
        (BY_PATH, "pass"),
    ],
    ids=["import", "from", "in a function", "by a computed name", "by its path"],
)
def test_a_helper_beside_an_imported_file_counts(tmp_path: Path, imports: str, lazy: str) -> None:
    entry = write(tmp_path, imports, lazy)
    before = code_of(entry)
    assert foreign(before) == {"fp_part.py", "fp_helper.py"}
    write(tmp_path, imports, lazy, helper="FACTOR = 2.0\n")
    assert changes(before, code_of(entry)) == ["fp_helper.py has changed"]


def test_a_module_beside_an_imported_module_counts_too(tmp_path: Path) -> None:
    (tmp_path / "fp_entry.py").write_text("import importlib\nNAME = importlib.import_module('fp_' + 'beside').NAME\n")
    (tmp_path / "fp_beside.py").write_text("NAME = 'relu'\n")
    before = code_of("imports=[fp_entry]", path=tmp_path)
    assert foreign(before) == {"fp_entry.py", "fp_beside.py"}


def test_what_python_loads_at_its_start_counts_as_it_may_replace_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "usercustomize.py"
    file.write_text("import torch\n")
    loaded = ModuleType("usercustomize")
    loaded.__file__ = str(file)
    before = fingerprint(load_config(QUICKSTART))
    monkeypatch.setitem(sys.modules, "usercustomize", loaded)
    assert changes(before, fingerprint(load_config(QUICKSTART))) == [
        "usercustomize.py takes part now and did not before"
    ]


def test_a_file_that_moved_is_the_same_and_one_beside_that_nobody_imports_is_left_out(tmp_path: Path) -> None:
    here, there = write(tmp_path / "here"), write(tmp_path / "there" / "deeper")
    assert foreign(code_of(here)) == {"fp_part.py"}
    assert code_of(here) == code_of(there)


def test_two_files_of_one_name_both_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/same.py").write_text("A = 1\n")
    (tmp_path / "b/same.py").write_text("B = 1\n")
    entry = f"imports=[{tmp_path}/a/same.py, {tmp_path}/b/same.py]"
    before = code_of(entry)
    (tmp_path / "b/same.py").write_text("B = 2\n")
    assert len(changes(before, code_of(entry))) == 1


def test_a_package_counts_by_its_modules_however_they_are_imported(tmp_path: Path) -> None:
    package = tmp_path / "fp_package"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "deep/__init__.py").touch()
    (package / "parts.py").write_text("from .deep import one\ndef late():\n    from fp_package import two\n")
    (package / "deep/one.py").write_text("from ..base import BASE\n")
    (package / "base.py").write_text("BASE = 1\n")
    (package / "two.py").write_text("TWO = 2\n")
    (package / "unused.py").write_text("")
    assert foreign(code_of("imports=[fp_package.parts]", path=tmp_path)) == {
        f"fp_package/{name}.py" for name in ("__init__", "parts", "deep/__init__", "deep/one", "base", "two")
    }


def test_an_installed_package_that_a_part_imports_is_one_entry(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "site-packages"
    (site / "fp_installed").mkdir(parents=True)
    (site / "fp_installed/__init__.py").write_text("from fp_installed import inner\n")
    (site / "fp_installed/inner.py").write_text("INNER = 1\n")
    entry = write(tmp_path, f"sys.path.insert(0, {str(site)!r})\nimport fp_installed, torch, numpy, json")
    before = code_of(entry)
    assert foreign(before) == {"fp_part.py", "installed fp_installed"}
    (site / "fp_installed/inner.py").write_text("INNER = 2\n")
    assert changes(before, code_of(entry)) == ["installed fp_installed has changed"]


def test_an_installed_package_that_the_config_imports_counts_file_by_file(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "fp_parts"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import fp_parts.one\n")
    (package / "one.py").write_text("ONE = 1\n")
    before = code_of("imports=[fp_parts.one]", path=package.parent)
    assert foreign(before) == {"fp_parts/__init__.py", "fp_parts/one.py"}
    (package / "one.py").write_text("ONE = 2\n")
    assert changes(before, code_of("imports=[fp_parts.one]", path=package.parent)) == ["fp_parts/one.py has changed"]


def test_all_files_of_a_plugin_count_loaded_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "fp_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "parts.py").write_text("")
    (package / "later.py").write_text("LATER = 1\n")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(module, "plugin_modules", lambda: ["fp_plugin.parts"])
    before = fingerprint(load_config(QUICKSTART))
    assert foreign(before) == {f"plugin fp_plugin/{name}.py" for name in ("__init__", "parts", "later")}
    (package / "later.py").write_text("LATER = 2\n")
    assert changes(before, fingerprint(load_config(QUICKSTART))) == ["plugin fp_plugin/later.py has changed"]


def test_what_changed_is_named_and_what_moved_is_not() -> None:
    old = {"same.py": "1", "edited.py": "2", "moved.py": "3", "gone.py": "4"}
    new = {"same.py": "1", "edited.py": "9", "renamed.py": "3", "new.py": "5"}
    assert changes(old, new) == [
        "edited.py has changed", "gone.py takes part no more", "new.py takes part now and did not before",
    ]  # fmt: skip
    swapped = {"a.py": "2", "b.py": "1"}
    assert len(changes({"a.py": "1", "b.py": "2"}, swapped)) == 2
    assert changes(old, dict(old)) == []
    assert digest(old) == digest(dict(reversed(old.items()))) != digest(new)

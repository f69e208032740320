"""What libraries print never comes before, or between, what detkit prints."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.utils.quiet import capture_output, from_library

ROOT = Path(__file__).resolve().parents[2]
QUICK = str(ROOT / "configs/quickstart/shapes.yaml")
NOISY = """
import os, warnings
from torch import Tensor, nn
from detkit.backbones.base import Backbone
from detkit.registry import BACKBONES
from detkit.structures import FeatureShape

print("imported")

@BACKBONES.register()
class Noisy(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 8, 1)
        self.out_shapes = {"c3": FeatureShape(4, 8)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.conv(images)
        os.write(2, b"from C++\\n")
        warnings.warn("old")
        if x.sum() > 1e9:
            x = 2 * x
        return {"c3": x}
"""


def detkit(*words: Any, **environment: Any) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "detkit", *words], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("noisy") / "noisy.py"
    path.write_text(NOISY)
    return str(path)


@pytest.mark.parametrize("words", [[], ["--verbose"]])
def test_the_table_comes_first_and_alone(noisy: Any, words: list[str]) -> None:
    done = detkit("check-part", "backbones", "Noisy", "--import", noisy, *words)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("backbone Noisy: ")
    assert all(line.startswith(("  ", "(", "backbone ")) for line in lines)
    (cause,) = (line for line in lines if "torch.export raises" in line)
    assert "noisy.py:21: if x.sum() > 1e9:" in cause
    printed = ("def forward" in done.stderr, "from C++" in done.stderr, "imported" in done.stderr)
    assert printed == ((True,) * 3 if words else (False,) * 3)
    if not words:
        assert not done.stderr
        assert "and its libraries printed" in lines[-1]
        assert "--verbose shows them" in lines[-1]


def test_warnings_of_libraries_stay_away_and_those_of_the_users_files_are_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import warnings; warnings.warn('of mine')")
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, warnings; from detkit.cli import main\n"
        "import detkit.config.cli as verb; run = verb.run_list\n"
        "def noisy(args):\n"
        "    warnings.warn_explicit('of torch', UserWarning, sys.modules['argparse'].__file__, 1)\n"
        "    warnings.warn_explicit('frozen', UserWarning, '<frozen importlib>', 1)\n"
        "    import mine\n"
        "    return run(args)\n"
        "verb.run_list = noisy; sys.exit(main(['list']))\n"
    )
    shown = {}
    for key in ("", "1"):
        environment = {**os.environ, "DETKIT_TRACEBACK": key}
        done = subprocess.run(
            [sys.executable, str(program)], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120
        )
        assert done.returncode == 0, done.stderr
        shown[key] = [text in done.stderr for text in ("of torch", "frozen", "of mine")]
    assert shown == {"": [False, False, True], "1": [True, True, True]}


def test_what_is_captured_is_all_that_was_written(capfd: pytest.CaptureFixture[str]) -> None:
    with capture_output() as said:
        print("python")
        print("errors", file=sys.stderr)
        os.write(1, b"descriptor\n")
    print("after")
    assert capfd.readouterr() == ("after\n", "")
    assert sorted(said.text.split()) == ["descriptor", "errors", "python"]


def test_an_error_inside_gives_the_console_back(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with capture_output():
            print("lost")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_whose_file_it_is() -> None:
    assert from_library(torch.__file__)
    assert from_library(warnings.__file__)
    assert not from_library(str(ROOT / "detkit/cli.py"))
    assert not from_library("my_net.py")

"""`detkit new`: every kind generated, tested and trained outside the checkout; names that are refused."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import detkit
from detkit.cli import main
from detkit.config import load_config
from detkit.registry import CLASS_LOSSES, REGISTRIES
from detkit.scaffold.cli import KINDS, new_project
from detkit.train.cli import run_name
from tests.refusals import Refuses

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_kind_passes_its_own_test_in_an_empty_folder(empty: Any) -> None:
    """Each of the generated tests trains two steps, so this is also the proof that every config trains."""
    for kind in KINDS:
        name = f"own_{kind.replace('-', '_')}"
        assert main(["new", kind, name, "--folder", "my projects"]) == 0
        files = {path.name for path in (empty / "my projects" / name).iterdir()}
        assert files == {f"{name}.py", "config.yaml", "README.md", f"test_{name}.py"}
        for path in (empty / "my projects" / name).iterdir():
            text = path.read_text()
            assert "my_" not in text.replace("my_net", ""), path
            assert "My" not in text, path
            assert f"projects/{name}" in text or path.suffix == ".py", path
    where = {**os.environ, "PYTHONPATH": str(Path(detkit.__file__).parents[1])}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "my projects"]
    done = subprocess.run(words, env=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(".") >= 2 * len(KINDS)


def test_what_is_written_names_the_part_and_the_ways_on(empty: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "backbone", "my_net"]) == 0
    out = capsys.readouterr().out
    for line in ("projects/my_net/my_net.py", "pytest projects/my_net", "detkit train projects/my_net/config.yaml"):
        assert line in out
    with REGISTRIES[0].temporary():
        config = load_config("projects/my_net/config.yaml")
    assert config.backbone.type == "MyNet"
    assert config.origin("neck.channels").startswith("detkit:scaffold/base.yaml:")


@pytest.mark.parametrize(("folder", "name"), [("projects", "my_loss2"), ("my_losses", "sharp"), ("MyLoss", "my_loss")])
def test_a_name_or_folder_that_holds_the_name_of_the_template_is_put_in_once(
    empty: Any, folder: str, name: str
) -> None:
    target = new_project("loss", name, Path(folder))
    first = f"# detkit train {folder}/{name}/config.yaml"
    assert (target / "config.yaml").read_text().splitlines()[0] == first
    assert (target / f"test_{name}.py").read_text().startswith(f'"""Run with: pytest {folder}/{name}"""')
    with CLASS_LOSSES.temporary():
        load_config(target / "config.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "MyNet",
        "my-net",
        "3d",
        "../up",
        "class",
        "torch",
        "random",
    ],
)
def test_names_that_can_not_be_are_refused_before_anything_is_written(refuses: Refuses, empty: Any, name: str) -> None:
    with refuses(ValueError):
        new_project("backbone", name, Path("projects"))
    assert not list(empty.iterdir())


def test_a_class_that_is_registered_is_refused_with_its_place(empty: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "neck", "f_p_n"]) == 2
    assert "'f_p_n' would register FPN, which is already in necks, at " in capsys.readouterr().err
    assert main(["new", "backbone", "f_p_n"]) == 0, "no backbone has that name"


def test_nothing_is_overwritten(empty: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "projects/my_net").mkdir(parents=True)
    (empty / "projects/my_net/notes.txt").write_text("mine")
    assert main(["new", "backbone", "my_net"]) == 2
    assert "projects/my_net exists already and was not changed" in capsys.readouterr().err
    assert [p.name for p in (empty / "projects/my_net").iterdir()] == ["notes.txt"]
    (empty / "file").write_text("")
    assert main(["new", "backbone", "my_net", "--folder", "file"]) == 2
    assert "--folder: file is a file" in capsys.readouterr().err


def test_the_short_run_differs_from_the_demo_in_size_alone() -> None:
    """The packaged base and the quickstart are the same detector, so that what is said of one holds for the other."""
    short = dict(load_config(ROOT / "detkit/scaffold/base.yaml").leaves())
    demo = dict(load_config(ROOT / "configs/quickstart/shapes.yaml").leaves())
    assert {key for key in {*short, *demo} if short.get(key) != demo.get(key)} == {
        "head.num_convs", "data.train.dataset.num_images", "data.train.dataset.size", "data.val.dataset.num_images",
        "data.val.dataset.size", "data.loader.num_workers", "optimizer.lr", "schedule.warmup_iterations",
        "train.iterations", "train.ema_decay", "train.eval_every", "train.checkpoint_every",
    }  # fmt: skip


def test_every_project_gets_a_run_folder_of_its_own(tmp_path: Path) -> None:
    assert run_name(Path("configs/shapes.yaml")) == "shapes"
    assert run_name(tmp_path / "projects/my_net/config.yaml") == "my_net"

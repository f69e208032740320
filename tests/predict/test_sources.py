"""Which files a command reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from detkit.predict.sources import find_images, unique_names
from detkit.utils.outputs import Ledger, write_png
from tests.refusals import Refuses


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """a.png, deep/b.png, deep/er/a.jpg, a hidden folder, a text, a link to a file and one that leads back."""
    root = tmp_path / "photos"
    for name in ("a.png", "deep/b.png", "deep/er/a.jpg", ".hidden/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    (root / "deep" / "notes.txt").touch()
    (root / "deep" / "again.png").symlink_to(root / "a.png")
    (root / "deep" / "loop").symlink_to(root)
    return root


def names(paths: list[str], root: Path, **more: object) -> list[str]:
    return [os.path.relpath(path, root) for path in find_images(paths, **more)]  # type: ignore[arg-type]


def test_folders_below_are_read_when_asked_for(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert names([str(photos)], photos, recursive=True) == ["a.png", "deep/b.png", "deep/er/a.jpg"]
    assert f"note: {photos}: skipped 1 file that can't be read as images: notes.txt" in capsys.readouterr().err
    assert names([str(photos)], photos) == ["a.png"]
    assert "1 folder below it: deep (--recursive reads folders below)" in capsys.readouterr().err


def test_what_detkit_wrote_below_is_no_photo(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(photos / "deep")
    write_png(photos / "deep" / "crops" / "cat" / "x.png", Image.new("RGB", (8, 8)).save, ledger=ledger)
    assert names([str(photos)], photos, recursive=True) == ["a.png", "deep/b.png", "deep/er/a.jpg"]
    assert "skipped: 1 file in" in capsys.readouterr().out
    found = names([str(photos)], photos, recursive=True, output=photos / "deep" / "er")
    assert found == ["a.png", "deep/b.png"]


def test_a_tree_without_images_is_named(photos: Path, refuses: Refuses) -> None:
    (photos / "only").mkdir()
    (photos / "only" / "text.md").touch()
    with refuses(FileNotFoundError):
        names([str(photos / "only")], photos, recursive=True)


def test_names_of_all_folders_differ() -> None:
    files = [Path("x/a.jpg"), Path("y/A.png"), Path("y/b.png"), Path("z/a.tif")]
    assert unique_names(files) == ["a.png", "A-2.png", "b.png", "a-3.png"]

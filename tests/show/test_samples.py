"""`detkit data show` writes a page of images before and after augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detkit.cli import main


def test_a_config_shows_every_image_and_its_draws(folder: Any, tmp_path: Path) -> None:
    page = tmp_path / "s.html"
    assert main(["data", "show", str(folder.config), "--images", "2", "--draws", "2", "--html", str(page)]) == 0
    text = page.read_text()
    assert text.count("<section>") == 2
    assert text.count("on disk: 96x64, 1 object<") == 2
    assert text.count("epoch 0: 96x64, 1 object<") == text.count("epoch 1: 96x64, 1 object<") == 2


def test_lost_objects_are_counted(folder: Any, tmp_path: Path) -> None:
    folder.write("train", [[[8, 8, 40, 30], [8, 8, 0.8, 30]]])
    page = tmp_path / "s.html"
    assert main(["data", "show", str(folder.config), "--draws", "1", "--html", str(page)]) == 0
    assert "epoch 0: 96x64, 1 object, 1 lost" in page.read_text()


def test_data_without_a_config(folder: Any, tmp_path: Path) -> None:
    page = tmp_path / "s.html"
    assert main(["data", "show", str(folder.root), "--split", "val", "--html", str(page)]) == 0
    assert "epoch" not in page.read_text()


def test_an_unreadable_image_is_named_and_the_others_shown(folder: Any, tmp_path: Path) -> None:
    folder.damage("train", 0)
    page = tmp_path / "s.html"
    assert main(["data", "show", str(folder.config), "--draws", "0", "--html", str(page)]) == 0
    assert page.read_text().count("can&#x27;t be read: ") == 1
    assert page.read_text().count("on disk") == 2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--split", "trian"], "--split: 'trian' is not among train, val; did you mean train?"),
        (["--class", "cats"], "--class: 'cats' is no class of "),
        (["--images", "0"], "--images: 0 must be at least 1"),
    ],
)
def test_wrong_words(
    folder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    assert main(["data", "show", str(folder.config), *words, "--html", str(tmp_path / "s.html")]) == 2
    assert error in capsys.readouterr().err

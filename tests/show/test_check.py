"""`detkit data check` on data and on configs: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detkit.cli import main
from detkit.data.datasets.auto import find_data
from tests.data.doctor.planted import Planted
from tests.refusals import Refuses


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with two faults: an unusable box, and a leak."""
    planted = Planted(tmp_path / "data")
    planted.categories[1] = "<b>apple"
    planted.boxes["train"][10].append((1, 10, 10, 0, 20))
    planted.copy(("train", 3), ("val", 5))
    planted.write()
    return planted.root


def check(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["data", "check", *map(str, words)])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_folder_is_found_and_checked(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = check(capsys, data)
    assert (code, err) == (1, "")
    assert out.splitlines()[0].startswith(f"{data}: {find_data(data).format}, because of ")
    assert "warning: images of one split are copies of images of another, so its AP is too high (1 case)" in out
    assert "  train: train3.jpg: is val5.jpg of val\n" in out
    assert out.count("unusable") == 1  # the report of the split names it, the findings do not repeat it
    assert out.splitlines()[-2:] == ["found: 1 error, 1 warning", "1 box can't be used"]


def test_every_finding_is_in_the_json_file(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    for _ in range(2):  # detkit replaces its own file
        check(capsys, data, "--json", file)
    content = json.loads(file.read_text())
    assert content["counts"] == {"error": 1, "warning": 1, "note": 0}
    kinds = {finding["kind"]: finding for finding in content["findings"]}
    assert set(kinds) == {"unusable-box", "leak"}
    (case,) = kinds["unusable-box"]["cases"]
    assert case == {
        "split": "train", "file": str(data / "train/train10.jpg"), "box": 3, "text": "<b>apple: zero area",
    }  # fmt: skip


def test_the_page_has_a_picture_of_each_and_escapes_names(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    check(capsys, data, "--html", file)
    page = file.read_text()
    assert page.count("<img ") == 3  # the unusable box, and both images of the leak
    assert "&lt;b&gt;apple: zero area" in page
    assert "<b>apple" not in page
    assert "http" not in page.partition("<style>")[0].replace("http-equiv", "")
    assert check(capsys, data, "--html", file)[0] == 1  # its own page is replaced
    file.write_text(page + "mine")
    code, _, err = check(capsys, data, "--html", file)
    assert (code, "detkit did not write it" in err, file.read_text()) == (2, True, page + "mine")


def test_a_clean_copy_is_written_and_found_clean(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = check(capsys, data, "--fix", tmp_path / "clean")
    assert code == 1
    assert "unusable boxes are left out: 1" in out
    assert json.loads((tmp_path / "clean/fixes.json").read_text())["changes"]["unusable boxes are left out"] == [
        f"{data}/train/train10.jpg, box 3"
    ]
    code, out, _ = check(capsys, tmp_path / "clean")
    assert (code, out.splitlines()[-1]) == (0, "every image and every object can be used")


def test_a_clean_copy_needs_a_new_folder_outside(data: Path, tmp_path: Path, refuses: Refuses) -> None:
    from detkit.show.check import run

    for folder in (data, data / "clean"):
        with refuses(ValueError):
            run(arguments(data, fix=folder))


def test_what_is_neither_data_nor_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = check(capsys, tmp_path / "photos")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: no data set {tmp_path}/photos is there, and no config: ")


def test_overrides_need_a_config(data: Path, refuses: Refuses) -> None:
    from detkit.show.check import run

    with refuses(ValueError):
        run(arguments(data, overrides=["seed=1"]))


def arguments(data: Path, **more: Any) -> Any:
    import argparse

    values = {"overrides": [], "html": None, "json": None, "fix": None, "no_cache": False, "run": None, "suspects": 100}
    return argparse.Namespace(data=str(data), **{**values, **more})


def test_a_config_has_a_table_of_each_class_at_the_networks_size(
    folder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("train", [[[8, 8, 40, 30], [8, 8, 3, 3]]] * 3)
    code, out, _ = check(capsys, folder.config)
    row = next(line.split() for line in out.splitlines() if line.startswith("  cat"))
    assert row[1] == "6"
    assert "warning: classes have few training boxes (1 case)\n  train: cat: 6 boxes" in out
    assert "small-at-network" not in out
    assert "cat: 50 % of 6 boxes are below 8 px" in out
    assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_a_screen(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], browser: Any, width: int
) -> None:
    check(capsys, data, "--html", tmp_path / "page.html")
    page = browser.new_page(viewport={"width": width, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert errors == []
    page.close()

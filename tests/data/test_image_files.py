"""Missing images: what is near is named."""

import unicodedata
from pathlib import Path

import pytest

from detkit.data.datasets.image_files import (
    Folders,
    check_files,
)
from tests.refusals import Refuses

NFC, NFD = (unicodedata.normalize(form, "Größe.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ("A.png", "a.PNG"),
        (NFD, NFC),
        (NFC, NFD),
        ("a.jfif", "a.jpg"),
        ("sub/a.png", "a.png"),
        ("a.png", "/home/someone/set/a.png"),
        ("a.png", "C:\\Users\\me\\a.png"),
        ("a.png", "images/a.png"),
        ("b.png", "a.png"),
    ],
)
def test_the_near_file_is_named(refuses: Refuses, tmp_path: Path, there: str, wanted: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_bytes(b"")
    folders = Folders()
    path = folders.image_path(str(tmp_path), wanted)
    with refuses(FileNotFoundError):
        check_files([path], "set", str(tmp_path), folders)


def test_backslashes_are_read_unless_a_file_has_that_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.png").write_bytes(b"")
    (tmp_path / "b\\c.png").write_bytes(b"")
    assert Folders().image_path(str(tmp_path), "sub\\a.png") == str(tmp_path / "sub/a.png")
    assert Folders().image_path(str(tmp_path), "b\\c.png") == str(tmp_path / "b\\c.png")


def test_a_folder_that_is_not_there_is_named(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(FileNotFoundError):
        check_files([f"{tmp_path}/no/a.png", f"{tmp_path}/no/b.png"], "set", f"{tmp_path}/no")


def test_many_missing_files_are_counted(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(FileNotFoundError):
        check_files([f"{tmp_path}/{i}.png" for i in range(30)], "set")


def test_links_and_detours_to_one_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png"), f"{tmp_path}/x/../a.png", str(tmp_path / "link.png"), str(tmp_path / "b.png")]
    assert list(Folders().duplicates(paths).values()) == [[0, 1, 2]]


def test_images_that_no_annotation_lists_are_found(tmp_path: Path) -> None:
    for name in ("a.png", "b.PNG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert Folders().unlisted_images(str(tmp_path), [str(tmp_path / "a.png")]) == [str(tmp_path / "b.PNG")]

"""Missing images: what is near is named."""

import unicodedata
from pathlib import Path

import pytest

from detkit.data.datasets.files import Folders, check_files, image_path, unlisted, ways_to_one_file

NFC, NFD = (unicodedata.normalize(form, "Größe.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("there", "wanted", "message"),
    [
        ("A.png", "a.PNG", r"there is .*/A.png, which differs in upper and lower case"),
        (NFD, NFC, r"the same name in another Unicode form: decomposed \(NFD\) on disk, composed \(NFC\) in the ann"),
        (NFC, NFD, r"composed \(NFC\) on disk, decomposed \(NFD\) in the annotation"),
        ("a.jfif", "a.jpg", r"there is .*/a.jfif, with another suffix: .jfif instead of .jpg"),
        ("sub/a.png", "a.png", r"there is .*/sub/a.png, in another folder"),
        ("a.png", "/home/someone/set/a.png", r"/home/someone/set/a.png \(there is .*/a.png, in another folder"),
        ("a.png", "C:\\Users\\me\\a.png", r"there is .*/a.png, in another folder"),
        ("a.png", "images/a.png", r"there is .*/a.png, in another folder"),
        ("b.png", "a.png", r"1 of 1 image is missing: .*/a.png$"),
    ],
)
def test_the_near_file_is_named(tmp_path: Path, there: str, wanted: str, message: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_bytes(b"")
    folders = Folders()
    path = image_path(str(tmp_path), wanted, folders)
    with pytest.raises(FileNotFoundError, match=message):
        check_files([path], "set", str(tmp_path), folders)


def test_backslashes_are_read_unless_a_file_has_that_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.png").write_bytes(b"")
    (tmp_path / "b\\c.png").write_bytes(b"")
    assert image_path(str(tmp_path), "sub\\a.png", Folders()) == str(tmp_path / "sub/a.png")
    assert image_path(str(tmp_path), "b\\c.png", Folders()) == str(tmp_path / "b\\c.png")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"2 of 2 images are missing \({tmp_path}/no is no folder\): .*a.png"):
        check_files([f"{tmp_path}/no/a.png", f"{tmp_path}/no/b.png"], "set", f"{tmp_path}/no")


def test_many_missing_files_are_counted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"30 of 30 images are missing: .*4\.png and 25 more"):
        check_files([f"{tmp_path}/{i}.png" for i in range(30)], "set")


def test_links_and_detours_to_one_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png"), f"{tmp_path}/x/../a.png", str(tmp_path / "link.png"), str(tmp_path / "b.png")]
    assert list(ways_to_one_file(paths, Folders()).values()) == [[0, 1, 2]]


def test_images_that_no_annotation_lists_are_found(tmp_path: Path) -> None:
    for name in ("a.png", "b.PNG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert unlisted(str(tmp_path), [str(tmp_path / "a.png")], Folders()) == [str(tmp_path / "b.PNG")]

"""Public data sets, from a server on this machine."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from detkit.cli import main
from detkit.data import fetch
from detkit.data.fetch import PUBLIC_SETS, PublicSet, describe_sets, fetch_set
from tests.data.writers.sets import Picture, coco_set
from tests.refusals import Refuses
from tests.web import Web


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    """A small COCO set as a zip file with a folder, as a repository's."""
    coco_set(tmp_path / "set", ["a"], [Picture("1.png", [("a", 1.0, 2.0, 10.0, 20.0)])])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for path in sorted((tmp_path / "set").rglob("*")):
            file.write(path, f"set-main/{path.relative_to(tmp_path / 'set')}")
    return content.getvalue()


def test_the_list_has_licence_and_address_of_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == describe_sets()
    assert all(s.licence and s.content and s.url.startswith("https:") for s in PUBLIC_SETS.values())


def test_a_set_is_downloaded_checked_unpacked_and_read(
    web: Web, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(archive).hexdigest()
    web.files["/set.zip"] = archive
    monkeypatch.setitem(PUBLIC_SETS, "mine", PublicSet(f"{web.url}/set.zip", "MIT", "an image", sha256=digest))
    assert main(["data", "fetch", "mine", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert digest in text
    assert "1 image (0 without objects); 1 box: a 1" in text
    assert (tmp_path / "out/set-main/images/1.png").is_file()


def test_a_wrong_sum_leaves_nothing(web: Web, archive: bytes, tmp_path: Path, refuses: Refuses) -> None:
    web.files["/set.zip"] = archive
    with pytest.raises(OSError, match="not with 00000000"):
        fetch_set(f"{web.url}/set.zip", tmp_path / "out", "00000000")
    assert not (tmp_path / "out").exists()
    with refuses(ValueError):
        fetch_set("bcd", tmp_path / "out")


def test_no_file_of_an_archive_leaves_the_folder(web: Web, tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("../../evil.txt", "x")
    web.files["/a.zip"] = content.getvalue()
    fetch_set(f"{web.url}/a.zip", tmp_path / "zip")
    assert (tmp_path / "zip/evil.txt").is_file()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../evil.txt"), io.BytesIO())
    web.files["/a.tar"] = content.getvalue()
    with pytest.raises(ValueError, match="can't be unpacked"):
        fetch_set(f"{web.url}/a.tar", tmp_path / "tar")
    assert not list(tmp_path.glob("evil.txt"))
    assert not (tmp_path / "tar").exists()


def test_what_is_no_archive_or_too_large_is_refused(
    web: Web, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["/a.zip"] = b"PK no zip"
    with pytest.raises(ValueError, match="neither a zip nor a tar file"):
        fetch_set(f"{web.url}/a.zip", tmp_path / "out")
    web.files["/b.zip"] = archive
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(ValueError, match="MB left"):
        fetch_set(f"{web.url}/b.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()

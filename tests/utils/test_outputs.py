"""What detkit may write over, and what it says where it may not."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from detkit.utils.outputs import (
    NOTES,
    Ledger,
    check_can_write,
    check_output_file,
    is_marked,
    json_name,
    replacing,
    short_name,
    write_marked_json,
    write_text,
)
from tests.refusals import Refuses

BYTES = b"b\xc3\xa8\xdf\xe4.png"


def test_a_file_that_detkit_wrote_is_replaced_and_one_that_was_changed_is_not(refuses: Refuses, tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    write_marked_json(check_output_file("--json", path), {"ap": 0.5})
    assert json.loads(path.read_text(encoding="utf-8"))["ap"] == 0.5
    check_output_file("--json", path)
    path.write_text(path.read_text(encoding="utf-8").replace("0.5", "0.6"), encoding="utf-8")
    with refuses(ValueError):
        check_output_file("--json", path)


def test_what_a_user_has_is_never_an_output(refuses: Refuses, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text("[1]", encoding="utf-8")
    (tmp_path / "link.json").symlink_to(mine)
    (tmp_path / "hard.json").hardlink_to(mine)
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "gone")
    for name in (
        "mine.json",
        "link.json",
        "hard.json",
        "../" + tmp_path.name + "/mine.json",
        "nowhere.json",
        ".",
        "mine.json/figures.json",
        "x" * 300,
    ):
        with refuses((ValueError, OSError)):
            check_output_file("--json", tmp_path / name, inputs=[mine])
    assert mine.read_text(encoding="utf-8") == "[1]"


def test_an_error_while_writing_leaves_all_as_it_was(refuses: Refuses, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise OSError(errno.ENOSPC, "full")

    with refuses(OSError):
        write_half()
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_temporary_file_takes_nobody_s_place(tmp_path: Path) -> None:
    mine = tmp_path / f".detkit-{os.getpid()}-0.tmp"
    mine.write_text("mine", encoding="utf-8")
    write_text(tmp_path / "a.txt", "text")
    assert mine.read_text(encoding="utf-8") == "mine"


def test_a_ledger_that_is_damaged_owns_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    write_text(tmp_path / "a.txt", "text", ledger=ledger)
    assert Ledger(tmp_path).owns("a.txt")
    for text in ("", "[]", '{"files": 3}', '{"files": {"a.txt": 3}}', "\xff"):
        ledger.path.write_text(text, encoding="latin-1")
        assert not Ledger(tmp_path).owns("a.txt")


def test_notes_of_many_files_wait_for_each_other_and_outlive_the_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, every=1e9)
    for name in ("a", "b", "c"):
        write_text(tmp_path / name, name, ledger=ledger)
    assert set(json.loads(ledger.path.read_text())["files"]) == {"a"}
    with (tmp_path / NOTES).open("a") as notes:
        notes.write('["a", "half a li')  # killed in the midst of it
    assert all(Ledger(tmp_path).owns(name) for name in ("a", "b", "c"))
    ledger.flush()
    assert not (tmp_path / NOTES).exists()
    assert all(Ledger(tmp_path).owns(name) for name in ("a", "b", "c"))


def test_names_that_are_not_utf8_go_into_json_whole() -> None:
    entry = json_name(os.fsdecode(BYTES))
    assert entry == {"file_name": r"bè\xdf\xe4.png", "file_name_hex": BYTES.hex()}
    json.dumps(entry).encode("ascii")
    assert bytes.fromhex(entry["file_name_hex"]) == BYTES
    assert json_name("è.png") == {"file_name": "è.png"}


def test_a_name_is_cut_to_what_a_file_system_takes() -> None:
    assert short_name("a", "-2.png") == "a-2.png"
    for stem in ("x" * 300, "\u732b" * 200, os.fsdecode(b"\xdf" * 300)):
        assert len(os.fsencode(short_name(stem, "-2.png"))) <= 255


def test_text_that_utf8_lacks_becomes_an_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "b\udcdf\u732b")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "b\\udcdf\u732b"


def test_a_mark_is_of_its_own_content(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"written_by": {"detkit": "0.1.0", "sha256": "0"}}', encoding="utf-8")
    assert not is_marked(tmp_path / "a.json")


@pytest.mark.parametrize("address", ["s3://bucket/run", "https://host/run", "hf://owner/name"])
def test_an_address_is_no_folder_to_write_into(
    address: str, refuses: Refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with refuses(ValueError):
        check_can_write("--output", Path(address))
    assert list(tmp_path.iterdir()) == []

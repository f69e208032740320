"""Downloads from a real server on the loopback interface that breaks, lies and refuses."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from detkit.hub import local_path
from detkit.hub.cache import cache_folder, place_of
from detkit.hub.download import FetchError, fetch
from tests.refusals import Refuses
from tests.web import Web, redirect, stall, status, text

CONTENT = bytes(range(256)) * 4000  # 1 MB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def below_cache() -> list[str]:
    """The files of the cache but for locks."""
    files = (path for path in cache_folder().rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(path.name for path in files)


def test_a_file_is_fetched_once_and_recorded(web: Web) -> None:
    web.files["/models/a.bin"] = CONTENT
    found = local_path(f"{web.url}/models/a.bin")
    assert found.read_bytes() == CONTENT
    assert found.is_relative_to(cache_folder())
    assert below_cache() == ["a.bin", "a.bin.sha256"]
    assert Path(f"{found}.sha256").read_text(encoding="utf-8") == f"{DIGEST}  a.bin\n"
    del web.files["/models/a.bin"]
    assert local_path(f"{web.url}/models/a.bin") == found
    assert len(web.requests) == 1


def test_a_broken_download_is_resumed_within_a_call(web: Web) -> None:
    web.files["/a.bin"] = CONTENT
    web.breaks["/a.bin"] = [1000, 300_000]
    assert local_path(f"{web.url}/a.bin").read_bytes() == CONTENT
    assert web.gets("/a.bin") == ["", "bytes=1000-", "bytes=301000-"]


def test_a_broken_download_is_resumed_by_the_next_call(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files["/a.bin"] = CONTENT
    web.breaks["/a.bin"] = [500_000]
    monkeypatch.setattr("detkit.hub.download.ATTEMPTS", 1)
    with pytest.raises(FetchError, match="500000 bytes are kept"):
        local_path(f"{web.url}/a.bin")
    assert "a.bin" not in below_cache()
    assert local_path(f"{web.url}/a.bin#sha256={DIGEST}").read_bytes() == CONTENT
    assert web.gets("/a.bin") == ["", "bytes=500000-"]
    assert below_cache() == ["a.bin", "a.bin.sha256"]


@pytest.mark.parametrize("has_tags", [True, False])
def test_a_file_that_changed_in_between_is_not_mixed(web: Web, monkeypatch: pytest.MonkeyPatch, has_tags: bool) -> None:
    web.has_tags = has_tags
    web.files["/a.bin"] = CONTENT
    web.breaks["/a.bin"] = [500_000]
    monkeypatch.setattr("detkit.hub.download.ATTEMPTS", 1)
    with pytest.raises(FetchError):
        local_path(f"{web.url}/a.bin")
    web.files["/a.bin"] = other = CONTENT[::-1]
    assert local_path(f"{web.url}/a.bin").read_bytes() == other


def test_a_part_longer_than_the_file_begins_again(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files["/a.bin"] = CONTENT
    web.breaks["/a.bin"] = [1000]
    monkeypatch.setattr("detkit.hub.download.ATTEMPTS", 1)
    with pytest.raises(FetchError):
        local_path(f"{web.url}/a.bin")
    part = place_of(f"{web.url}/a.bin").with_name("a.bin.part")
    part.write_bytes(b"x" * (len(CONTENT) + 1))
    assert local_path(f"{web.url}/a.bin").read_bytes() == CONTENT


def test_another_hash_leaves_nothing(web: Web, refuses: Refuses) -> None:
    web.files["/a.bin"] = CONTENT
    with refuses(FetchError, hide=r"127\.0\.0\.1_\d+"):
        local_path(f"{web.url}/a.bin#sha256=0123456789abcdef")
    assert below_cache() == []


def test_a_fragment_that_is_no_hash(web: Web, refuses: Refuses) -> None:
    with refuses(ValueError):
        local_path(f"{web.url}/a.bin#sha256=12")
    assert web.requests == []


def test_a_file_of_the_cache_that_changed_is_refused(web: Web, refuses: Refuses) -> None:
    web.files["/a.bin"] = CONTENT
    found = local_path(f"{web.url}/a.bin")
    found.write_bytes(CONTENT[:-1])
    with refuses(ValueError, hide=r"127\.0\.0\.1_\d+"):
        local_path(f"{web.url}/a.bin")
    found.unlink()
    assert local_path(f"{web.url}/a.bin").read_bytes() == CONTENT


def test_a_file_put_there_by_hand_is_taken_and_checked(web: Web) -> None:
    path = place_of(f"{web.url}/a.bin")
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert local_path(f"{web.url}/a.bin#sha256={DIGEST}") == path
    with pytest.raises(ValueError, match="is not the file of"):
        local_path(f"{web.url}/a.bin#sha256={'0' * 64}")
    assert web.requests == []


@pytest.mark.parametrize("code", [401, 403, 404, 503])
def test_a_refusal_names_address_reason_and_place(web: Web, refuses: Refuses, code: int) -> None:
    web.answers["/a.bin"] = status(code)
    with refuses(FetchError, hide=r"127\.0\.0\.1_\d+"):
        local_path(f"{web.url}/a.bin")
    assert below_cache() == []
    assert len(web.requests) == (4 if code == 503 else 1)


def test_a_web_page_in_place_of_the_file(web: Web, refuses: Refuses) -> None:
    web.answers["/a.pth"] = text(b"\n<!DOCTYPE html><html><title>Log in</title></html>")
    with refuses(FetchError, hide=r"127\.0\.0\.1_\d+"):
        local_path(f"{web.url}/a.pth")
    assert below_cache() == []
    web.files["/a.html"] = b"<html>"
    assert local_path(f"{web.url}/a.html").read_bytes() == b"<html>"


def test_an_empty_file_is_not_kept(web: Web) -> None:
    """It would stand in the cache for the file for good."""
    web.files["/a.bin"] = b""
    with pytest.raises(FetchError, match="the server sent an empty file"):
        local_path(f"{web.url}/a.bin")
    assert below_cache() == []


def test_a_server_that_falls_silent(web: Web, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.hub.download.TIMEOUT", 0.2)
    monkeypatch.setattr("detkit.hub.download.ATTEMPTS", 2)
    web.answers["/a.bin"] = stall(0.5)
    with refuses(FetchError, hide=r"127\.0\.0\.1_\d+"):
        local_path(f"{web.url}/a.bin")


def test_nobody_listens(web: Web, refuses: Refuses) -> None:
    with refuses(FetchError, hide=r"127\.0\.0\.1_1"):
        local_path("http://127.0.0.1:1/a.bin")


def test_a_redirect_is_followed_and_one_in_a_circle_reported(web: Web) -> None:
    web.files["/real.bin"] = CONTENT
    web.answers["/a.bin"] = redirect("/real.bin")
    found = local_path(f"{web.url}/a.bin")
    assert (found.name, found.read_bytes()) == ("a.bin", CONTENT)
    web.answers["/loop.bin"] = redirect("/loop.bin")
    with pytest.raises(FetchError, match="loop"):
        local_path(f"{web.url}/loop.bin")
    web.answers["/local.bin"] = redirect("file:///etc/passwd")
    with pytest.raises(FetchError, match="not allowed"):
        local_path(f"{web.url}/local.bin")


@pytest.mark.parametrize(
    "tail",
    [
        "../../../etc/passwd",
        "%2e%2e/%2e%2e/x.bin",
        "a/..%2f..%2fx.bin",
        "..",
        "a\\..\\..\\x",
        "con:x?y=../../z",
        "x" * 300,
    ],
)
def test_no_name_leads_out_of_the_cache(web: Web, tail: str) -> None:
    path = place_of(f"https://example.org/m/{tail}")
    assert path.resolve().is_relative_to(cache_folder().resolve() / "https" / "example.org")
    assert ".." not in path.parts
    assert len(os.fsencode(path.name)) < 250


def test_what_follows_the_question_mark_counts() -> None:
    places = {place_of(f"https://h.org/a.bin{query}") for query in ("", "?v=1", "?v=2")}
    assert len(places) == 3
    assert {place.name for place in places} == {"a.bin"}
    assert place_of("https://user:secret@h.org/a.bin") == place_of("https://h.org/a.bin")


def _fetch_in_process(url: str) -> str:
    return str(local_path(url))


def test_two_processes_share_one_download(web: Web) -> None:
    web.files["/a.bin"] = CONTENT
    started = threading.Event()
    plain = web.files

    class Slow(dict[str, bytes]):
        def __getitem__(self, path: str) -> bytes:
            started.wait(0.3)
            return plain[path]

    web.files = Slow(plain)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(_fetch_in_process, [f"{web.url}/a.bin"] * 2)
    assert len(set(found)) == 1
    assert len(web.requests) == 1


def test_a_cache_that_can_not_be_written(tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DETKIT_CACHE", str(tmp_path / "file"))
    with refuses(OSError):
        local_path("http://127.0.0.1:1/a.bin")


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "detkit"
    monkeypatch.setenv("DETKIT_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def test_a_full_disk_is_no_fault_of_the_network(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files["/a.bin"] = CONTENT

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detkit.hub.download._copy", full)
    with pytest.raises(OSError, match="No space") as info:
        fetch(f"{web.url}/a.bin", cache_folder() / "a.bin")
    assert not isinstance(info.value, FetchError)

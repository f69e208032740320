"""Shards that are read from a web server or an object store, without a copy."""

from __future__ import annotations

import logging
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.datasets.shard_files import expand_braces, find_shards
from detkit.data.loader import LoaderOptions, build_train_loader
from detkit.data.scan import scan_images
from detkit.data.writers import shards as writer
from detkit.data.writers.convert import Format, convert
from detkit.hub import ranges
from detkit.hub.download import FetchError
from detkit.registry import DATASETS
from tests import web as servers
from tests.refusals import Refuses
from tests.web import Web, serving

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
FORMATS: list[Format] = ["parquet", "webdataset"]
COUNT = 24


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(writer, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(writer, "GROUP_BYTES", 20_000)
    monkeypatch.setattr(ranges, "PAUSE", 0.0)
    monkeypatch.setattr("detkit.data.datasets.shard_files.AHEAD", 2048)


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.fixture
def fresh(web: Web) -> Web:
    """The server as it was before other tests."""
    web.files, web.answers, web.breaks, web.requests = {}, {}, {}, []
    web.has_tags = web.has_ranges = web.has_conditions = True
    return web


def published(web: Web, folder: Path, to: Format) -> tuple[DetectionDataset, list[str]]:
    """Shards on this machine, and the addresses at which the server has the same files."""
    node = convert({"train": ShapesDataset(num_images=COUNT, size=96)}, folder, to).nodes["train"]
    data: Any = DATASETS.build(node)
    paths = [Path(shard) for shard in data.shards]
    assert len(paths) > 1
    for path in {*paths, *paths[0].parent.glob("classes.json")}:
        web.files[f"/d/{path.name}"] = path.read_bytes()
    return data, [f"{web.url}/d/{path.name}" for path in paths]


def built(to: Format, root: str | list[str], **more: Any) -> Any:
    return DATASETS.build({"type": {"parquet": "ParquetDataset", "webdataset": "WebDataset"}[to], "root": root, **more})


def batches(data: DetectionDataset, count: int, workers: int = 0, **more: Any) -> list[Any]:
    loader = iter(build_train_loader(data, [], LoaderOptions(batch_size=4, num_workers=workers), seed=3, **more))
    taken = [next(loader) for _ in range(count)]
    getattr(loader, "close", lambda: None)()
    return taken


def same(a: Any, b: Any) -> bool:
    boxes = (torch.equal(s.boxes, t.boxes) for s, t in zip(a.targets, b.targets, strict=True))
    return a.image_ids == b.image_ids and torch.equal(a.images, b.images) and all(boxes)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_gives_the_data_of_the_local_shards(fresh: Web, tmp_path: Path, to: Format, workers: int) -> None:
    local, addresses = published(fresh, tmp_path / "out", to)
    data = built(to, addresses)
    assert data.content_hash() == local.content_hash()
    assert data.layout is None or data.layout.window == local.layout.window
    for mine, theirs in zip(batches(data, 7, workers), batches(local, 7), strict=True):
        assert same(mine, theirs)
    assert data.image_content(5) == local.image_content(5), "the connections of this process outlive its forks"
    assert all(asked for method, _, asked in fresh.requests if method == "GET"), "no file is asked for as a whole"
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".tar", ".parquet")]


@pytest.mark.parametrize("to", FORMATS)
def test_windows_and_ranks_have_the_order_of_the_local_shards(fresh: Web, tmp_path: Path, to: Format) -> None:
    local, addresses = published(fresh, tmp_path / "out", to)
    data = built(to, addresses)
    for part in (local, data):
        if part.layout is not None:
            object.__setattr__(part.layout, "window", 60_000)
    for rank in (0, 1):
        pairs = zip(batches(data, 4, rank=rank, world_size=2), batches(local, 4, rank=rank, world_size=2), strict=True)
        assert all(same(mine, theirs) for mine, theirs in pairs)


def asked_bytes(web: Web, since: int) -> dict[str, set[int]]:
    """The places of the files that were asked for."""
    places: dict[str, set[int]] = {}
    for method, path, asked in web.requests[since:]:
        if method == "GET" and (match := re.fullmatch(r"bytes=(\d+)-(\d+)", asked)):
            places.setdefault(path, set()).update(range(int(match[1]), int(match[2]) + 1))
    return places


def test_the_index_steps_over_images_and_is_kept(fresh: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.data.datasets.shard_files.AHEAD", 512)
    local, addresses = published(fresh, tmp_path / "out", "webdataset")
    whole = sum(len(content) for content in fresh.files.values())
    data = built("webdataset", addresses)
    read = sum(map(len, asked_bytes(fresh, 0).values()))
    images = sum(data.part.tolist())
    assert read < whole - images / 2
    before = len(fresh.requests)
    assert built("webdataset", addresses).content_hash() == local.content_hash()
    assert set(asked_bytes(fresh, before)) == {"/d/classes.json"}


def test_resuming_reads_nothing_of_what_came_before(fresh: Web, tmp_path: Path) -> None:
    _, addresses = published(fresh, tmp_path / "out", "webdataset")
    data = built("webdataset", addresses)
    whole = batches(data, 5)
    before = len(fresh.requests)
    (resumed,) = batches(data, 1, start_step=4)
    assert same(resumed, whole[4])
    index = {image_id: i for i, image_id in enumerate(data.records.image_ids.tolist())}
    wanted: dict[str, set[int]] = {}
    for i in [index[image_id] for image_id in resumed.image_ids]:
        place = int(data.place[i])
        path = data.shards[data.shard[i]].removeprefix(fresh.url)
        wanted.setdefault(path, set()).update(range(place, place + int(data.part[i])))
    assert asked_bytes(fresh, before) == wanted


def test_a_process_keeps_few_files_open_and_gives_none_to_another(
    fresh: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "OPEN_FILES", 1)
    local, addresses = published(fresh, tmp_path / "out", "webdataset")
    data = built("webdataset", addresses)
    for i in range(COUNT):
        assert data.load_image(i).tobytes() == local.load_image(i).tobytes()
    assert len(ranges._connections().files) == 1
    mine = ranges._connections()
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert ranges._connections() is not mine
    assert not ranges._connections().files
    assert mine in ranges._held, "closing the parent's connections in a fork would disturb the parent"
    ranges._held.pop()
    copy = pickle.loads(pickle.dumps(data))
    assert copy.image_content(3) == local.image_content(3)


@pytest.mark.parametrize("to", FORMATS)
def test_an_object_store_lists_its_folders(tmp_path: Path, to: Format, fresh: Web) -> None:
    local, addresses = published(fresh, tmp_path / "out", to)
    store = fsspec.filesystem("memory")
    folder = f"/{tmp_path.name}-{to}"
    for path, content in fresh.files.items():
        store.pipe_file(f"{folder}/train/{path.rpartition('/')[2]}", content)
    store.pipe_file(f"{folder}/.hidden{Path(addresses[0]).suffix}", b"not a shard")
    data = built(to, f"memory:/{folder}", split="train")
    assert data.content_hash() == local.content_hash()
    assert same(batches(data, 1)[0], batches(local, 1)[0])
    with pytest.raises(FileNotFoundError, match="no shards of 'val': its splits are train"):
        built(to, f"memory:/{folder}", split="val")


def test_braces_stand_for_several_shards(tmp_path: Path) -> None:
    assert expand_braces("s3://b/x-{008..010}.tar") == [f"s3://b/x-{n}.tar" for n in ("008", "009", "010")]
    assert expand_braces("{a,b}/{0..1}.tar") == ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]
    assert expand_braces("x{1}.tar") == ["x{1}.tar"]
    for name in ("x-0.tar", "x-1.tar", "{0..1}.tar"):
        (tmp_path / name).touch()
    assert find_shards(f"{tmp_path}/x-{{0..1}}.tar", ".tar", None) == [f"{tmp_path}/x-{n}.tar" for n in (0, 1)]
    assert find_shards(f"{tmp_path}/{{0..1}}.tar", ".tar", None) == [f"{tmp_path}/{{0..1}}.tar"]


@pytest.mark.parametrize("root", ["a-{5..3}.tar", [], ["a.tar", "a.tar"], "https://host/shards/"])
def test_names_that_stand_for_nothing(
    root: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.tar").touch()
    with refuses(ValueError):
        built("webdataset", root)


def test_a_file_that_is_not_there(fresh: Web, refuses: Refuses) -> None:
    with refuses(FileNotFoundError):
        built("webdataset", f"{fresh.url}/none.tar")
    with refuses(FileNotFoundError):
        built("webdataset", "memory://none.tar")


def test_no_address(caplog: pytest.LogCaptureFixture, refuses: Refuses) -> None:
    with refuses(FetchError):
        built("webdataset", "nosuch://b/a.tar")
    assert "trying again" not in caplog.text


@pytest.mark.parametrize("to", FORMATS)
def test_a_server_without_ranges(fresh: Web, tmp_path: Path, to: Format, refuses: Refuses) -> None:
    _, addresses = published(fresh, tmp_path / "out", to)
    fresh.has_ranges = False
    with refuses((FetchError, ValueError)):
        built(to, addresses)


@pytest.mark.parametrize("code", [403, 418, 503])
def test_a_server_that_refuses(fresh: Web, code: int, refuses: Refuses) -> None:
    fresh.answers["/a.tar"] = servers.status(code)
    with refuses(FetchError):
        built("webdataset", f"{fresh.url}/a.tar")


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_that_changes_after_its_index_was_made(fresh: Web, tmp_path: Path, to: Format, refuses: Refuses) -> None:
    local, addresses = published(fresh, tmp_path / "out", to)
    data = built(to, addresses)
    data.image_content(0)
    path = addresses[0].removeprefix(fresh.url)
    content = fresh.files[path]
    fresh.files[path] = bytes([*content[:-1], content[-1] ^ 1])
    if to == "parquet":
        data.groups._kept.clear()
    with refuses(FetchError, hide=r"ETag [^;)]*|\d+ bytes"):
        data.image_content(0)
    with pytest.raises(FetchError, match="replaced"):
        scan_images(data, [0])
    ranges._held.clear()  # as in another process
    fresh.has_conditions = False
    with refuses(FetchError, hide=r"(?<=start \().*(?=\): it)"):
        pickle.loads(pickle.dumps(data)).image_content(0)
    fresh.files[path] = content
    assert data.image_content(0) == local.image_content(0)
    del fresh.files[path]
    ranges._held.clear()
    with pytest.raises(FetchError, match="not there any more"):
        pickle.loads(pickle.dumps(data)).image_content(0)


def test_another_version_has_another_index(fresh: Web, tmp_path: Path) -> None:
    _, addresses = published(fresh, tmp_path / "out", "webdataset")
    first = built("webdataset", addresses)
    path = addresses[0].removeprefix(fresh.url)
    name = first.classes.names[0].encode()
    other = fresh.files[path].replace(b'"%b"' % name, b'"%b"' % name.swapcase())
    assert other != fresh.files[path]
    fresh.files[path], fresh.files["/d/classes.json"] = (
        other,
        b'{"names": [%b]}'
        % b", ".join(b'"%b"' % n.encode() for n in (*first.classes.names, first.classes.names[0].swapcase())),
    )
    assert built("webdataset", addresses).content_hash() != first.content_hash()


def test_without_a_version_nothing_is_kept(fresh: Web, tmp_path: Path) -> None:
    local, addresses = published(fresh, tmp_path / "out", "webdataset")
    kept = [*(tmp_path / "cache/shards").iterdir()]
    fresh.has_tags = False
    data = built("webdataset", addresses)
    assert data.image_version(0) is None
    assert data.content_hash() == local.content_hash()
    assert [*(tmp_path / "cache/shards").iterdir()] == kept


def test_a_lost_connection_is_tried_again_for_a_while(
    fresh: Web, tmp_path: Path, refuses: Refuses, caplog: pytest.LogCaptureFixture
) -> None:
    local, addresses = published(fresh, tmp_path / "out", "webdataset")
    data = built("webdataset", addresses)
    path = addresses[data.shard[0]].removeprefix(fresh.url)
    fresh.breaks[path] = [100] * 2
    with caplog.at_level(logging.WARNING, "detkit"):
        assert data.image_content(0) == local.image_content(0)
    assert "trying again" in caplog.text
    fresh.breaks[path] = [100] * 100
    before = len(fresh.requests)
    with refuses(FetchError, hide=r"(?<=failed \().*(?=\); tried)"):
        data.image_content(0)
    assert ranges.ATTEMPTS <= len(fresh.requests) - before <= 2 * ranges.ATTEMPTS
    with pytest.raises(FetchError, match="tried 4 times"):
        scan_images(data, [0])


def test_a_redirect_to_what_is_not_encrypted(monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    class Redirected:
        def info(self, path: str) -> dict[str, Any]:
            return {"size": 1, "url": "http://elsewhere/a.tar", "type": "file"}

        def _strip_protocol(self, address: str) -> str:
            return address

    monkeypatch.setattr(ranges, "_held", [])
    ranges._connections().systems[("https", "host")] = Redirected()
    with refuses(FetchError):
        find_shards("https://host/a.tar", ".tar", None)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    monkeypatch.setattr(ranges, "_held", [])
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with refuses(ImportError):
        find_shards("https://host/a.tar", ".tar", None)
    monkeypatch.undo()
    monkeypatch.setattr(ranges, "_held", [])
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "https", raising=False)
    with refuses(ImportError):
        find_shards("https://host/a.tar", ".tar", None)

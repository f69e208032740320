"""Hub repositories through the real huggingface_hub client, against a server on the loopback interface."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from detkit.hub import local_path
from detkit.hub.cache import cache_folder
from detkit.hub.download import FetchError
from detkit.hub.repository import parse
from tests.hub.fake_hub import FakeHub, Repository
from tests.refusals import Refuses
from tests.web import Web

MODEL = {"model.safetensors": bytes(range(256)) * 800, "config.json": b"{}", "README.md": b"# card", "big.bin": b"x"}


@pytest.fixture
def hub(web: Web, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A hub with the model me/model, and no login."""
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    server = FakeHub(web)
    server.repositories["me/model"] = Repository(files=dict(MODEL))
    return server


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_model_is_fetched_without_what_is_no_model_file(hub: FakeHub) -> None:
    folder = local_path("hf://me/model")
    assert folder.is_relative_to(cache_folder() / "huggingface")
    assert names(folder) == ["README.md", "config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == MODEL["model.safetensors"]


def test_a_newer_version_is_fetched_and_a_revision_kept(hub: FakeHub) -> None:
    first = local_path("hf://me/model")
    commit = hub.repositories["me/model"].commit
    hub.repositories["me/model"].files["config.json"] = b'{"new": 1}'
    assert (local_path("hf://me/model") / "config.json").read_bytes() == b'{"new": 1}'
    assert local_path(f"hf://me/model@{commit}") == first


def test_without_a_network_the_cache_serves(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = local_path("hf://me/model")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert local_path("hf://me/model") == folder


def test_without_a_network_and_cache_the_folder_is_named(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with refuses(FetchError):
        local_path("hf://me/model")
    by_hand = cache_folder() / "hf/me/model@main"
    by_hand.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (by_hand / name).write_bytes(MODEL[name])
    assert local_path("hf://me/model") == by_hand


def test_what_the_hub_refuses(hub: FakeHub, refuses: Refuses) -> None:
    hub.gated.add("me/gated")
    for source in ("hf://me/nothing", "hf://me/model@v9", "hf://me/gated"):
        with refuses(FetchError):
            local_path(source)


def test_a_repository_that_is_no_model_of_detkit_shows_its_files(hub: FakeHub, refuses: Refuses) -> None:
    hub.repositories["me/pickled"] = Repository(files={"pytorch_model.bin": b"x", "config.json": b"{}"})
    with refuses(ValueError):
        local_path("hf://me/pickled")


def test_pickles_are_never_fetched(hub: FakeHub, refuses: Refuses) -> None:
    hub.repositories["me/pickled"] = Repository(files={"model.pt": b"x"})
    with refuses(ValueError):
        local_path("hf://me/pickled/model.pt")
    assert hub.web.requests == []


def test_a_file_and_a_data_set(hub: FakeHub, refuses: Refuses) -> None:
    assert local_path("hf://me/model/config.json").read_bytes() == b"{}"
    with refuses(ValueError):
        local_path("hf://me/model/other.json")
    hub.repositories["me/photos"] = Repository(files={"train/a.jpg": b"A", "val/b.jpg": b"B", "train.json": b"{}"})
    assert names(local_path("hf://datasets/me/photos/train")) == ["a.jpg"]
    assert names(local_path("hf://datasets/me/photos")) == ["train", "train.json", "val"]


def test_a_broken_download_is_completed(hub: FakeHub) -> None:
    path = f"/me/model/resolve/{hub.repositories['me/model'].commit}/model.safetensors"
    hub.web.breaks[path] = [50_000]
    assert (local_path("hf://me/model") / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert len(hub.web.gets(path)) == 2


def test_a_file_that_was_damaged_in_the_cache_is_refused(hub: FakeHub, refuses: Refuses) -> None:
    weights = local_path("hf://me/model") / "model.safetensors"
    blob = weights.resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"y" + MODEL["model.safetensors"][1:])
    with refuses(ValueError):
        local_path("hf://me/model")


@pytest.mark.parametrize(
    "source", ["hf://me", "hf://", "hf://me/../x", "hf://../x", "hf://me/model/../../x", "hf://a b/c"]
)
def test_what_is_no_address(source: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a hub repository"):
        local_path(source)


def test_the_pieces_of_an_address() -> None:
    assert parse("hf://a/b") == ("model", "a/b", "main", "")
    assert parse("hf://a/b.c@v1/d/e.json") == ("model", "a/b.c", "v1", "d/e.json")
    assert parse("hf://datasets/a/b/train/") == ("dataset", "a/b", "main", "train")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with refuses(ImportError):
        local_path("hf://me/model")

"""Names and addresses -> files: publishers, object stores, schemes of a user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from detkit.config import load_config
from detkit.data.build import build_datasets
from detkit.hub import is_remote, local_path, names, path_manager
from detkit.hub.cache import cache_folder
from detkit.hub.download import FetchError
from detkit.hub.names import DETECTRON2_ZOO, Published, torchvision_source, torchvision_weights
from detkit.predict.cli import find_images
from detkit.registry import DATASETS, PathStr
from detkit.registry.path_types import is_path
from tests.conftest import Folder
from tests.refusals import Refuses
from tests.web import Web


@pytest.mark.parametrize("path", ["a/b.pt", "/a/b", "IMAGENET1K_V2", "C:\\a.pt", "runs/a:b", ""])
def test_a_path_stays_as_it_is(path: str) -> None:
    assert not is_remote(path)
    assert local_path(path) == Path(path)
    assert local_path(Path(path)) == Path(path)


def test_file_addresses_are_paths() -> None:
    assert local_path("file:///some/a%20file.pt") == Path("/some/a file.pt")


def test_an_unknown_scheme_names_the_nearest(refuses: Refuses) -> None:
    with refuses(ValueError):
        local_path("htps://example.org/a.pt")


@pytest.mark.parametrize("address", ["https://", "http://..", "s3://"])
def test_an_address_of_nothing(address: str) -> None:
    with pytest.raises(ValueError, match="is no whole address"):
        local_path(address)


def test_a_name_is_no_path_of_a_config() -> None:
    for name in ("torchvision:resnet50", "detectron2:COCO-Detection/retinanet_R_50_FPN_1x", "hf://a/b", "s3://b/c.pt"):
        assert not is_path(name, "a path or a name")
        assert not is_path(name, "a path")
    assert is_path("weights/a.pt", "a path or a name")


def test_torchvision_names_by_address_and_hash() -> None:
    source = torchvision_source(torchvision_weights("torchvision:retinanet_resnet50_fpn_v2"))
    assert source == ("https://download.pytorch.org/models/retinanet_resnet50_fpn_v2_coco-5905b1c5.pth", "5905b1c5")
    v2 = torchvision_weights("resnet50:imagenet1k_v2")
    assert (v2.name, torchvision_source(v2).sha256) == ("IMAGENET1K_V2", "11ad3fa6")


def test_all_weights_of_torchvision_but_old_quantized_ones_have_a_hash() -> None:
    from torchvision.models import get_model_weights, list_models

    without = [
        weights.url
        for model in list_models()
        for weights in get_model_weights(model)
        if "/quantized/" not in weights.url and not torchvision_source(weights).sha256
    ]
    assert without == []


def test_names_that_nobody_publishes(refuses: Refuses) -> None:
    for name in (
        "torchvision:retinanet_resnet50_fpn_v3",
        "torchvision:resnet50:COCO_V1",
        "detectron2:COCO-Detection/retinanet_R_50_FPN_2x",
    ):
        with refuses(ValueError):
            local_path(name)


def serve_as_torchvision(web: Web, monkeypatch: pytest.MonkeyPatch, content: bytes) -> str:
    """Puts a file into the place of torchvision's; returns its name."""
    digits = hashlib.sha256(content).hexdigest()[:8]
    name = f"model-{digits}.pth"
    web.files[f"/{name}"] = content
    monkeypatch.setattr(names, "torchvision_source", lambda _: Published(f"{web.url}/{name}", digits))
    return name


def test_torchvision_weights_are_fetched_checked_and_kept(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    name = serve_as_torchvision(web, monkeypatch, b"weights")
    found = local_path("torchvision:resnet18")
    assert found == cache_folder() / "torchvision" / "checkpoints" / name
    web.files.clear()
    assert local_path("torchvision:resnet18") == found
    found.write_bytes(b"weight")
    with pytest.raises(ValueError, match="is not the file of"):
        local_path("torchvision:resnet18")


def test_what_torch_hub_has_fetched_is_taken(web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = serve_as_torchvision(web, monkeypatch, b"weights")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    earlier = tmp_path / "hub/checkpoints" / name
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"weights")
    assert local_path("torchvision:resnet18") == earlier
    assert web.requests == []


def test_detectron2_names_and_paths(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "DETECTRON2_SERVER", f"{web.url}/detectron2/")
    name = "COCO-Detection/retinanet_R_50_FPN_1x"
    web.files[f"/detectron2/{name}/{DETECTRON2_ZOO[name]}"] = b"pickle"
    found = local_path(f"detectron2:{name}")
    assert (found.name, found.read_bytes()) == ("model_final_bfca0b.pkl", b"pickle")
    assert found.is_relative_to(cache_folder() / "detectron2")
    assert local_path(f"detectron2:{name}.yaml") == found
    assert local_path(f"detectron2://{name}/{DETECTRON2_ZOO[name]}") == found
    assert len(web.requests) == 1


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An object store in memory."""
    monkeypatch.setenv("DETKIT_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.pipe({"/bucket/run/a.txt": b"A", "/bucket/run/checkpoints/best.pt": b"B"})
    yield files
    files.store.clear()


def test_files_and_folders_of_an_object_store(store: Any) -> None:
    assert local_path("memory://bucket/run/a.txt").read_bytes() == b"A"
    folder = local_path("memory://bucket/run")
    assert (folder / "checkpoints/best.pt").read_bytes() == b"B"
    assert local_path("memory://bucket/run/") == folder
    store.rm("/bucket", recursive=True)
    assert local_path("memory://bucket/run/checkpoints/best.pt").read_bytes() == b"B"


def test_a_folder_that_came_in_part_is_completed(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("the cable was pulled")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get", broken)
        with pytest.raises(FetchError, match="the cable was pulled"):
            local_path("memory://bucket/run")
    (cache_folder() / "memory/bucket/run").mkdir(parents=True)
    assert (local_path("memory://bucket/run") / "a.txt").read_bytes() == b"A"


def test_what_an_object_store_lacks(store: Any, refuses: Refuses) -> None:
    with refuses(FetchError):
        local_path("memory://bucket/gone.pt")


def test_a_store_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DETKIT_CACHE", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(ImportError, match=r"s3://bucket/a.pt: .*pip install 'detkit\[s3\]'"):
        local_path("s3://bucket/a.pt")


def test_a_user_registers_a_scheme(tmp_path: Path) -> None:
    from iopath.common.file_io import PathHandler

    class Vault(PathHandler):  # type: ignore[misc]
        def _get_supported_prefixes(self) -> list[str]:
            return ["vault://"]

        def _get_local_path(self, path: str, force: bool = False, **_: Any) -> str:
            return str(tmp_path / path.removeprefix("vault://"))

    path_manager().register_handler(Vault())
    try:
        assert local_path("vault://a.pt") == tmp_path / "a.pt"
    finally:
        del path_manager()._path_handlers["vault://"]


def test_a_part_gets_the_local_copy_of_an_address(store: Any) -> None:
    from detkit.data.datasets.base import DetectionDataset

    with DATASETS.temporary():

        @DATASETS.register()
        class Listing(DetectionDataset):
            """Keeps its folders.

            Args:
                roots: folders.
            """

            def __init__(self, *, roots: list[PathStr]) -> None:
                self.listed = roots

        built = DATASETS.build({"type": "Listing", "roots": ["memory://bucket/run", "plain"]})
    assert (Path(built.listed[0]) / "a.txt").read_bytes() == b"A"
    assert built.listed[1] == "plain"


def test_a_config_its_data_and_an_image_from_elsewhere(
    web: Web, folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The config keeps the addresses, so that a checkpoint says where its data are on any machine."""
    files = fsspec.filesystem("memory")
    for split in ("train", "val"):
        files.put(str(folder.root / split), f"/data/{split}", recursive=True)
        files.put(str(folder.root / f"{split}.json"), f"/data/{split}.json")
    text = folder.config.read_text(encoding="utf-8")
    for split in ("train", "val"):
        text = text.replace(f"images: {split}}}", f"images: memory://data/{split}}}")
        text = text.replace(f"annotations: {split}.json", f"annotations: memory://data/{split}.json")
    web.files["/config.yaml"] = text.encode()
    config = load_config(f"{web.url}/config.yaml")
    assert config.data.train.dataset.images == "memory://data/train"
    train_set, val_set = build_datasets(config)
    assert (len(train_set), len(val_set)) == (3, 3)
    assert Path(train_set.records.path(0)).is_relative_to(cache_folder())
    assert train_set.load_image(0).size == (96, 64)
    web.files["/photo.jpg"] = folder.file("val", 0).read_bytes()
    (image,) = find_images([f"{web.url}/photo.jpg"])
    assert image.name == "photo.jpg"
    files.store.clear()


def test_data_that_are_not_there_name_their_key(store: Any, folder: Folder, refuses: Refuses) -> None:
    config = load_config(folder.config, ["data.train.dataset.images=memory://bucket/gone"])
    with refuses(FetchError):
        build_datasets(config)

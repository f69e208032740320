"""What tests of several rooms need."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from tests.refusals import Refuses
from tests.web import Web, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
CONFIG = Path(__file__).parents[1] / "configs" / "quickstart" / "shapes.yaml"


class Folder:
    """A COCO data set with its config in a folder: three images a split, a box each."""

    def __init__(self, root: Path, size: tuple[int, int] = (64, 96)) -> None:
        self.root, self.size = root, size
        for split in ("train", "val"):
            (root / split).mkdir(parents=True)
            boxes = [[8, 8, 40, 30]]
            self.write(split, [boxes] * 3)
        transforms = "[{type: ResizeShortestEdge, short: 64, max_size: 128}]"
        self.config = root / "config.yaml"
        self.config.write_text(
            f"_base_: {CONFIG}\ndata:\n"
            + "".join(
                f"  {split}:\n    dataset: {{type: CocoDataset, annotations: {split}.json, images: {split}}}\n"
                f"    transforms: {transforms}\n"
                for split in ("train", "val")
            )
            + "  loader: {batch_size: 2, num_workers: 0}\n"
            "neck: {channels: 16}\nhead: {num_convs: 1}\nschedule: {type: Cosine, warmup_iterations: 1}\n"
            "train: {iterations: 2, eval_every: 0, checkpoint_every: 1, ema_decay: null, log_every: 1, "
            "tensorboard: false, threads: 1, device: cpu}\n"
        )

    def write(self, split: str, boxes: Sequence[Sequence[Sequence[float]]], **more: Any) -> None:
        """Images and annotations of a split: for each image its boxes (x, y, width, height)."""
        height, width = self.size
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i, of_image in enumerate(boxes):
            noise = np.random.default_rng([split == "val", i]).integers(0, 255, (height // 8, width // 8, 3))
            pixels = np.kron(noise, np.ones((8, 8, 1))).astype(np.uint8)
            Image.fromarray(pixels).save(self.root / split / f"{split}{i}.jpg")
            images.append({"id": i + 1, "file_name": f"{split}{i}.jpg", "width": width, "height": height})
            annotations += [
                {"id": len(annotations) + k + 1, "image_id": i + 1, "category_id": 1, "bbox": b, "iscrowd": 0,
                 "area": b[2] * b[3]}
                for k, b in enumerate(of_image)
            ]  # fmt: skip
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}], **more}
        (self.root / f"{split}.json").write_text(json.dumps(content))

    def file(self, split: str, index: int) -> Path:
        """An image file."""
        return self.root / split / f"{split}{index}.jpg"

    def damage(self, split: str, index: int, lost: int = 20) -> bytes:
        """Cuts the last bytes off an image; gives back the whole file."""
        path = self.file(split, index)
        whole = path.read_bytes()
        path.write_bytes(whole[:-lost])
        return whole


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `shared` beside the repository: real images and reference numbers, too big for git."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared is not there")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """See `Folder`."""
    return Folder(tmp_path / "data")


@pytest.fixture
def refuses(snapshot: SnapshotAssertion) -> Refuses:
    """See `Refuses`."""
    return Refuses(snapshot)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, so that none reads what somebody has downloaded, or writes beside it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETKIT_CACHE", str(folder / "detkit"))
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        yield folder


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A web server, and a cache that is empty."""
    monkeypatch.setenv("DETKIT_CACHE", str(tmp_path / "cache"))
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()

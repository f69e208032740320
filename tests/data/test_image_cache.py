"""The cache of decoded images, and decoding at a fraction of the size."""

from __future__ import annotations

import errno
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.config import load_config
from detkit.data import image_cache
from detkit.data.datasets.coco import CocoDataset
from detkit.data.datasets.images import ImageOptions, read_image, read_scaled
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.image_cache import ImageCache
from detkit.data.loader import LoaderOptions, build_eval_loader, build_train_loader
from detkit.data.preparation import Preparation
from detkit.data.transforms.base import Transform
from detkit.data.transforms.geometry import Resize
from detkit.registry import TRANSFORMS
from tests.refusals import Refuses

RESIZE = {"type": "ResizeShortestEdge", "short": 96}
FLIP = {"type": "RandomHorizontalFlip"}
KINDS = ("memory", "disk")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of a CocoDataset of 9 JPEG files; the cache lies beside them."""
    monkeypatch.setenv("DETKIT_CACHE", str(tmp_path / "cache"))
    shapes = ShapesDataset(num_images=9)
    shapes.write_coco(tmp_path / "images", tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text().replace(".png", ".jpg")
    (tmp_path / "a.json").write_text(text)
    for i, path in enumerate(sorted((tmp_path / "images").iterdir())):
        Image.open(path).save(path.with_suffix(".jpg"), quality=85, subsampling=i % 3)
        path.unlink()
    return {"annotations": str(tmp_path / "a.json"), "images": str(tmp_path / "images")}


def dataset(files: dict[str, Any], **options: Any) -> CocoDataset:
    data = CocoDataset(**files)
    data.image_options = ImageOptions(**options)
    return data


def batches(data: CocoDataset, *transforms: dict[str, Any], workers: int = 0, steps: int = 6) -> list[Any]:
    chain = [TRANSFORMS.build(t) for t in transforms]
    loader = iter(build_train_loader(data, chain, LoaderOptions(batch_size=3, num_workers=workers), seed=5))
    result = [next(loader) for _ in range(steps)]
    loader.close()
    return result


def assert_same(a: list[Any], b: list[Any]) -> None:
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.images, y.images)
        assert torch.equal(x.sizes, y.sizes)
        assert torch.equal(x.original_sizes, y.original_sizes)
        for s, t in zip(x.targets, y.targets, strict=True):
            assert torch.equal(s.boxes, t.boxes)
            assert torch.equal(s.labels, t.labels)
            assert torch.equal(s.ignore, t.ignore)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chain", [(RESIZE, FLIP), (FLIP, RESIZE), ({"type": "Resize", "height": 70, "width": 90},)])
def test_batches_are_the_same_with_a_cache(files: dict[str, Any], kind: str, chain: tuple[dict[str, Any], ...]) -> None:
    plain = batches(dataset(files), *chain)
    assert_same(plain, batches(dataset(files, cache=kind), *chain))


@pytest.mark.parametrize("kind", KINDS)
def test_later_epochs_decode_nothing_also_in_workers(
    files: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(files, cache=kind)
    chain = [TRANSFORMS.build(RESIZE), TRANSFORMS.build(FLIP)]
    loader = build_train_loader(data, chain, LoaderOptions(batch_size=3, num_workers=2), seed=5)
    first = iter(loader)
    made = [next(first) for _ in range(9)]
    first.close()

    def fail(*given: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(CocoDataset, "load_scaled", fail)  # the workers of the next round are forks of this process
    again = iter(loader)
    assert_same(made, [next(again) for _ in range(9)])
    again.close()


def test_a_later_run_finds_the_images_on_disk(files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = batches(dataset(files, cache="disk"), RESIZE, FLIP)
    monkeypatch.setattr(CocoDataset, "load_scaled", lambda *given: pytest.fail("decoded"))
    assert_same(plain, batches(dataset(files, cache="disk"), RESIZE, FLIP))


def test_a_changed_image_or_transform_is_read_again(files: dict[str, Any]) -> None:
    batches(dataset(files, cache="disk"), RESIZE)
    for path in Path(files["images"]).iterdir():
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, quality=85)
    assert_same(batches(dataset(files), RESIZE), batches(dataset(files, cache="disk"), RESIZE))
    larger = {**RESIZE, "short": 97}
    assert_same(batches(dataset(files), larger), batches(dataset(files, cache="disk"), larger))
    # The first of these sizes has the same target for the example in the key, and another for a long image.
    for most in (128, 200):
        bounded = {"type": "ResizeShortestEdge", "short": 96, "max_size": most}
        assert_same(batches(dataset(files), bounded), batches(dataset(files, cache="disk"), bounded))


def test_a_full_cache_leaves_the_rest_to_be_decoded(files: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    four_images = 4 * 3 * 96 * 96 / 1e9
    data = dataset(files, cache="memory", cache_gb=four_images)
    with caplog.at_level(logging.WARNING, "detkit"):
        assert_same(batches(dataset(files), RESIZE), batches(data, RESIZE))
    assert "about 44 % of its images fit into the cache" in caplog.text
    preparation = Preparation(data, [TRANSFORMS.build(RESIZE)], cached=True)
    for i in range(9):
        preparation.image(i)
    assert preparation.cache.used_bytes() == 4 * 3 * 96 * 96


def test_a_disk_that_fills_up_ends_the_caching_and_not_the_training(
    files: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(file: int, content: bytes, place: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(image_cache, "write_all", full)
    with caplog.at_level(logging.WARNING, "detkit"):
        assert_same(batches(dataset(files), RESIZE), batches(dataset(files, cache="disk"), RESIZE))
    assert caplog.text.count("because the disk of") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_no_room_is_an_error_at_the_start(
    files: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    monkeypatch.setattr(image_cache, "free_memory", lambda: 1000)
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with refuses(ValueError, hide="[0-9a-f]{16}"):
        batches(dataset(files, cache=kind), RESIZE)


def test_a_folder_that_cannot_be_written_is_named(files: dict[str, Any], tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "file").write_text("")
    with refuses(OSError, hide="[0-9a-f]{16}"):
        batches(dataset(files, cache="disk", cache_folder=str(tmp_path / "file")), RESIZE)


def test_damaged_rows_and_pixels_count_as_missing(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "index", tmp_path / "pixels", 10**6)
    picture = Image.effect_noise((20, 10), 90).convert("RGB")
    for number in range(3):
        cache.put(number, "v", picture, (30, 60))
    assert np.array_equal(np.asarray(cache.get(2, "v")[0]), np.asarray(picture))
    assert cache.get(2, "v")[1] == (30, 60)
    assert cache.get(2, "w") is None, "another version"
    assert cache.get(3, "v") is None, "never kept"
    content = bytearray((tmp_path / "pixels").read_bytes())
    content[5] ^= 1
    (tmp_path / "pixels").write_bytes(content[:-1])
    rows = bytearray((tmp_path / "index").read_bytes())
    rows[image_cache.ROW_BYTES + 20] ^= 1
    (tmp_path / "index").write_bytes(rows)
    again = ImageCache(tmp_path / "index", tmp_path / "pixels", 10**6)
    assert [again.get(number, "v") for number in range(3)] == [None, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_copy_shares_the_images(files: dict[str, Any], kind: str) -> None:
    one = Preparation(dataset(files, cache=kind), [], cached=True)
    other = pickle.loads(pickle.dumps(one.cache))
    image, size = one.image(4)
    found, found_size = other.get(4, one.dataset.image_version(4))
    assert np.array_equal(np.asarray(image), np.asarray(found))
    assert size == found_size


def test_a_subclass_that_does_more_is_not_taken_for_a_resize(files: dict[str, Any]) -> None:
    class Inverted(Resize):
        def __call__(self, image: Any, boxes: Any, labels: Any) -> Any:
            image, boxes, labels = super().__call__(image, boxes, labels)
            return Image.eval(image, lambda v: 255 - v), boxes, labels

    def first(data: CocoDataset, chain: list[Transform]) -> torch.Tensor:
        return next(iter(build_eval_loader(data, chain, LoaderOptions(batch_size=2, num_workers=0)))).images

    chain: list[Transform] = [Inverted(height=64, width=64)]
    assert torch.equal(first(dataset(files), chain), first(dataset(files, cache="memory"), chain))


def test_images_that_are_drawn_are_not_kept() -> None:
    data = ShapesDataset(num_images=2)
    data.image_options = ImageOptions(cache="memory")
    preparation = Preparation(data, [], cached=True)
    preparation.image(0)
    assert preparation.cache.used_bytes() == 0


@pytest.mark.parametrize(("side", "decoded"), [(401, 800), (400, 400), (201, 400), (200, 200), (50, 100), (9, 100)])
def test_scaled_decoding_stays_above_the_target(tmp_path: Path, side: int, decoded: int) -> None:
    noise = Image.effect_noise((800, 800), 90).convert("RGB")
    noise.save(tmp_path / "a.jpg", quality=95)
    image, size = read_scaled(tmp_path / "a.jpg", "a.jpg", ImageOptions(), target=lambda h, w: (side, side))
    assert size == (800, 800)
    assert image.size == (decoded, decoded)


def test_scaled_decoding_of_a_turned_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((800, 400), 90).convert("RGB").save(tmp_path / "a.jpg", exif=exif)
    image, size = read_scaled(tmp_path / "a.jpg", "a.jpg", ImageOptions(), target=lambda h, w: (h // 3, w // 3))
    assert size == (800, 400)
    assert (image.height, image.width) == (400, 200)


def test_scaled_decoding_moves_no_box(files: dict[str, Any]) -> None:
    for path in Path(files["images"]).iterdir():
        picture = Image.open(path)
        picture.resize((picture.width * 4, picture.height * 4)).save(path, quality=90)
    path = Path(files["annotations"])
    text = path.read_text(encoding="utf-8").replace('"height": 160, "width": 160', '"height": 640, "width": 640')
    path.write_text(text, encoding="utf-8")
    plain = batches(dataset(files), {**RESIZE, "short": 80}, FLIP)
    scaled = batches(dataset(files, scaled_decoding=True), {**RESIZE, "short": 80}, FLIP)
    for a, b in zip(plain, scaled, strict=True):
        assert torch.equal(a.original_sizes, b.original_sizes)
        assert all(torch.equal(s.boxes, t.boxes) for s, t in zip(a.targets, b.targets, strict=True))
        difference = (a.images.float() - b.images.float()).abs().mean()
        assert 0 < difference < 6


def test_the_limits_hold_for_scaled_decoding(tmp_path: Path) -> None:
    Image.new("RGB", (400, 400)).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="max_megapixels"):
        read_scaled(tmp_path / "a.jpg", "a.jpg", ImageOptions(max_megapixels=0.1), target=lambda h, w: (8, 8))


def test_bytes_are_read_as_files_are(tmp_path: Path) -> None:
    Image.effect_noise((40, 30), 90).convert("RGB").save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    assert read_scaled(content, "shard/a.jpg", ImageOptions())[0].tobytes() == read_image(tmp_path / "a.jpg").tobytes()
    with pytest.raises(ValueError, match=r"shard/a\.jpg: not a readable image: the file is"):
        read_scaled(b"nothing", "shard/a.jpg", ImageOptions())
    repaired = read_scaled(content[: len(content) // 2], "shard/a.jpg", ImageOptions(bad_images="repair"))[0]
    assert repaired.size == (40, 30)


def test_the_folder_of_the_cache_counts_from_its_config(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("_base_: quickstart/shapes\ndata: {images: {cache: disk, cache_folder: kept}}\n")
    options = load_config(str(tmp_path / "a.yaml"), []).options("data.images")
    assert options.cache_folder == str(tmp_path / "kept")

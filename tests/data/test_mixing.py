"""Transforms that take other images in: by hand, by the pixels under every box, and as a function of the seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.data.datasets.images import ImageOptions
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.loader import (
    FailedSample,
    LoaderOptions,
    Sample,
    SampleError,
    Samples,
    build_eval_loader,
    build_train_loader,
)
from detkit.data.transforms.base import Draw, Labelled, Transform, apply_transforms, label_image
from detkit.data.transforms.copy_paste import CopyPaste
from detkit.data.transforms.geometry import RandomCrop, RandomHorizontalFlip, Resize
from detkit.data.transforms.mixing import MixUp, Mosaic
from detkit.registry import TRANSFORMS
from detkit.structures import Batch, Targets

NONE = torch.zeros(0, 4)


def scene(
    *boxes: Sequence[float], size: tuple[int, int] = (40, 40), first: int = 0, ignore: tuple[int, ...] = ()
) -> Any:
    """A dark image (width, height) with objects in the colour 10 * (label + 1) on the boxes; labels from `first` on."""
    pixels = np.full((size[1], size[0], 3), 5, np.uint8)
    for k, (x1, y1, x2, y2) in enumerate(boxes):
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = 10 * (first + k + 1)
    labels = first + torch.arange(len(boxes))
    is_ignore = torch.tensor([k in ignore for k in range(len(boxes))], dtype=torch.bool)
    return Image.fromarray(pixels), torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels, is_ignore


def others(*scenes: Any) -> Draw:
    """Draws these, one after another, again and again."""
    turn = itertools.cycle(scenes)
    return lambda: label_image(*next(turn))


def run(transforms: Any, own: Any, *scenes: Any, seed: int = 0) -> tuple[np.ndarray[Any, Any], Targets]:
    torch.manual_seed(seed)
    chain = transforms if isinstance(transforms, list) else [transforms]
    image, boxes, labels, is_ignore = own
    draw = others(*scenes) if scenes else None
    tensor, targets = apply_transforms(chain, image, boxes, labels, is_ignore, draw=draw)
    return tensor.permute(1, 2, 0).numpy(), targets


def assert_drawn_where_labelled(image: np.ndarray[Any, Any], targets: Targets) -> None:
    """Objects of at least 2 pixels show their colour all over their box, and nowhere else."""
    rest = image[..., 0].astype(int)
    for (x1, y1, x2, y2), label in zip(targets.boxes.int().tolist(), targets.labels.tolist(), strict=True):
        assert (image[y1:y2, x1:x2, 0] == 10 * (label + 1)).all(), (label, image[y1:y2, x1:x2, 0])
        rest[y1:y2, x1:x2] = 0
    for x1, y1, x2, y2 in targets.ignore.int().tolist():
        rest[y1:y2, x1:x2] = 0
    assert set(np.unique(rest)) <= {0, 5, 114}


def test_a_mosaic_has_its_images_around_the_point_and_boxes_on_their_objects() -> None:
    tiles = [scene((4, 6, 14, 30), first=3 * k) for k in range(1, 4)]
    places = set()
    for seed in range(40):
        image, targets = run(Mosaic(height=40, width=40, min_visible=0), scene((10, 20, 30, 40)), *tiles, seed=seed)
        assert image.shape == (80, 80, 3)
        assert_drawn_where_labelled(image, targets)
        assert len(targets.labels) == len(set(targets.labels.tolist())) <= 4
        if 0 in targets.labels:
            places.add(tuple((targets.boxes[targets.labels.tolist().index(0)][:2] > 40).tolist()))
    assert places == {(False, False), (True, False), (False, True), (True, True)}


def test_a_mosaic_at_a_fixed_point_by_hand() -> None:
    small = scene((0, 0, 10, 5), size=(20, 10), first=1)  # becomes 40 x 20, as large as fits
    mosaic = Mosaic(height=40, width=40, centre_range=(1.0, 1.0))
    image, targets = run(mosaic, scene((0, 0, 40, 40)), small, small, small, seed=3)
    order = [(x < 40, y < 40) for x, y in ((0, 0), (40, 0), (0, 40), (40, 40))]
    corners = {(True, True): (0, 0), (False, True): (40, 0), (True, False): (0, 40), (False, False): (40, 40)}
    expected = {(True, True): (0, 20), (False, True): (40, 20), (True, False): (0, 40), (False, False): (40, 40)}
    own = tuple((targets.boxes[0][:2] < 40).tolist())
    assert targets.boxes[0].tolist() == [*corners[own], *(side + 40 for side in corners[own])]
    assert targets.labels.tolist() == [0, 1, 1, 1]
    rest = sorted([x, y, x + 20, y + 10] for x, y in (expected[place] for place in order if place != own))
    assert sorted(targets.boxes[1:].tolist()) == rest
    assert (image == 114).any()


def test_what_the_canvas_cuts_off_becomes_an_ignore_region_below_the_least_part() -> None:
    # The point is at (20, 20) of 80 x 80: only the last 20 pixels of the image at the top left are left.
    own = scene((0, 30, 24, 40), (10, 30, 40, 40))
    for least, ignored, objects in ((0.1, [], [0, 1]), (0.5, [[0, 10, 4, 20]], [1])):
        mosaic = Mosaic(height=40, width=40, centre_range=(0.5, 0.5), min_visible=least)
        results = [run(mosaic, own, scene(), seed=seed)[1] for seed in range(20)]
        cut = [t for t in results if t.boxes[-1].tolist() == [0, 10, 20, 20]]
        assert cut, "the image was never at the top left"
        assert all((t.ignore.tolist(), t.labels.tolist()) == (ignored, objects) for t in cut)


def test_a_mixup_is_the_mean_with_the_objects_of_both() -> None:
    own, other = scene((0, 0, 10, 10)), scene((20, 10, 40, 30), first=3)
    image, targets = run(MixUp(scale_range=(1.0, 1.0)), own, other)
    assert targets.labels.tolist() == [0, 3]
    assert targets.boxes.tolist() == [[0, 0, 10, 10], [20, 10, 40, 30]]
    mean = (np.asarray(own[0]).astype(float) + np.asarray(other[0])) / 2
    assert np.abs(image - mean).max() <= 1
    image, _ = run(MixUp(scale_range=(1.0, 1.0), weight=0.75), own, other)
    assert np.abs(image - (0.75 * np.asarray(own[0]) + 0.25 * np.asarray(other[0]))).max() <= 1


def test_the_other_image_of_a_mixup_is_scaled_moved_and_cut() -> None:
    own, other = scene(size=(60, 40)), scene((0, 0, 40, 40), first=3)
    scales = set()
    for seed in range(30):
        image, targets = run(MixUp(scale_range=(0.5, 2.0), min_visible=0.0), own, other, seed=seed)
        assert image.shape == (40, 60, 3)
        (x1, y1, x2, y2) = targets.boxes[0].int().tolist()
        assert (image[y1:y2, x1:x2, 0] == (5 + 40) // 2).all()
        outside = image[..., 0].astype(int)
        outside[y1:y2, x1:x2] = (5 + 114) // 2
        assert (np.abs(outside - (5 + 114) // 2) <= 1).all()
        scales.add(y2 - y1)
    assert len(scales) > 5
    assert max(scales) == 40


def test_pasted_objects_hide_what_they_cover() -> None:
    own = scene((0, 0, 10, 10), (20, 20, 40, 24), (12, 12, 16, 16), (0, 20, 20, 40), (30, 0, 38, 8))
    other = scene((8, 8, 20, 20), (30, 16, 40, 30), (0, 18, 19, 40), first=10)
    image, targets = run(CopyPaste(share=1.0, min_visible=0.3), own, other)
    rows = dict(zip(targets.labels.tolist(), targets.boxes.tolist(), strict=True))
    assert rows == {
        0: [0, 0, 10, 10],  # its corner is hidden, so its box stays
        1: [20, 20, 30, 24],  # the right half is hidden
        4: [30, 0, 38, 8],
        10: [8, 8, 20, 20], 11: [30, 16, 40, 30], 12: [0, 18, 19, 40],
    }  # fmt: skip
    assert 2 not in rows, "it is hidden"
    assert targets.ignore.tolist() == [[19, 20, 20, 40]], "a twentieth of object 3 is left"
    assert (image[8:20, 8:20, 0] == 110).sum() == 144 - 11 * 2  # but for the corner of the third, pasted later
    assert (image[18:40, 0:19, 0] == 130).all()


def test_what_a_pasted_rectangle_shows_besides_gets_its_label() -> None:
    # Only the first object may be pasted; the second lies in it for the most part, the third and the region a little.
    other = scene((0, 0, 20, 20), (10, 10, 20, 24), (18, 0, 40, 20), (0, 18, 10, 40), first=10, ignore=(3,))
    found = []
    for seed in range(40):
        _, targets = run(CopyPaste(share=0.4, min_visible=0.3), scene(), other, seed=seed)
        if 10 in targets.labels and 12 not in targets.labels and [10, 10, 20, 20] in targets.boxes.tolist():
            found.append(sorted(targets.ignore.tolist()))
            assert sorted(targets.labels.tolist()) == [10, 11]
    assert found
    assert all(rests == [[0, 18, 10, 20], [18, 0, 20, 20]] for rests in found)


def test_no_rest_of_another_object_hides_a_pasted_one_and_no_region_is_pasted() -> None:
    # The small object lies in a large one, of which a sixteenth comes along.
    other = scene((0, 0, 40, 40), (10, 10, 20, 20), (25, 25, 35, 35), first=10, ignore=(2,))
    labels = set()
    for seed in range(20):
        _, targets = run(CopyPaste(share=0.5), scene(), other, seed=seed)
        if targets.labels.tolist() == [11]:
            assert targets.ignore.tolist() == []
        labels.add(tuple(targets.labels.tolist()))
    assert (11,) in labels
    assert not any(12 in names for names in labels)


def test_an_object_beyond_a_smaller_image_is_not_pasted() -> None:
    other = scene((0, 0, 10, 10), (30, 30, 60, 60), (36, 0, 60, 30), size=(60, 60), first=10)
    image, targets = run(CopyPaste(share=1.0), scene(size=(40, 50)), other)
    assert dict(zip(targets.labels.tolist(), targets.boxes.tolist(), strict=True)) == {10: [0, 0, 10, 10]}
    assert_drawn_where_labelled(image, targets)


MIXING: list[Any] = [
    lambda **more: Mosaic(height=40, width=40, **more),
    lambda **more: MixUp(**more),
    lambda **more: CopyPaste(**more),
]


@pytest.mark.parametrize("make", MIXING, ids=["Mosaic", "MixUp", "CopyPaste"])
def test_empty_images_and_ignore_regions_are_mixed(make: Any) -> None:
    crowd = scene((5, 5, 35, 35), ignore=(0,))
    for seed in range(8):
        for own, other in itertools.product((scene(), crowd), repeat=2):
            _, targets = run(make(), own, other, seed=seed)
            assert len(targets.boxes) == 0
            if own is crowd and make is not MIXING[0]:
                assert len(targets.ignore)
    assert len(run(make(p=0.0), crowd, crowd)[0]) == 40


class Notes(Transform):
    """Does nothing, and keeps the size of what it is given."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, image: Image.Image, boxes: Any, labels: torch.Tensor) -> Labelled:
        self.seen.append(image.width)
        return image, boxes, labels


def test_drawn_images_go_through_the_transforms_in_front() -> None:
    first, second, last = Notes(), Notes(), Notes()
    mosaic = Mosaic(height=40, width=40)
    run([first, mosaic, second, MixUp(), last], scene(), scene())
    assert (len(first.seen), second.seen, last.seen) == (8, [80, 80], [80])
    first, second, last = Notes(), Notes(), Notes()
    run([first, mosaic, second, MixUp(single=True), last], scene(), scene())
    assert (len(first.seen), second.seen, last.seen) == (5, [80, 40], [80])


def test_a_crop_is_torchvisions_and_may_ignore_rests() -> None:
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    boxes = torch.tensor([[0.0, 0, 30, 20], [20, 10, 60, 40]])
    ignored = 0
    for seed in range(30):
        wrapped = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(40, 60))
        torch.manual_seed(seed)
        image, moved, _ = v2.RandomCrop((48, 30), pad_if_needed=True)(noise, wrapped, torch.zeros(2))
        torch.manual_seed(seed)
        ours, own, labels = RandomCrop(height=48, width=30)(noise, wrapped, torch.arange(2))
        assert np.array_equal(np.asarray(image), np.asarray(ours))
        assert torch.equal(moved, own)
        assert labels.tolist() == [0, 1]
        torch.manual_seed(seed)
        filled, own, labels = RandomCrop(height=48, width=30, fill=(9, 9, 9), min_visible=0.5)(
            noise, wrapped, torch.arange(2)
        )
        assert torch.equal(moved, own)
        assert (np.asarray(filled)[np.asarray(image).sum(axis=2) == 0] == 9).all()
        area = (moved[:, 2:] - moved[:, :2]).prod(dim=1) / torch.tensor([600.0, 1200.0])
        assert labels.tolist() == [-1 if part < 0.5 else k for k, part in enumerate(area.tolist())]
        ignored += int((labels == -1).sum())
    assert 5 < ignored < 55


CHAIN: list[dict[str, Any]] = [
    {"type": "Resize", "height": 48, "width": 48},
    {"type": "RandomHorizontalFlip"},
    {"type": "Mosaic", "height": 48, "width": 48},
    {"type": "ScaleJitter", "height": 96, "width": 96, "scale_range": [0.5, 1.5]},
    {"type": "RandomCrop", "height": 64, "width": 64, "fill": [114, 114, 114], "min_visible": 0.1},
    {"type": "MixUp", "single": True},
    {"type": "CopyPaste"},
]


def chain() -> list[Transform]:
    return [TRANSFORMS.build(node) for node in CHAIN]


def batches(dataset: ShapesDataset, steps: int, *, workers: int = 0, **options: Any) -> list[Batch]:
    loader = build_train_loader(
        dataset, chain(), LoaderOptions(batch_size=4, num_workers=workers), seed=3, **options
    )  # fmt: skip
    return list(itertools.islice(loader, steps))


def content(batch: Batch) -> list[tuple[Any, ...]]:
    """Image id, pixels and targets of each image of a batch."""
    return [
        (i, image, t.boxes, t.labels, t.ignore)
        for i, image, t in zip(batch.image_ids, batch.images, batch.targets, strict=True)
    ]


def assert_same(first: Sequence[Batch], second: Sequence[Batch]) -> None:
    for a, b in zip(first, second, strict=True):
        for one, two in zip(content(a), content(b), strict=True):
            assert one[0] == two[0]
            assert all(torch.equal(x, y) for x, y in zip(one[1:], two[1:], strict=True))


@pytest.fixture
def dataset() -> ShapesDataset:
    return ShapesDataset(num_images=10, size=64)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_mixed_images_depend_on_no_worker_rank_start_or_cache(dataset: ShapesDataset, tmp_path: Any) -> None:
    whole = batches(dataset, 5)
    assert any(len(t.boxes) > 3 for b in whole for t in b.targets)
    assert_same(whole, batches(dataset, 5, workers=3))
    assert_same(whole[3:], batches(dataset, 2, start_step=3))
    ranks = [batches(dataset, 5, rank=r, world_size=2) for r in range(2)]
    for step, batch in enumerate(whole):
        known = {row[0]: row[1:] for row in content(batch)}
        for row in (row for rank in ranks for row in content(rank[step])):
            assert all(torch.equal(x, y) for x, y in zip(row[1:], known[row[0]], strict=True))
    for cache in ("memory", "disk"):
        dataset.image_options = ImageOptions(cache=cache, cache_folder=str(tmp_path))
        for workers in (0, 2):
            assert_same(whole, batches(dataset, 5, workers=workers))
    dataset.image_options = ImageOptions()


def test_another_epoch_seed_or_image_mixes_anew(dataset: ShapesDataset) -> None:
    samples = [Samples(dataset, chain(), seed)[epoch, i] for seed, epoch, i in ((3, 0, 1), (3, 1, 1), (4, 0, 1))]
    images = [s.image for s in samples if isinstance(s, Sample)]
    assert len(images) == 3
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(images, 2))


def test_an_error_names_the_image_and_the_one_mixed_in(refuses: Any, dataset: ShapesDataset) -> None:
    load = dataset.load_image

    def fail(index: int) -> Image.Image:
        if index != 4:
            raise ValueError("damaged")
        return load(index)

    dataset.load_image = fail  # type: ignore[method-assign]
    with refuses(ValueError):
        list(itertools.islice(build_eval_loader(dataset, [MixUp()], LoaderOptions(num_workers=0)), 1))
    failed = Samples(dataset, [MixUp()], 0)[0, 4]
    assert isinstance(failed, FailedSample)
    with refuses(SampleError):
        raise failed.error()


def test_other_transforms_draw_what_they_drew(dataset: ShapesDataset) -> None:
    """The numbers of a config without mixing do not depend on the other images that there are."""
    nodes = [RandomHorizontalFlip(), Resize(height=32, width=40)]
    few = ShapesDataset(num_images=5, size=64)
    for index in range(5):
        a, b = (Samples(d, nodes, 3)[2, index] for d in (dataset, few))
        assert isinstance(a, Sample)
        assert isinstance(b, Sample)
        assert torch.equal(a.image, b.image)

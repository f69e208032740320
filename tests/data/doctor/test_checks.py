"""Each planted fault is found, and nothing else is."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.data.datasets.base import DetectionDataset
from detkit.data.doctor.checks.classes import likeness
from detkit.data.doctor.checks.duplicates import close_hashes
from detkit.data.doctor.checkup import examine
from detkit.data.doctor.facts import gather
from detkit.data.doctor.findings import Findings, describe
from tests.data.doctor.planted import HEIGHT, WIDTH, Planted, brighter, noise


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean") / "data"
    Planted(folder)
    return folder


@pytest.fixture
def planted(clean: Path, tmp_path: Path) -> Planted:
    """A copy of the clean data, to plant a fault in."""
    data = Planted(tmp_path / "data")
    shutil.rmtree(data.root)
    shutil.copytree(clean, data.root)
    return data


def check(planted: Planted) -> Findings:
    logging.getLogger("detkit.problems").disabled = True
    try:
        return examine(planted.subject())
    finally:
        logging.getLogger("detkit.problems").disabled = False


def texts(findings: Findings) -> list[str]:
    return [describe(case) for _, cases in findings.ranked() for case in cases]


def leak(data: Planted) -> None:
    data.copy(("train", 3), ("val", 5))


def near_leak(data: Planted) -> None:
    data.save("val", 5, brighter(data.path("train", 3), 4))


def copies(data: Planted) -> None:
    data.copy(("train", 3), ("train", 7))


def conflicting_copies(data: Planted) -> None:
    data.copy(("train", 3), ("train", 7))
    data.boxes["train"][7].pop()


def near_copies(data: Planted) -> None:
    data.save("train", 7, brighter(data.path("train", 3), 4))


def swapped_size(data: Planted) -> None:
    data.sizes["train"][3] = (HEIGHT, WIDTH)
    data.boxes["train"][3] = data.boxes["train"][3][:1]


def other_size(data: Planted) -> None:
    data.sizes["train"][3] = (2 * WIDTH, 2 * HEIGHT)


def exif_ignored(data: Planted) -> None:
    data.save("train", 3, noise(np.random.default_rng(9)), orientation=6)


def exif_doubt(data: Planted) -> None:
    data.save("train", 3, noise(np.random.default_rng(9)), orientation=3)


def unreadable(data: Planted) -> None:
    data.path("train", 3).write_bytes(data.path("train", 3).read_bytes()[:-200])


def unusable_box(data: Planted) -> None:
    data.boxes["train"][3].append((1, 10, 10, 0, 20))


def over_the_edge(data: Planted) -> None:
    data.boxes["train"][3][1] = (2, 78, 20, 25, 18)


def repeated_box(data: Planted) -> None:
    data.boxes["train"][3].append(data.boxes["train"][3][0])


def double_box(data: Planted) -> None:
    category, x, y, width, height = data.boxes["train"][3][0]
    data.boxes["train"][3].append((category, x + 0.3, y, width, height))


def odd_size(data: Planted) -> None:
    data.boxes["train"][3][0] = (1, 4, 4, 70, 55)


def odd_shape(data: Planted) -> None:
    data.boxes["train"][3][0] = (1, 4, 20, 42, 6)


def odd_place(data: Planted) -> None:
    data.boxes["train"][3] = [(1, 76, 20, 17, 17)]


def tiny_box(data: Planted) -> None:
    data.boxes["train"][3][0] = (1, 20, 20, 2, 2)


def few_boxes(data: Planted) -> None:
    add_class(data, 3, "kiwi", {"train": 3, "val": 2})


def no_training_box(data: Planted) -> None:
    add_class(data, 3, "kiwi", {"val": 2})


def no_validation_box(data: Planted) -> None:
    add_class(data, 3, "kiwi", {"train": 25})


def unbalanced_splits(data: Planted) -> None:
    add_class(data, 3, "kiwi", {"train": 32, "val": 2})


def alike_names(data: Planted) -> None:
    add_class(data, 3, "Apples", {"train": 22, "val": 20})


def different_splits(data: Planted) -> None:
    for boxes in data.boxes["val"]:
        boxes[:] = [(c, x if c == 1 else 52, 6, 1.9 * w, 1.9 * h) for c, x, y, w, h in boxes]


def corner_only(data: Planted) -> None:
    for of_split in data.boxes.values():
        for boxes in of_split:
            boxes[:] = [(c, 0.5 * x + 2, 0.5 * y + 1, 0.5 * w, 0.5 * h) for c, x, y, w, h in boxes]


def many_empty(data: Planted) -> None:
    for boxes in data.boxes["train"][:14]:
        boxes.clear()


def add_class(data: Planted, category: int, name: str, counts: dict[str, int]) -> None:
    data.categories[category] = name
    for split, count in counts.items():
        for boxes in data.boxes[split][:count]:
            boxes.append((category, 35, 20 + len(boxes), 17, 17))


FAULTS = [
    leak, near_leak, copies, conflicting_copies, near_copies, swapped_size, other_size, exif_ignored, exif_doubt,
    unreadable, unusable_box, over_the_edge, repeated_box, double_box, odd_size, odd_shape, odd_place, tiny_box,
    few_boxes, no_training_box, no_validation_box, unbalanced_splits, alike_names, different_splits, corner_only,
    many_empty,
]  # fmt: skip


def test_nothing_is_found_in_clean_data(planted: Planted) -> None:
    assert texts(check(planted)) == []


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_exactly_the_planted_fault_is_found(planted: Planted, plant: Callable[[Planted], None]) -> None:
    plant(planted)
    findings = check(planted)
    assert {kind.name for kind in findings.cases} == {plant.__name__.replace("_", "-")}, texts(findings)


def test_one_object_with_two_classes(planted: Planted) -> None:
    _, *box = planted.boxes["train"][3][0]
    planted.boxes["train"][3].append((2, *box))
    findings = check(planted)
    assert {kind.name for kind in findings.cases} == {"two-classes", "odd-place"}
    assert "train: train3.jpg, box 3: pear: box 1 is apple at the same place (IoU 1.00)" in texts(findings)


def test_corners_that_were_read_as_sizes(planted: Planted) -> None:
    for boxes in planted.boxes["train"]:
        boxes[:] = [(c, x, y, x + w, y + h) for c, x, y, w, h in boxes]
    kinds = {kind.name: cases for kind, cases in check(planted).cases.items()}
    assert "80 do as two corners (xmin, ymin, xmax, ymax), read as corner and size" in kinds["box-format"][0].text
    assert {case.split for case in kinds["box-format"]} == {"train"}


def test_centres_that_were_read_as_corners(planted: Planted) -> None:
    for boxes in planted.boxes["train"]:
        boxes[:] = [(c, x + w / 2, y + h / 2, w, h) for c, x, y, w, h in boxes]
    kinds = {kind.name: cases for kind, cases in check(planted).cases.items()}
    assert "do as centre and size (cx, cy, width, height)" in kinds["box-format"][0].text


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda x, y, w, h: (x, y, x + w, y + h), "two corners (x1, y1, x2, y2), read as centre and size"),
        (lambda x, y, w, h: (x, y, w, h), "corner and size (x, y, width, height), read as centre and size"),
    ],
)
def test_other_formats_that_were_read_as_centres(planted: Planted, write: Callable[..., Any], name: str) -> None:
    for boxes in planted.boxes["train"]:
        as_written = [(c, *write(*box)) for c, *box in boxes]
        boxes[:] = [(c, x - w / 2, y - h / 2, w, h) for c, x, y, w, h in as_written]
    kinds = {kind.name: cases for kind, cases in check(planted).cases.items()}
    assert f"80 do as {name}" in kinds["box-format"][0].text


def test_a_leak_names_both_files_and_shows_both_pictures(planted: Planted) -> None:
    leak(planted)
    findings = check(planted)
    assert texts(findings) == ["train: train3.jpg: is val5.jpg of val"]
    (case,) = next(iter(findings.cases.values()))
    assert [Path(picture.path).name for picture in case.pictures] == ["train3.jpg", "val5.jpg"]


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        ("red_light", "red light", True),
        ("Café", "cafe", True),
        ("person", "persons", True),
        ("box", "boxes", True),
        ("berry", "berries", True),
        ("pedestrian", "pedestrain", True),
        ("platelets", "platelet", True),
        ("bicycle", "bycicle", False),
        ("truck", "trunk", True),
        ("class1", "class2", False),
        ("card9", "card10", False),
        ("cat", "car", False),
        ("redleft", "greenleft", False),
        ("apple", "pear", False),
    ],
)
def test_names_that_may_mean_the_same(a: str, b: str, alike: bool) -> None:
    assert (likeness(a, b) is not None) is alike
    assert (likeness(b, a) is not None) is alike


def test_close_hashes_against_all_pairs() -> None:
    random = np.random.default_rng(0)
    hashes = random.choice(np.array([-1, 1], np.float32), (60, 64))
    hashes[40:] = hashes[:20]
    hashes[40:, [3, 60]] *= -1
    groups = random.integers(0, 2, 60)
    found = {(a, b): bits for a, b, bits in close_hashes(hashes, groups)}
    assert found == {(i, i + 40): 2 for i in range(20)}


def test_images_whose_content_is_known_are_not_decoded(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = planted.datasets()["train"]
    first = gather(dataset, "")

    def fail(self: DetectionDataset, index: int) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(DetectionDataset, "load_image", fail)
    second = gather(dataset, "")
    assert second.scan.bad == {}
    assert [f.sha256 for f in second.facts.values()] == [f.sha256 for f in first.facts.values()]
    np.testing.assert_array_equal(second.facts[5].grey, first.facts[5].grey)
    with pytest.raises(AssertionError, match="decoded again"):
        gather(dataset, "", cached=False)

import functools
import json
import logging
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask

from detkit.data.datasets.coco import CocoDataset
from detkit.data.datasets.coco_file import rle_box
from detkit.data.datasets.problems import (
    BAD_IDS,
    CLIPPED,
    DROPPED,
    FROM_MASK,
    FROM_OUTLINE,
    MERGED,
    RENUMBERED,
    REPEATED,
    SWAPPED_CORNERS,
    UNLISTED,
    UNUSED_CATEGORIES,
)
from tests.refusals import Refuses

CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 3, "name": "bird"}]


def image(i: float | str, name: str | None = None, height: int = 40, width: int = 60) -> dict[str, Any]:
    return {"id": i, "file_name": name or f"{i}.png", "height": height, "width": width}


def box(
    i: int | str | None,
    image_id: float | str,
    bbox: list[float | str] | None,
    category: float | str = 1,
    **rest: Any,
) -> dict[str, Any]:
    return {"id": i, "image_id": image_id, "category_id": category, "bbox": bbox, **rest}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Writes a COCO folder with images 1 and 2; gives the arguments of CocoDataset."""

    def make(
        content: dict[str, Any] | str | None = None,
        name: str = "instances.json",
        files: tuple[str, ...] = ("1.png", "2.png"),
        **changes: dict[str, dict[Any, Any]] | list[dict[str, Any] | str] | None,
    ) -> dict[str, Any]:
        if content is None:
            content = {"images": [image(1), image(2)], "categories": CATEGORIES, "annotations": [], **changes}
        for file in files:
            Image.new("RGB", (60, 40)).save(tmp_path / file)
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return {"annotations": str(path), "images": str(tmp_path)}

    return make


def test_boxes_labels_ids_and_crowd(write: Callable[..., dict[str, Any]]) -> None:
    annotations = [
        box(1, 2, [10, 5, 20, 10], 90),
        box(2, 1, [0, 0, 60, 40], 3, iscrowd=1),
        box(3, 1, [1, 2, 3, 4], 1, area=7.5),
    ]
    data = CocoDataset(**write(annotations=annotations))
    # Labels follow the category ids, whatever their order and gaps.
    assert data.classes.names == ("cat", "bird", "dog")
    assert data.classes.ids == (1, 3, 90)
    first, second = data.records.annotation(0), data.records.annotation(1)
    assert first.boxes.tolist() == [[0, 0, 60, 40], [1, 2, 4, 6]]
    assert first.labels.tolist() == [1, 0]
    assert first.is_ignore.tolist() == [True, False]
    assert first.area.tolist() == [2400, 7.5]
    assert second.boxes.tolist() == [[10, 5, 30, 15]]
    assert second.labels.tolist() == [2]
    assert data.records.path(1).endswith("/2.png")
    assert "2 images (0 without objects); 2 boxes: cat 1, bird 0, dog 1; 1 ignore region" in data.summary()


def test_images_without_objects_are_kept_unless_told_otherwise(
    refuses: Refuses, write: Callable[..., dict[str, Any]]
) -> None:
    where = write(annotations=[box(1, 2, [1, 1, 5, 5])])
    assert len(CocoDataset(**where)) == 2
    only = CocoDataset(**where, keep_empty=False)
    assert only.records.image_ids.tolist() == [2]
    with refuses(ValueError):
        CocoDataset(**write(), keep_empty=False)


BAD = {
    "zero area": [5, 5, 0, 10],
    "inverted": [5, 5, -3, 10],
    "not finite": [5, float("nan"), 3, 10],
    "outside": [70, 5, 10, 10],
}


@pytest.mark.parametrize(
    ("reason", "bbox"),
    [*BAD.items(), ("outside", [-20, 5, 20, 10]), ("outside", [5, -9, 5, 8]), ("outside", [5, 40, 5, 8])],
)
def test_bad_boxes_are_dropped_counted_and_named(
    refuses: Refuses,
    write: Callable[..., dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    reason: str,
    bbox: Any,
) -> None:
    where = write(annotations=[box(1, 1, bbox), box(2, 1, [1, 1, 5, 5])])
    with caplog.at_level(logging.WARNING, logger="detkit"):
        data = CocoDataset(**where)
    assert data.records.annotation(0).boxes.tolist() == [[1, 1, 6, 6]]
    assert data.problems.count(DROPPED) == 1
    assert "1.png" in caplog.text
    assert reason in caplog.text
    assert "1 box is unusable and left out of training" in data.summary()
    assert "uses the 2 boxes of the file, of which 1 is left out of training" in data.summary()
    with refuses(ValueError):
        CocoDataset(**where, bad_boxes="error")


def test_clip_mends_what_can_be_mended(write: Callable[..., dict[str, Any]]) -> None:
    where = write(annotations=[box(1, 1, [20, 30, -10, -5]), box(2, 1, [5, 5, 0, 10]), box(3, 1, [50, 30, 30, 30])])
    data = CocoDataset(**where, bad_boxes="clip")
    assert data.records.annotation(0).boxes.tolist() == [[10, 25, 20, 30], [50, 30, 60, 40]]
    assert data.problems.count(DROPPED) == 1
    assert data.problems.count(SWAPPED_CORNERS) == 1
    assert data.problems.count(CLIPPED) == 1


def test_a_box_over_the_edge_is_clipped(write: Callable[..., dict[str, Any]]) -> None:
    data = CocoDataset(**write(annotations=[box(1, 1, [50, 30, 30, 30])]))
    assert data.records.annotation(0).boxes.tolist() == [[50, 30, 60, 40]]
    assert data.problems.by_kind[CLIPPED].examples == [
        "image 1 (1.png), box 1 [50.0, 30.0, 80.0, 60.0]: xmax=80 in an image 60 wide, ymax=60 in an image 40 high"
    ]
    assert "1 box extends beyond the image and is clipped for training" in data.summary()
    assert "uses the 1 box of the file, of which 1 differs in training" in data.summary()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"files": ("1.png",)}, FileNotFoundError),
        ({"annotations": [box(1, 1, [1, 1, 5, 5], 2)]}, ValueError),
        ({"annotations": [box(1, 9, [1, 1, 5, 5])]}, ValueError),
        ({"annotations": [box(7, 1, [1, 1, 5])]}, ValueError),
        ({"images": [image(1), image(1, "2.png")]}, ValueError),
        ({"images": []}, ValueError),
        ({"categories": [*CATEGORIES, {"id": 3, "name": "cow"}]}, ValueError),
        ({"categories": [*CATEGORIES, {"id": 4, "name": "cat"}]}, ValueError),
        ({"categories": []}, ValueError),
        ({"content": "{"}, ValueError),
        ({"content": "[]"}, ValueError),
        ({"content": {"images": []}}, ValueError),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    refuses: Refuses, write: Callable[..., dict[str, Any]], changes: dict[str, Any], error: type
) -> None:
    with refuses(error):
        CocoDataset(**write(**changes))


def without(entry: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if k != key}


GOOD = box(7, 1, [1, 1, 5, 5])


@pytest.mark.parametrize(
    "changes",
    [
        {"images": [without(image(1), "id")]},
        {"images": [image(1), without(image(2), "file_name")]},
        {"images": [image(1.5)]},
        {"images": [image(True)]},
        {"images": [image("")]},
        {"images": ["x"]},
        {"categories": [{"id": 1}]},
        {"categories": [{"id": None, "name": "cat"}]},
        {"annotations": None},
        {"images": {"1": {}}},
        {"images": [image(1, "\ud800.png")]},
        {"images": [image(1, "a\0.png")]},
        {"images": [{**image(1), "width": 1e30}]},
        {"images": [{**image(1), "width": "inf"}]},
        {"annotations": [{**GOOD, "bbox": [1, 1, 10**400, 1]}]},
        {"annotations": [{**GOOD, "image_id": "9" * 5000}]},
        {"images": [{**image(1), "height": "tall"}]},
        {"annotations": [{**GOOD, "iscrowd": "maybe"}]},
        {"annotations": [without(GOOD, "image_id")]},
        {"annotations": [without(GOOD, "category_id")]},
        {"annotations": [without(GOOD, "bbox")] * 30},
        {"annotations": [{**GOOD, "bbox": ["one", 1, 5, 5]}]},
        {"annotations": [{**GOOD, "bbox": None}]},
    ],
)
def test_broken_entries_are_named_and_counted(
    refuses: Refuses, write: Callable[..., dict[str, Any]], changes: dict[str, Any]
) -> None:
    with refuses(ValueError):
        CocoDataset(**write(**changes))


def test_what_tools_leave_out_or_write_oddly_is_read(write: Callable[..., dict[str, Any]]) -> None:
    odd = [
        {**without(GOOD, "id"), "area": None, "iscrowd": "0"},
        {**without(GOOD, "id"), "area": float("nan"), "iscrowd": "1", "image_id": 1.0},
    ]
    unsized = [{"id": 1, "file_name": "1.png"}, {**image(2), "width": 0}]
    data = CocoDataset(**write(images=unsized, annotations=odd))
    assert data.records.area.tolist() == [25, 25]
    assert data.records.is_ignore.tolist() == [False, True]
    assert data.records.sizes.tolist() == [[-1, -1], [-1, -1]]


def test_a_split_without_a_single_object_is_warned_of(
    write: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="detkit"):
        CocoDataset(**write(annotations=[{**GOOD, "iscrowd": 1}]))
    assert "no image has a usable box" in caplog.text


def test_a_file_that_is_not_there(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(FileNotFoundError):
        CocoDataset(annotations=str(tmp_path / "nothing.json"), images=str(tmp_path))


def test_records_hold_no_python_object_an_image(write: Callable[..., dict[str, Any]]) -> None:
    data = CocoDataset(**write(annotations=[box(1, 1, [1, 1, 5, 5])]))
    arrays = [v for k, v in vars(data.records).items() if k != "truth"] + list(vars(data.records.truth).values())
    assert all(isinstance(value, np.ndarray) for value in arrays)
    assert all(value.dtype != object for value in arrays)
    assert (
        data.records.content_hash()
        == CocoDataset(**write(annotations=[box(1, 1, [1, 1, 5, 5])])).records.content_hash()
    )
    assert data.content_hash() != CocoDataset(**write(annotations=[box(1, 1, [1, 1, 5, 6])])).content_hash()


def test_ids_are_equal_as_text_as_float_and_as_number(write: Callable[..., dict[str, Any]]) -> None:
    annotations = [
        box("a", "1", [1, 1, 5, 5], "90"),
        box(None, 1.0, [2, 2, 5, 5], 90.0),
        box("a", "2.0", [3, 3, 5, 5], " 1 "),
    ]
    data = CocoDataset(**write(images=[image("1"), image(2.0, "2.png")], annotations=annotations))
    assert data.records.image_ids.tolist() == [1, 2]
    assert data.classes.ids == (1, 3, 90)
    assert data.records.ends.tolist() == [2, 3]
    assert data.records.labels.tolist() == [2, 2, 0]
    assert data.problems.by_kind[BAD_IDS].count == 2
    assert "2 annotation ids are missing or used twice; nothing depends on them" in data.summary()


def test_ids_that_are_words_are_numbered(refuses: Refuses, write: Callable[..., dict[str, Any]]) -> None:
    images = [image("left"), image("back")]
    categories = [{"id": "c-dog", "name": "dog"}, {"id": "c-cat", "name": "cat"}]
    annotations = [box(1, "back", [1, 1, 5, 5], "c-dog"), box(2, "left", [2, 2, 5, 5], "c-cat")]
    where = write(images=images, categories=categories, annotations=annotations, files=("left.png", "back.png"))
    data = CocoDataset(**where)
    assert data.records.image_ids.tolist() == [2, 1]
    assert data.classes.names == ("cat", "dog")
    assert data.records.labels.tolist() == [0, 1]
    assert data.problems.count(RENUMBERED) == 4
    with refuses(ValueError):
        CocoDataset(**write(annotations=[box(1, "01", [1, 1, 5, 5])]))


def test_numbers_that_are_text_are_read(write: Callable[..., dict[str, Any]]) -> None:
    odd = {**box(1, 1, ["1", "2.5", "10", 5]), "area": "50", "iscrowd": "true"}
    data = CocoDataset(**write(images=[{**image(1), "height": "40", "width": "60"}, image(2)], annotations=[odd]))
    assert data.records.boxes.tolist() == [[1, 2.5, 11, 7.5]]
    assert data.records.area.tolist() == [50]
    assert data.records.is_ignore.tolist() == [True]
    assert data.records.sizes[0].tolist() == [40, 60]


def test_a_box_comes_from_the_segmentation_where_it_is_missing(write: Callable[..., dict[str, Any]]) -> None:
    polygons = [[5, 6, 15, 6, 15, 26], [3, 10, 4, 12, 5, 11]]
    data = CocoDataset(**write(annotations=[{**without(GOOD, "bbox"), "segmentation": polygons, "area": 90}]))
    assert data.records.boxes.tolist() == [[3, 6, 15, 26]]
    assert data.problems.by_kind[FROM_MASK].examples == ["image 1 (1.png), box 1: [3.0, 6.0, 12.0, 20.0]"]


FISH = [
    {"id": 0, "name": "fish", "supercategory": "none"},
    {"id": 1, "name": "fish", "supercategory": "fish"},
    {"id": 2, "name": "trap", "supercategory": "fish"},
]


def test_an_unused_root_and_repeated_categories_give_way(write: Callable[..., dict[str, Any]]) -> None:
    data = CocoDataset(**write(categories=[*FISH, FISH[2]], annotations=[box(1, 1, [1, 1, 5, 5], 1)]))
    assert data.classes.names == ("fish", "trap")
    assert data.classes.ids == (1, 2)
    assert data.problems.by_kind[UNUSED_CATEGORIES].examples == [
        "'trap' (id 2) is listed 2 times",
        "'fish' (id 0) has no annotation and heads other categories",
    ]


def test_a_root_with_annotations_is_a_conflict(refuses: Refuses, write: Callable[..., dict[str, Any]]) -> None:
    annotations = [box(1, 1, [1, 1, 5, 5], 0), box(2, 1, [1, 1, 5, 6], 1)]
    with refuses(ValueError):
        CocoDataset(**write(categories=FISH, annotations=annotations))


SHARED = [box(1, 1, [1, 1, 5, 5]), box(2, 3, [20, 20, 5, 5], 90), box(3, 2, [3, 3, 5, 5])]


@pytest.mark.parametrize("name", ["1.png", "./1.png", "link.png"])
def test_a_picture_under_two_ids_is_refused_or_merged(
    refuses: Refuses, write: Callable[..., dict[str, Any]], tmp_path: Path, name: str
) -> None:
    where = write(images=[image(1), image(2), image(3, name)], annotations=SHARED)
    (tmp_path / "link.png").symlink_to(tmp_path / "1.png")
    with refuses(ValueError):
        CocoDataset(**where)
    data = CocoDataset(**where, same_file="merge")
    assert data.records.image_ids.tolist() == [1, 2]
    assert data.records.annotation(0).boxes.tolist() == [[1, 1, 6, 6], [20, 20, 25, 25]]
    assert data.problems.by_kind[MERGED].examples == [f"{name}: id 3 into 1"]


def test_a_picture_listed_with_two_sizes_is_refused(refuses: Refuses, write: Callable[..., dict[str, Any]]) -> None:
    with refuses(ValueError):
        CocoDataset(**write(images=[image(1), image(2, "1.png", 80)]), same_file="merge")


def test_a_box_listed_twice_is_kept_and_named(
    write: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="detkit"):
        data = CocoDataset(**write(annotations=[GOOD, {**GOOD, "id": 8}, {**GOOD, "category_id": 3}]))
    assert len(data.records.boxes) == 3
    assert data.problems.by_kind[REPEATED].examples == ["image 1 (1.png), box 2 [1.0, 1.0, 6.0, 6.0] is box 1"]
    assert "1 box is listed again with the same class and coordinates; both are kept" in caplog.text


def test_fractions_of_the_image_are_refused(refuses: Refuses, write: Callable[..., dict[str, Any]]) -> None:
    boxes = [box(1, 1, [0.1, 0.2, 0.3, 0.4]), box(2, 2, [0.0, 0.0, 1.0, 1.0])]
    with refuses(ValueError):
        CocoDataset(**write(annotations=boxes))
    with refuses(ValueError):
        CocoDataset(**write(annotations=boxes[1:]))


def test_a_single_box_in_the_first_pixel_is_left_out_by_name(write: Callable[..., dict[str, Any]]) -> None:
    plain = [box(i, 1, [1, 1, 5, 5 + i]) for i in range(2, 30)]
    data = CocoDataset(**write(annotations=[box(1, 1, [0.1, 0.2, 0.3, 0.4]), *plain]))
    assert len(data.records.boxes) == 28
    assert len(data.records.truth.boxes) == 29
    (example,) = data.problems.by_kind[DROPPED].examples
    assert "box 1 [0.1, 0.2, 0.4, 0.6]: lies within the first pixel, as a box in fractions" in example


def test_corners_in_the_place_of_sizes_are_suspected(
    write: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="detkit"):
        CocoDataset(**write(annotations=[box(1, 1, [20, 15, 50, 35]), box(2, 1, [30, 20, 58, 39])]))
    assert "2 boxes seem to be in another format" in caplog.text
    assert "image 1 (1.png), bbox [20.0, 15.0, 50.0, 35.0]: x, y, width, height reach over the edge" in caplog.text


def test_images_of_the_folder_that_are_not_listed_are_counted(
    write: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    data = CocoDataset(**write(files=("1.png", "2.png", "3.png")))
    assert data.problems.by_kind[UNLISTED].examples == [str(tmp_path / "3.png")]
    assert "1 image file of the folder is not in the annotations of this split" in data.summary()


def test_what_evaluation_uses_is_the_files_own(write: Callable[..., dict[str, Any]]) -> None:
    annotations = [
        box(1, 1, [-20.25, 5.1, 60.7, 10.3], area=-3),
        box(2, 1, [5, 5, 0, 10], area=7),
        box(3, 1, [70, 5, 10, 10]),
        box(4, 2, [1.1, 2.2, 3.3, 4.4], 90, iscrowd=1),
    ]
    records = CocoDataset(**write(annotations=annotations)).records
    assert records.truth.boxes.tolist() == [a["bbox"] for a in annotations]
    assert records.truth.boxes.dtype == np.float64
    assert records.truth.area.tolist() == [-3, 7, 100, 3.3 * 4.4]
    assert records.truth.ends.tolist() == [3, 4]
    assert records.truth.trained.tolist() == [True, False, False, True]
    assert records.boxes.tolist()[0] == pytest.approx([0, 5.1, 40.45, 15.4])
    assert records.ends.tolist() == [1, 2]


def test_the_hash_tells_what_evaluation_would_find_differently(write: Callable[..., dict[str, Any]]) -> None:
    def hash_of(**changes: int | list[int]) -> str:
        return CocoDataset(**write(annotations=[{**GOOD, **changes}])).content_hash()

    plain = hash_of()
    assert hash_of(id=99) == plain
    moved, area = hash_of(bbox=[1, 1, 5, 6]), hash_of(area=3)
    beyond, further = hash_of(bbox=[50, 30, 20, 20]), hash_of(bbox=[50, 30, 25, 20])
    assert len({plain, moved, area, beyond, further}) == 5
    # The first part is of training's boxes alone, as older checkpoints hold it.
    assert area.split("+")[0] == plain.split("+")[0]
    assert beyond.split("+")[0] == further.split("+")[0]


ODD = [None, True, -1, 1.5, 1e308, float("nan"), float("inf"), 10**400, "", "01", "\ud800", [], {}, [None], "../1.png"]


def places(value: Any, path: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """The path of every value below and including a JSON value."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", range(len(ODD)))
def test_no_odd_value_anywhere_ends_in_another_error(write: Callable[..., dict[str, Any]], odd: int) -> None:
    """Whatever stands where: it is read, or a message names the file."""
    content = {
        "images": [image(1), image(2)],
        "categories": [{**c, "supercategory": "animal"} for c in CATEGORIES],
        "annotations": [{**box(1, 1, [1, 2, 30, 20]), "area": 600, "iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]}],
    }
    read, nameless = 0, []
    for path in list(places(content))[1:]:
        changed = json.loads(json.dumps(content))
        *above, last = path
        functools.reduce(operator.getitem, above, changed)[last] = ODD[odd]
        where = write(changed)
        try:
            data = CocoDataset(**where)
        except (ValueError, FileNotFoundError) as error:
            nameless += [(path, error)] * ("instances.json" not in str(error))
        else:
            read += 1
            assert (data.records.boxes[:, 2:] > data.records.boxes[:, :2]).all(), path
            assert data.summary()
    assert not nameless
    assert read > 0


def test_ids_of_any_size_are_read(write: Callable[..., dict[str, Any]]) -> None:
    big = 2**70
    where = write(
        images=[image(big, "1.png")],
        categories=[{"id": 2**63, "name": "cat"}],
        annotations=[box(1, big, [1, 1, 5, 5], 2**63)],
    )
    data = CocoDataset(**where)
    assert (data.records.image_ids.tolist(), data.classes.ids, len(data.records.boxes)) == ([1], (1,), 1)
    assert data.problems.count(RENUMBERED) == 2


@pytest.mark.parametrize("name", ["link/1.png", "hard.png"])
def test_a_picture_by_way_of_a_linked_folder_or_a_hard_link_is_the_same(
    refuses: Refuses, write: Callable[..., dict[str, Any]], tmp_path: Path, name: str
) -> None:
    where = write(images=[image(1), image(2), image(3, name)], annotations=SHARED)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "hard.png").hardlink_to(tmp_path / "1.png")
    with refuses(ValueError):
        CocoDataset(**where)
    assert len(CocoDataset(**where, same_file="merge")) == 2


def test_an_entry_without_a_size_is_merged_with_one_that_has_it(write: Callable[..., dict[str, Any]]) -> None:
    entries = [image(1), {"id": 2, "file_name": "1.png"}]
    data = CocoDataset(**write(images=entries, annotations=[box(1, 2, [1, 1, 5, 5])]), same_file="merge")
    assert data.records.sizes.tolist() == [[40, 60]]


def test_a_box_over_the_edge_is_named_where_the_file_states_no_size(write: Callable[..., dict[str, Any]]) -> None:
    data = CocoDataset(**write(images=[{"id": 1, "file_name": "1.png"}], annotations=[box(1, 1, [10, 5, 5000, 10])]))
    assert data.problems.by_kind[CLIPPED].examples == [
        "image 1 (1.png), box 1 [10.0, 5.0, 5010.0, 15.0]: xmax=5010 in an image 60 wide"
    ]
    assert data.records.boxes.tolist() == [[10, 5, 60, 15]]


MASK = np.zeros((40, 60), np.uint8)
MASK[5:11, 7:30] = MASK[20:22, 9:11] = 1


def test_a_box_comes_from_a_mask(write: Callable[..., dict[str, Any]]) -> None:
    packed = mask.encode(np.asfortranarray(MASK))["counts"].decode()
    edges = np.flatnonzero(np.diff(np.concatenate(([0], MASK.T.ravel(), [0]))))
    runs = np.diff(np.concatenate(([0], edges, [MASK.size]))).tolist()
    for counts in (packed, runs):
        entry = box(7, 1, None, segmentation={"size": [40, 60], "counts": counts})
        data = CocoDataset(**write(annotations=[entry]))
        assert data.records.boxes.tolist() == [[7, 5, 30, 22]]
        assert data.problems.count(FROM_MASK) == 1


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)))
def test_the_box_of_a_mask_is_that_of_pycocotools(pixels: NDArray[np.uint8]) -> None:
    rle = mask.encode(np.asfortranarray(pixels))
    expected = mask.toBbox(rle).tolist()
    seen = rle_box({"size": list(pixels.shape), "counts": rle["counts"].decode()})
    assert seen == (expected if pixels.any() else None)
    y, x = np.nonzero(pixels)
    assert seen is None or seen == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]


@pytest.mark.parametrize(
    "shape",
    [
        {"size": [40, 60], "counts": [2400]},
        {"size": [40, 60], "counts": [10, 20, 5]},
        {"size": [40, 60], "counts": [10, -20, 2410]},
        {"size": [40, 60], "counts": "`````````````````"},
        {"size": [40, 60], "counts": "5"},
        {"size": [40, 60], "counts": "é"},
        {"size": [40, 10**9], "counts": [0, 40 * 10**9]},
        {"size": "40x60", "counts": [0, 2400]},
        {},
    ],
)
def test_a_broken_or_empty_mask_has_no_box(
    refuses: Refuses, write: Callable[..., dict[str, Any]], shape: dict[str, Any]
) -> None:
    with refuses(ValueError):
        CocoDataset(**write(annotations=[box(7, 1, None, segmentation=shape)]))


def test_boxes_of_zeros_are_not_taken_for_fractions(write: Callable[..., dict[str, Any]]) -> None:
    data = CocoDataset(**write(annotations=[box(1, 1, [0, 0, 0, 0])]))
    assert data.problems.by_kind[DROPPED].examples == ["image 1 (1.png), box 1 [0.0, 0.0, 0.0, 0.0]: zero area"]


@pytest.mark.parametrize("attributes", [None, [], {"rotation": 0}, {"rotation": None}, {"rotation": "?"}, {"x": 1}])
def test_boxes_without_a_turn_stay(write: Callable[..., dict[str, Any]], attributes: Any) -> None:
    dataset = CocoDataset(**write(annotations=[box(1, 1, [10, 10, 20, 10], attributes=attributes)]))
    assert dataset.records.annotation(0).boxes.tolist() == [[10, 10, 30, 20]]


def test_a_box_that_cvat_turned_is_the_box_around_it(write: Callable[..., dict[str, Any]]) -> None:
    """CVAT's COCO export has the box before the turn, and the angle as an attribute."""
    turned = box(1, 1, [10, 10, 20, 10], attributes={"occluded": False, "rotation": 90.0})
    dataset = CocoDataset(**write(annotations=[turned]))
    np.testing.assert_allclose(dataset.records.annotation(0).boxes, [[15, 5, 25, 25]], atol=1e-5)
    assert {kind: occurrences.count for kind, occurrences in dataset.problems}[FROM_OUTLINE] == 1

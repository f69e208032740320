import json
import logging

import numpy as np
import pytest
from PIL import Image

from detkit.data.datasets.base import check_same_classes
from detkit.data.datasets.coco import CocoDataset

CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 3, "name": "bird"}]


def image(i, name=None, height=40, width=60):
    return {"id": i, "file_name": name or f"{i}.png", "height": height, "width": width}


def box(i, image_id, bbox, category=1, **rest):
    return {"id": i, "image_id": image_id, "category_id": category, "bbox": bbox, **rest}


@pytest.fixture
def write(tmp_path):
    """Writes a COCO folder with images 1 and 2; gives the arguments of CocoDataset."""

    def make(content=None, name="instances.json", files=("1.png", "2.png"), **changes):
        if content is None:
            content = {"images": [image(1), image(2)], "categories": CATEGORIES, "annotations": [], **changes}
        for file in files:
            Image.new("RGB", (60, 40)).save(tmp_path / file)
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return {"annotations": str(path), "images": str(tmp_path)}

    return make


def test_boxes_labels_ids_and_crowd(write):
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
    assert "2 images (0 without objects); 2 boxes: cat 1, bird 0, dog 1; 1 ignore regions" in data.summary()


def test_images_without_objects_are_kept_unless_told_otherwise(write):
    where = write(annotations=[box(1, 2, [1, 1, 5, 5])])
    assert len(CocoDataset(**where)) == 2
    only = CocoDataset(**where, keep_empty=False)
    assert only.records.image_ids.tolist() == [2]
    with pytest.raises(ValueError, match="keep_empty: false removed all 2 images"):
        CocoDataset(**write(), keep_empty=False)


def test_stated_class_names_give_the_order_or_name_the_difference(write):
    data = CocoDataset(**write(annotations=[box(1, 1, [1, 1, 5, 5], 90)]), class_names=["dog", "cat", "bird"])
    assert data.classes.ids == (90, 1, 3)
    assert data.records.labels.tolist() == [0]
    with pytest.raises(
        ValueError, match=r"states 2 classes, the data set has 3; not in the data: cow; not stated: bird, dog"
    ):
        CocoDataset(**write(), class_names=["cat", "cow"])


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
def test_bad_boxes_are_dropped_counted_and_named(write, caplog, reason, bbox):
    where = write(annotations=[box(1, 1, bbox), box(2, 1, [1, 1, 5, 5])])
    with caplog.at_level(logging.WARNING, logger="detkit"):
        data = CocoDataset(**where)
    assert data.records.annotation(0).boxes.tolist() == [[1, 1, 6, 6]]
    assert data.problems.dropped_count == 1
    assert "1.png" in caplog.text
    assert reason in caplog.text
    assert "1 bad boxes dropped in 1.png" in data.summary()
    with pytest.raises(ValueError, match=rf"(?s)1.png: box 1 .*{reason}.*bad_boxes: drop"):
        CocoDataset(**where, bad_boxes="error")


def test_clip_mends_what_can_be_mended(write):
    where = write(annotations=[box(1, 1, [20, 30, -10, -5]), box(2, 1, [5, 5, 0, 10]), box(3, 1, [50, 30, 30, 30])])
    data = CocoDataset(**where, bad_boxes="clip")
    assert data.records.annotation(0).boxes.tolist() == [[10, 25, 20, 30], [50, 30, 60, 40]]
    assert data.problems.dropped_count == 1
    assert data.problems.clipped == {"1.png": 2}


def test_a_box_over_the_edge_is_clipped(write):
    data = CocoDataset(**write(annotations=[box(1, 1, [50, 30, 30, 30])]))
    assert data.records.annotation(0).boxes.tolist() == [[50, 30, 60, 40]]
    assert data.problems.clipped == {"1.png": 1}
    assert "1 boxes clipped in 1 images" in data.summary()


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"files": ("1.png",)}, FileNotFoundError, r"1 of 2 images are missing: .*2.png"),
        (
            {"annotations": [box(1, 1, [1, 1, 5, 5], 2)]},
            ValueError,
            r"category ids are not declared.*2 \(1 boxes\)",
        ),
        ({"annotations": [box(1, 9, [1, 1, 5, 5])]}, ValueError, r"image ids that are not declared: 9"),
        (
            {"annotations": [box(7, 1, [1, 1, 5, 5]), box(7, 2, [1, 1, 5, 5])]},
            ValueError,
            "ids are used twice: 7",
        ),
        (
            {"annotations": [box(7, 1, [1, 1, 5])]},
            ValueError,
            r"annotations\[0\] \(id 7\) has bbox \[1, 1, 5\], not",
        ),
        ({"images": [image(1), image(1, "2.png")]}, ValueError, r"image id 1 is used twice: 1.png and 2.png"),
        ({"images": []}, ValueError, "the split has no images"),
        ({"categories": [*CATEGORIES, {"id": 3, "name": "cow"}]}, ValueError, "category id given twice: 3"),
        (
            {"categories": [*CATEGORIES, {"id": 4, "name": "cat"}]},
            ValueError,
            "class name given twice: 'cat'",
        ),
        ({"content": "{"}, ValueError, r"instances.json: not JSON"),
        ({"content": "[]"}, ValueError, "holds a list"),
        ({"content": {"images": []}}, ValueError, "no list 'categories'"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(write, changes, error, text):
    with pytest.raises(error, match=text):
        CocoDataset(**write(**changes))


def without(entry, key):
    return {k: v for k, v in entry.items() if k != key}


GOOD = box(7, 1, [1, 1, 5, 5])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"images": [without(image(1), "id")]}, r"1 of 1 entries of 'images'.*images\[0\] has no 'id'"),
        ({"images": [image(1), without(image(2), "file_name")]}, r"images\[1\] has no 'file_name' \(id 2\)"),
        ({"images": [image("x")]}, r"images\[0\] has id 'x', not a whole number"),
        ({"images": [image(2**70)]}, r"has id \d+, not a whole number"),
        ({"images": ["x"]}, r"images\[0\] is 'x', not an object"),
        ({"categories": [{"id": 1}]}, r"categories\[0\] has no 'name' \(id 1\)"),
        ({"categories": [{"id": None, "name": "cat"}]}, r"categories\[0\] has id None"),
        ({"annotations": None}, "no list 'annotations'"),
        ({"annotations": [without(GOOD, "image_id")]}, r"annotations\[0\] has no 'image_id' \(id 7\)"),
        ({"annotations": [without(GOOD, "category_id")]}, r"annotations\[0\] has no 'category_id'"),
        ({"annotations": [without(GOOD, "bbox")] * 30}, r"30 of 30 entries.* and 10 more"),
        ({"annotations": [{**GOOD, "bbox": ["1", 1, 5, 5]}]}, r"has bbox \['1', 1, 5, 5\], not a list of 4"),
        ({"annotations": [{**GOOD, "bbox": None}]}, "has bbox None"),
    ],
)
def test_broken_entries_are_named_and_counted(write, changes, text):
    with pytest.raises(ValueError, match=text):
        CocoDataset(**write(**changes))


def test_what_tools_leave_out_or_write_oddly_is_read(write):
    odd = [
        {**without(GOOD, "id"), "area": None, "iscrowd": "0"},
        {**without(GOOD, "id"), "area": float("nan"), "iscrowd": "1", "image_id": 1.0},
    ]
    unsized = [{"id": 1, "file_name": "1.png"}, {**image(2), "width": 0}]
    data = CocoDataset(**write(images=unsized, annotations=odd))
    assert data.records.area.tolist() == [25, 25]
    assert data.records.is_ignore.tolist() == [False, True]
    assert data.records.sizes.tolist() == [[-1, -1], [-1, -1]]


def test_a_split_without_a_single_object_is_warned_of(write, caplog):
    with caplog.at_level(logging.WARNING, logger="detkit"):
        CocoDataset(**write(annotations=[{**GOOD, "iscrowd": 1}]))
    assert "no image has a usable box" in caplog.text


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*nothing.json"):
        CocoDataset(annotations=str(tmp_path / "nothing.json"), images=str(tmp_path))


def test_splits_with_other_classes_are_told_apart(write):
    train = CocoDataset(**write())
    fewer = CocoDataset(**write(categories=CATEGORIES[:2], name="fewer.json"))
    moved = CocoDataset(**write(categories=[{"id": 2, "name": "dog"}, *CATEGORIES[1:]], name="moved.json"))
    check_same_classes(train, CocoDataset(**write()))
    with pytest.raises(ValueError, match=r"only in train: bird; only in val: none"):
        check_same_classes(train, fewer)
    with pytest.raises(ValueError, match=r"the same names with other ids.*dog: id 90, 2"):
        check_same_classes(train, moved)


def test_records_hold_no_python_object_an_image(write):
    data = CocoDataset(**write(annotations=[box(1, 1, [1, 1, 5, 5])]))
    assert all(isinstance(value, np.ndarray) for value in vars(data.records).values())
    assert all(value.dtype != object for value in vars(data.records).values())
    assert (
        data.records.content_hash()
        == CocoDataset(**write(annotations=[box(1, 1, [1, 1, 5, 5])])).records.content_hash()
    )
    assert data.content_hash() != CocoDataset(**write(annotations=[box(1, 1, [1, 1, 5, 6])])).content_hash()

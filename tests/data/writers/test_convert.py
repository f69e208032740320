"""Data sets written in every format and read back."""

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from detkit.boxes import to_xyxy
from detkit.cli import main
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.problems import MASKS, OTHER_KEYS
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.reading import read_source
from detkit.data.writers.convert import convert
from detkit.data.writers.kinds import (
    IGNORE_AS_OBJECT,
    NEW_CLASS,
    NEW_NAME,
    NO_AREA,
    NO_IDS,
    NO_IGNORE,
    NO_OBJECT_IDS,
    NOT_FINITE,
    ONE_PIXEL,
    SHARED,
)
from detkit.registry import DATASETS
from tests.data.writers.sets import Picture, coco_set, pixels, rows, training
from tests.refusals import Refuses

FORMATS = ("coco", "voc", "yolo", "csv")
WITH_IGNORE = ("coco", "voc", "csv")
CLASSES = ["Zebra", "añb €", 'a, "b"', "no"]
BOX = ("Zebra", 4.0, 5.0, 10.0, 20.0)


def round_trip(splits: dict[str, DetectionDataset], folder: Path, to: Any, **more: Any) -> dict[str, DetectionDataset]:
    written = convert(splits, folder, to, **more)
    return {split: DATASETS.build(node) for split, node in written.nodes.items()}


def assert_same(before: DetectionDataset, after: DetectionDataset, *, ignore: bool = True, ids: bool = False) -> None:
    """The same images in the same order, with the same classes and boxes."""
    assert pixels(before) == pixels(after)
    for of_before, of_after in zip(rows(before), rows(after), strict=True):
        assert [(name, is_ignore and ignore) for name, _, is_ignore in of_before] == [
            (name, is_ignore) for name, _, is_ignore in of_after
        ]
        for (_, a, _), (_, b, _) in zip(of_before, of_after, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    for trained_before, trained_after in zip(training(before), training(after), strict=True):
        assert [name for name, _ in trained_before] == [name for name, _ in trained_after]
        for (_, a), (_, b) in zip(trained_before, trained_after, strict=True):
            np.testing.assert_array_max_ulp(np.array(a, np.float32), np.array(b, np.float32), maxulp=1)
    if ids:
        assert before.records.image_ids.tolist() == after.records.image_ids.tolist()


side = st.one_of(st.integers(2, 40), st.floats(1.01, 40).map(lambda v: round(v, 3)))
corner = st.one_of(st.integers(0, 40), st.floats(0, 40).map(lambda v: round(v, 3)))
boxes = st.lists(st.tuples(st.sampled_from(CLASSES), corner, corner, side, side), max_size=4)
file_names = st.lists(
    st.sampled_from(["a.png", "b/a.png", "c/d/a.png", "ü ø.png", "Z.png", "1.5.png", "x y/ß.png", "a,b;c.png"]),
    min_size=1, max_size=5, unique=True,
)  # fmt: skip


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
@given(data=st.data())
@settings(max_examples=6, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
def test_every_pair_of_formats_gives_the_same_images_and_boxes(first: Any, second: Any, data: st.DataObject) -> None:
    names = data.draw(file_names)
    pictures = [Picture(name, data.draw(boxes), (80, 90)) for name in names]
    pictures[0].boxes = [*pictures[0].boxes, BOX]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        before = coco_set(root / "in", CLASSES, pictures)
        between = round_trip({"train": before}, root / "1", first)
        after = round_trip(between, root / "2", second)["train"]
        assert_same(before, after, ids=first == second == "coco")
        assert list(after.classes.names) == CLASSES
        assert_same(before, between["train"])


def test_ids_names_and_crowds_stay_in_coco(tmp_path: Path) -> None:
    pictures = [Picture("b/1.png", [BOX, BOX], crowd=[1], image_id=77), Picture("a/1.png", image_id=5)]
    before = coco_set(tmp_path / "in", CLASSES, pictures)
    after = round_trip({"val": before}, tmp_path / "out", "coco")["val"]
    assert after.content_hash() == before.content_hash()
    assert [os.path.relpath(after.records.path(i), tmp_path / "out") for i in (0, 1)] == ["val/b/1.png", "val/a/1.png"]
    assert after.classes == before.classes


@pytest.mark.parametrize("to", ["voc", "csv"])
def test_crowds_become_difficult(tmp_path: Path, to: Any) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX, BOX], crowd=[0])])
    after = round_trip({"val": before}, tmp_path / "out", to)["val"]
    assert [[r[2] for r in image] for image in rows(after)] == [[True, False]]


def test_ignore_regions_are_counted_where_the_format_has_none(tmp_path: Path) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX, BOX, BOX], crowd=[1])])
    dropped = convert({"val": before}, tmp_path / "out", "yolo")
    assert dropped.problems.lines()[-2:] == [
        "1 ignore region is left out, because the format has none:", "  1.png, box 2",
    ]  # fmt: skip
    assert dropped.problems.count(NO_OBJECT_IDS) == 3
    assert [len(r) for r in rows(DATASETS.build(dropped.nodes["val"]))] == [2]
    kept = convert({"val": before}, tmp_path / "out2", "yolo", ignored="objects")
    assert kept.problems.count(IGNORE_AS_OBJECT) == 1
    assert not kept.problems.count(NO_IGNORE)
    assert [len(r) for r in rows(DATASETS.build(kept.nodes["val"]))] == [3]


@pytest.mark.parametrize("to", FORMATS)
def test_what_a_format_can_not_hold_is_counted_with_file_and_box(tmp_path: Path, to: Any) -> None:
    pictures = [Picture("1.png", [BOX], image_id=9), Picture("2.png", [BOX], more={"area": 12.5})]
    problems = convert({"val": coco_set(tmp_path / "in", ["Zebra"], pictures)}, tmp_path / "out", to).problems
    lost = {} if to == "coco" else {NO_IDS: 1, NO_AREA: 1, NO_OBJECT_IDS: 2}
    assert {kind: occurrences.count for kind, occurrences in problems} == lost
    if lost:
        assert problems.by_kind[NO_IDS].examples == ["1.png: 9"]
        assert problems.by_kind[NO_AREA].examples == ["2.png, box 1"]


@pytest.mark.parametrize("to", FORMATS)
def test_boxes_that_training_leaves_out_stay_so(tmp_path: Path, to: Any) -> None:
    bad = [("Zebra", 5.0, 5.0, 0.0, 9.0), ("Zebra", 5.0, 5.0, 7.0, 0.0), ("Zebra", 100.0, 5.0, 9.0, 9.0),
           ("Zebra", 20.0, 20.0, -6.0, -5.0)]  # fmt: skip
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX, *bad])])
    after = round_trip({"val": before}, tmp_path / "out", to)["val"]
    assert after.records.truth.trained.tolist() == before.records.truth.trained.tolist() == [True] + [False] * 4
    assert training(after) == training(before)


def test_a_box_without_area_of_voc_is_not_trained_on_in_another_format(tmp_path: Path) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX, ("Zebra", 5.0, 5.0, 0.0, 0.0)])])
    voc = round_trip({"val": before}, tmp_path / "voc", "voc")
    after = round_trip(voc, tmp_path / "coco", "coco")["val"]
    assert after.records.truth.trained.tolist() == [True, False]


def test_boxes_over_the_edge_stay_as_they_are(tmp_path: Path) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [("Zebra", -5.5, 40.0, 90.0, 30.0)])])
    for to in FORMATS:
        assert_same(before, round_trip({"val": before}, tmp_path / to, to)["val"])


def test_boxes_that_are_not_numbers_are_left_out_and_counted(tmp_path: Path) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX, ("Zebra", float("nan"), 5.0, 9.0, 9.0)])])
    for to in FORMATS:
        written = convert({"val": before}, tmp_path / to, to)  # type: ignore[arg-type]
        assert written.problems.by_kind[NOT_FINITE].examples == ["1.png, box 2"]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_infinite_boxes_give_no_warnings_of_numpy(tmp_path: Path) -> None:
    infinite = ("Zebra", float("inf"), float("-inf"), float("-inf"), float("inf"))
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX, infinite])])
    assert len(convert({"val": before}, tmp_path / "out", "coco").problems.by_kind[NOT_FINITE].examples) == 1
    assert np.isnan(to_xyxy(before.records.truth.boxes)[1, 2:]).all()


@pytest.mark.parametrize("to", FORMATS)
def test_names_with_spaces_before_their_suffix(tmp_path: Path, to: Any) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("x /1 .png", [BOX]), Picture(" .png", [BOX, BOX])])
    assert_same(before, round_trip({"val": before}, tmp_path / "out", to)["val"])


@pytest.mark.parametrize("to", ["voc", "csv"])
def test_a_box_below_a_pixel_is_told(tmp_path: Path, to: Any) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX, ("Zebra", 5.0, 5.0, 0.5, 9.0)])])
    assert convert({"val": before}, tmp_path / "out", to).problems.count(ONE_PIXEL) == 1


def test_same_names_in_different_folders_stay_different_images(tmp_path: Path) -> None:
    pictures = [Picture("x/1.png", [BOX]), Picture("y/1.png"), Picture("1.png", [BOX, BOX])]
    before = coco_set(tmp_path / "in", ["Zebra"], pictures)
    for to in FORMATS:
        assert_same(before, round_trip({"val": before}, tmp_path / to, to)["val"])
    names = sorted(path.name for path in (tmp_path / "voc/JPEGImages").iterdir())
    assert names == ["1.png", "x_1.png", "y_1.png"]


@pytest.mark.parametrize("to", ["voc", "yolo"])
def test_names_with_another_suffix_do_not_share_an_annotation(tmp_path: Path, to: Any) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX]), Picture("1.bmp", [BOX, BOX])])
    written = convert({"val": before}, tmp_path / "out", to)
    assert_same(before, DATASETS.build(written.nodes["val"]))
    assert written.problems.by_kind[NEW_NAME].examples == ["1.bmp: 1_2.bmp"]


def test_class_names_that_no_text_can_hold(tmp_path: Path, refuses: Refuses) -> None:
    before = coco_set(tmp_path / "in", ["Zebra", "a  b\n"], [Picture("1.png", [BOX, ("a  b\n", 1.0, 1.0, 9.0, 9.0)])])
    written = convert({"val": before}, tmp_path / "voc", "voc")
    assert written.problems.by_kind[NEW_CLASS].examples == ["'a  b\\n': 'a b'"]
    assert [r[0] for r in rows(DATASETS.build(written.nodes["val"]))[0]] == ["Zebra", "a b"]
    twins = coco_set(tmp_path / "in2", ["a b", "a  b"], [Picture("1.png", [("a b", 1.0, 1.0, 9.0, 9.0)])])
    with refuses(ValueError):
        convert({"val": twins}, tmp_path / "voc2", "voc")
    assert not (tmp_path / "voc2").exists()


def test_drawn_images_become_png(tmp_path: Path) -> None:
    before = ShapesDataset(num_images=6)
    for to in WITH_IGNORE:
        assert_same(before, round_trip({"train": before}, tmp_path / to, to)["train"])


@pytest.mark.parametrize("how", ["hardlink", "symlink"])
def test_images_can_be_linked(tmp_path: Path, how: Any) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX])])
    for to in FORMATS:
        after = round_trip({"val": before}, tmp_path / to, to, images=how)["val"]
        assert os.path.samefile(after.records.path(0), before.records.path(0))
        assert os.path.islink(after.records.path(0)) == (how == "symlink")


def test_a_full_disk_is_that_of_the_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX])])

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", source, None, str(target))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left") as caught:
        convert({"val": before}, tmp_path / "out", "coco")
    assert str(tmp_path / "in") not in str(caught.value)


def test_images_can_stay_where_they_are(tmp_path: Path, refuses: Refuses) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("x/1.png", [BOX]), Picture("x/y/2.png", [BOX])])
    for to in ("coco", "csv"):
        after = round_trip({"val": before}, tmp_path / to, to, images="reference")["val"]
        assert after.records.path(1) == before.records.path(1)
        assert not list((tmp_path / to).rglob("*.png"))
    for to in ("voc", "yolo"):
        with refuses(ValueError):
            convert({"val": before}, tmp_path / to, to, images="reference")  # type: ignore[arg-type]


@pytest.mark.parametrize("images", ["copy", "hardlink", "symlink", "reference"])
def test_an_image_outside_of_the_data_does_not_come_in(tmp_path: Path, images: Any, refuses: Refuses) -> None:
    coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX])])
    file = tmp_path / "in/a.json"
    (tmp_path / "in/images/1.png").rename(tmp_path / "secret.png")
    file.write_text(file.read_text().replace("1.png", "../../secret.png"))
    data = DATASETS.build({"type": "CocoDataset", "annotations": str(file), "images": str(tmp_path / "in/images")})
    with refuses(ValueError):
        convert({"val": data}, tmp_path / "out", "coco", images=images)
    assert not (tmp_path / "out").exists()


def test_yolo_refuses_an_image_whose_size_is_not_the_stated_one(tmp_path: Path, refuses: Refuses) -> None:
    coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX])])
    text = (tmp_path / "in/a.json").read_text().replace('"width": 64', '"width": 65')
    (tmp_path / "in/a.json").write_text(text)
    source = {"val": DATASETS.build({"type": "CocoDataset", "annotations": str(tmp_path / "in/a.json"),
                                     "images": str(tmp_path / "in/images")})}  # fmt: skip
    with refuses(ValueError):
        convert(source, tmp_path / "yolo", "yolo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_voc_is_valid_xml_with_pixels_counted_from_1(tmp_path: Path) -> None:
    before = coco_set(tmp_path / "in", ["<&>"], [Picture("1.png", [("<&>", 0.0, 4.5, 10.0, 20.0)])])
    convert({"val": before}, tmp_path / "out", "voc")
    item = ElementTree.parse(tmp_path / "out/Annotations/1.xml").getroot().find("object")
    assert item is not None
    assert item.findtext("name") == "<&>"
    assert [e.text for e in item.find("bndbox") or ()] == ["1", "5.5", "10", "24.5"]


def test_yolo_has_the_layout_of_its_tools(tmp_path: Path) -> None:
    before = coco_set(tmp_path / "in", ["Zebra", "no"], [Picture("1.png", [BOX]), Picture("2.png")])
    convert({"train": before, "val": before}, tmp_path / "out", "yolo")
    assert (tmp_path / "out/data.yaml").read_text() == (
        "train: images/train\nval: images/val\nnames:\n  0: Zebra\n  1: 'no'\n"
    )
    assert (tmp_path / "out/labels/train/1.txt").read_text() == "0 0.140625 0.3125 0.15625 0.416666666667\n"
    assert (tmp_path / "out/labels/val/2.txt").read_text() == ""


def test_yolo_lists_images_in_their_order(tmp_path: Path) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("2.png", [BOX]), Picture("1.png")])
    convert({"train": before}, tmp_path / "out", "yolo")
    assert (tmp_path / "out/train.txt").read_text() == "./images/train/2.png\n./images/train/1.png\n"


def test_csv_has_the_columns_of_the_tutorials(tmp_path: Path) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX]), Picture("ü, 2.png")])
    convert({"train": before}, tmp_path / "out", "csv")
    assert (tmp_path / "out/train_labels.csv").read_text(encoding="utf-8").splitlines() == [
        "filename,width,height,class,xmin,ymin,xmax,ymax",
        "1.png,64,48,Zebra,5,6,14,25",
        '"ü, 2.png",64,48,,,,,',
    ]


def voc_with_trainval(root: Path) -> Path:
    sets = {"train": [Picture("1.png", [BOX])], "val": [Picture("2.png", [BOX])]}
    splits = {split: coco_set(root / "in", ["Zebra"], p, f"{split}.json") for split, p in sets.items()}
    convert(splits, root / "voc", "voc")
    (root / "voc/ImageSets/Main/trainval.txt").write_text("1\n2\n")
    return root / "voc"


def test_the_verb_prints_what_is_found_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = voc_with_trainval(tmp_path), tmp_path / "coco"
    assert main(["data", "convert", str(data), str(out), "--to", "coco"]) == 0
    text = capsys.readouterr().out
    assert "Pascal VOC, because of its folders" in text
    assert "note: trainval is left out" in text
    assert f"train: {{dataset: {{type: CocoDataset, annotations: {out}/annotations/instances_train.json" in text
    assert sorted(path.name for path in (out / "annotations").iterdir()) == [
        "instances_train.json",
        "instances_val.json",
    ]
    assert len(json.loads((out / "annotations/instances_val.json").read_text())["annotations"]) == 1
    assert main(["data", "convert", str(data), str(tmp_path / "2"), "--to", "coco", "--splits", "trainval"]) == 0
    assert [path.name for path in (tmp_path / "2/annotations").iterdir()] == ["instances_trainval.json"]


def test_a_config_can_be_converted(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "_base_: quickstart\ndata:\n  train:\n    dataset: {num_images: 3}\n  val:\n    dataset: {num_images: 2}\n"
    )
    assert {k: len(d) for k, d in read_source(config).splits.items()} == {"train": 3, "val": 2}


@pytest.mark.parametrize("to", [to for to in FORMATS if to != "yolo"])
def test_splits_of_several_folders_are_written_side_by_side(tmp_path: Path, to: Any) -> None:
    for year, boxes in (("VOC2007", [BOX]), ("VOC2012", [BOX, BOX])):
        before = coco_set(tmp_path / year, ["Zebra"], [Picture(f"{year}.png", boxes)])
        convert({"train": before}, tmp_path / "VOCdevkit" / year, "voc")
    source = read_source(tmp_path / "VOCdevkit")
    assert list(source.splits) == ["VOC2007/train", "VOC2012/train"]
    written = convert(source.splits, tmp_path / "out", to)
    assert list(written.nodes) == ["VOC2007_train", "VOC2012_train"]
    for node, before in zip(written.nodes.values(), source.splits.values(), strict=True):
        assert_same(before, DATASETS.build(node))


@pytest.mark.parametrize("names", [("a/train", "b/train", "b/val"), ("cats", "dogs")])
def test_yolo_has_one_of_each_split(tmp_path: Path, names: tuple[str, ...], refuses: Refuses) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX])])
    with refuses(ValueError):
        convert(dict.fromkeys(names, before), tmp_path / "out", "yolo")


def test_images_in_two_splits_are_told(tmp_path: Path) -> None:
    before = coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX])])
    assert convert({"train": before, "val": before}, tmp_path / "out", "coco").problems.count(SHARED) == 1


@pytest.mark.parametrize("words", [["IN/sub"], ["FULL"], ["out", "--splits", "tset"], ["FILE"]])
def test_the_verb_refuses(
    tmp_path: Path, words: list[str], refuses: Refuses, capsys: pytest.CaptureFixture[str]
) -> None:
    data = voc_with_trainval(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").touch()
    before = sorted(tmp_path.rglob("*"))
    places = {"IN/sub": data / "sub", "FULL": tmp_path / "full", "FILE": tmp_path / "full/a", "out": tmp_path / "out"}
    with refuses(ValueError):
        code = main(["data", "convert", str(data), str(places[words[0]]), "--to", "voc", *words[1:]])
        assert code == 2
        raise ValueError(capsys.readouterr().err)
    assert sorted(tmp_path.rglob("*")) == before


def write_crowded_coco(root: Path) -> DetectionDataset:
    """A COCO file with ids out of order, masks, keypoints and keys that detkit does not read."""
    coco_set(root, ["Zebra", "no"], [Picture("1.png", [BOX, BOX]), Picture("2.png", [BOX, ("no", 1, 2, 3, 4)])])
    content = json.loads((root / "a.json").read_text())
    more: list[dict[str, Any]] = [
        {"id": 900, "segmentation": [[4, 5, 14, 5, 14, 25]], "score": 0.5},
        {"id": 7, "keypoints": [4, 5, 2], "num_keypoints": 1, "attributes": {"occluded": True}},
        {"id": 900, "segmentation": [], "attributes": {}},
        {"id": "a7", "score": 0.25},
    ]
    content["annotations"] = [{**a, **b} for a, b in zip(content["annotations"], more, strict=True)]
    content["images"][0]["license"] = 3
    content["licenses"] = [{"id": 3}]
    content["categories"][0]["supercategory"] = "animal"
    (root / "a.json").write_text(json.dumps(content))
    data: DetectionDataset = DATASETS.build(
        {"type": "CocoDataset", "annotations": str(root / "a.json"), "images": str(root / "images")}
    )
    return data


def test_annotation_ids_stay_in_coco_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    before = write_crowded_coco(tmp_path / "in")
    written = convert({"val": before}, tmp_path / "out", "coco")
    content = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert [a["id"] for a in content["annotations"]] == [900, 7, 1, 2]
    assert sorted(written.problems.lines()) == sorted([
        "1 annotation gets another id, because the split has its id twice:", "  2.png, box 1: 1, not 900",
        "1 mask is not read: a data set has boxes, with the area of the mask:", "  image 1 (1.png)",
        "1 object has keypoints, which are not read:", "  image 1 (1.png)",
        "5 keys of the file are not read:", "  license of 1 images", "  score of 2 annotations",
        "  attributes of 1 annotations", "  supercategory of 1 categories", "  licenses",
    ])  # fmt: skip


def test_what_is_lost_is_counted_for_the_images_that_are_written(tmp_path: Path) -> None:
    before = write_crowded_coco(tmp_path / "in")
    node = {"type": "SubsetDataset", "dataset": before, "images": ["2.png"]}
    problems = convert({"val": DATASETS.build(node)}, tmp_path / "out", "voc").problems
    assert problems.by_kind[NO_OBJECT_IDS].examples == ["2.png, box 1: 900"]
    assert problems.by_kind[OTHER_KEYS].examples == [
        "score of 1 annotations",
        "supercategory of 1 categories",
        "licenses",
    ]
    assert not problems.count(MASKS)


def test_what_voc_says_of_objects_and_no_record_holds_is_counted(tmp_path: Path) -> None:
    coco_set(tmp_path / "in", ["Zebra"], [Picture("1.png", [BOX]), Picture("2.png", [BOX, BOX])])
    convert({"val": read_source(tmp_path / "in").splits["all"]}, tmp_path / "voc", "voc")
    file = tmp_path / "voc/Annotations/2.xml"
    more = "<truncated>1</truncated><occluded>0</occluded><pose>Left</pose><attributes><attribute><name>age</name>"
    text = file.read_text().replace("<truncated>0</truncated>", f"{more}</attribute></attributes>", 1)
    file.write_text(text.replace("<pose>Unspecified</pose>", "", 1))
    problems = convert(read_source(tmp_path / "voc").splits, tmp_path / "out", "yolo").problems
    assert problems.by_kind[OTHER_KEYS].examples == [
        "<attributes> of 1 object",
        "<pose> of 1 object",
        "<truncated> of 1 object",
    ]

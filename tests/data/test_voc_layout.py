import logging
from pathlib import Path

import pytest
from PIL import Image

from detkit.data.datasets.auto import AutoDataset, find_data
from detkit.data.datasets.problems import BY_FILENAME, NO_SIZE, OTHER_IMAGE, UNLISTED
from detkit.data.datasets.voc import VocDataset
from tests.refusals import Refuses


def add(root: Path, xml: str, image: str | None, name: str = "cat", stated: str = "") -> None:
    """An annotation with one box of its own size and the image, of its own size, that it belongs to."""
    number = len(list(root.rglob("*.xml"))) + 1
    box = f"<xmin>1</xmin><ymin>2</ymin><xmax>{10 + number}</xmax><ymax>20</ymax>"
    file = f"<filename>{stated or Path(image or 'x').name}</filename>"
    item = f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
    size = "<size><width>0</width><height>0</height></size>"
    for path in filter(None, (xml, image)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / xml).write_text(f"<annotation>{file}{size}{item}</annotation>")
    if image is not None:
        Image.new("RGB", (60 + number, 40)).save(root / image)


def pairs(data: VocDataset | AutoDataset, root: Path) -> dict[str, float]:
    """Image -> xmax of its box, by which the annotation is known."""
    return {
        str(Path(data.records.path(i)).relative_to(root)): data.records.annotation(i).boxes[0, 2].item()
        for i in range(len(data))
    }


LAYOUTS = {
    "flat": [("a.xml", "a.jpg"), ("b.xml", "b.PNG")],
    "nested": [("x/a.xml", "x/a.jpg"), ("y/deep/a.xml", "y/deep/a.jpg")],
    "parallel": [("annotations/a.xml", "images/a.jpg"), ("annotations/b.xml", "images/b.jpg")],
    "parallel and nested": [("xml/p/a.xml", "photos/p/a.jpg"), ("xml/q/a.xml", "photos/q/a.jpg")],
    "nested and parallel": [("p/Annotations/a.xml", "p/JPEGImages/a.jpg"), ("q/Annotations/a.xml", "q/imgs/a.jpg")],
    "anywhere": [("labelled/monday/a.xml", "camera/1/a.jpg"), ("labelled/b.xml", "camera/2/b.jpg")],
    "suffix in the name": [("a.jpg.xml", "a.jpg"), ("b.jpg.xml", "b.jpg")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_annotation_finds_its_image_wherever_both_lie(tmp_path: Path, layout: str) -> None:
    for xml, image in LAYOUTS[layout]:
        add(tmp_path, xml, image)
    data = VocDataset(root=str(tmp_path), one_based=False)
    assert pairs(data, tmp_path) == {image: 11 + i for i, (_, image) in enumerate(LAYOUTS[layout])}
    assert [kind for kind, _ in data.problems] == [NO_SIZE]
    found = find_data(tmp_path)
    assert list(found.splits) == ["all"]
    assert found.format == "Pascal VOC"
    assert AutoDataset(root=str(tmp_path), split="all").content_hash() == data.content_hash()


SPLITS = {
    "folders": [("train/a.xml", "train/a.jpg"), ("valid/b.xml", "valid/b.jpg")],
    "folders of folders": [("train/Annotations/a.xml", "train/images/a.jpg"), ("val/xml/b.xml", "val/images/b.jpg")],
    "parallel": [("annotations/train/a.xml", "images/train/a.jpg"), ("annotations/val/b.xml", "images/val/b.jpg")],
    "same names": [("annotations/train/a.xml", "images/train/a.jpg"), ("annotations/val/a.xml", "images/val/a.jpg")],
    "below a folder": [("set/Training/a.xml", "set/Training/a.jpg"), ("set/Val2/b.xml", "set/Val2/b.jpg")],
}


@pytest.mark.parametrize("layout", SPLITS)
def test_folders_make_splits(tmp_path: Path, layout: str) -> None:
    for xml, image in SPLITS[layout]:
        add(tmp_path, xml, image)
    assert list(find_data(tmp_path).splits) == ["train", "val"]
    for split, (i, (_, image)) in zip(("train", "val"), enumerate(SPLITS[layout]), strict=True):
        assert pairs(AutoDataset(root=str(tmp_path), split=split), tmp_path) == {image: 11 + i}


def test_a_split_of_several_folders_has_their_paths(tmp_path: Path) -> None:
    for folder in ("red/train", "blue/train", "val"):
        add(tmp_path, f"{folder}/a.xml", f"{folder}/a.jpg")
    add(tmp_path, "loose.xml", "loose.jpg")
    found = find_data(tmp_path)
    assert list(found.splits) == ["val", "blue/train", "red/train"]
    assert "1 XML file is in no folder of a split, as loose.xml, and not read" in found.notes


def test_the_folders_of_a_challenge_are_found_below(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        add(tmp_path, f"{year}/Annotations/a.xml", f"{year}/JPEGImages/a.jpg")
        for name in ("train", "cat_train"):
            (tmp_path / year / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
            (tmp_path / year / f"ImageSets/Main/{name}.txt").write_text("a\n")
    assert list(find_data(tmp_path).splits) == ["VOC2007/train", "VOC2012/train"]
    assert list(find_data(tmp_path / "VOC2012").splits) == ["train"]


@pytest.mark.parametrize("place", ["ImageSets/train.txt", "train.txt"])
@pytest.mark.parametrize("images", ["JPEGImages", "pictures"])
def test_lists_and_images_may_lie_elsewhere(tmp_path: Path, place: str, images: str) -> None:
    for name in ("a", "b"):
        add(tmp_path, f"Annotations/{name}.xml", f"{images}/{name}.jpg", name=name)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(f"{images}/b.jpg\n")
    data = VocDataset(root=str(tmp_path), split="train", one_based=False)
    assert pairs(data, tmp_path) == {f"{images}/b.jpg": 12}
    assert data.classes.names == ("a", "b")


def test_the_size_of_an_image_that_states_none_is_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path, "a.xml", "a.jpg")
    Image.new("RGB", (8, 12)).save(tmp_path / "a.jpg")
    with caplog.at_level(logging.WARNING, logger="detkit"):
        data = VocDataset(root=str(tmp_path), one_based=False)
    assert data.records.annotation(0).boxes.tolist() == [[1, 2, 8, 12]]
    assert "xmax=11 in an image 8 wide, ymax=20 in an image 12 high" in caplog.text
    assert data.problems.by_kind[NO_SIZE].examples == ["a.xml"]
    assert "1 image states no size; that of the file is used" in data.summary()


def test_names_that_disagree_are_told(tmp_path: Path) -> None:
    add(tmp_path, "a.xml", "a.jpg", stated="b.jpg")
    add(tmp_path, "b.xml", "b.jpg")
    add(tmp_path, "first.xml", "photo.jpg")
    data = VocDataset(root=str(tmp_path), one_based=False)
    assert pairs(data, tmp_path) == {"a.jpg": 11, "b.jpg": 12, "photo.jpg": 13}
    assert data.problems.by_kind[OTHER_IMAGE].examples == ["a.xml: <filename> is b.jpg, a.jpg is used"]
    assert data.problems.by_kind[BY_FILENAME].examples == ["first.xml: photo.jpg"]


def test_the_suffix_that_is_stated_decides_among_several(tmp_path: Path) -> None:
    add(tmp_path, "a.xml", "a.jpg", stated="a.png")
    Image.new("RGB", (61, 40)).save(tmp_path / "a.png")
    data = VocDataset(root=str(tmp_path), one_based=False)
    assert pairs(data, tmp_path) == {"a.png": 11}
    assert data.problems.by_kind[UNLISTED].examples == [str(tmp_path / "a.jpg")]


def test_two_images_that_fit_and_none_are_refused(refuses: Refuses, tmp_path: Path) -> None:
    add(tmp_path, "xml/a.xml", "one/a.jpg")
    (tmp_path / "two").mkdir()
    Image.new("RGB", (61, 40)).save(tmp_path / "two/a.jpg")
    with refuses(ValueError):
        VocDataset(root=str(tmp_path))
    for folder in ("one", "two"):
        (tmp_path / folder / "a.jpg").unlink()
    with refuses(FileNotFoundError):
        VocDataset(root=str(tmp_path))


def test_annotations_may_lie_outside_of_the_root(tmp_path: Path) -> None:
    add(tmp_path, "labels/p/a.xml", "photos/p/a.jpg")
    add(tmp_path, "labels/q/a.xml", "photos/q/a.jpg")
    data = VocDataset(root=str(tmp_path / "photos"), annotations=str(tmp_path / "labels"), one_based=False)
    assert pairs(data, tmp_path) == {"photos/p/a.jpg": 11, "photos/q/a.jpg": 12}


def test_an_image_of_two_annotations_is_refused(refuses: Refuses, tmp_path: Path) -> None:
    add(tmp_path, "x/a.xml", "pictures/a.jpg")
    add(tmp_path, "y/a.xml", None)
    with refuses(ValueError):
        VocDataset(root=str(tmp_path))


def test_what_is_missing_is_named(refuses: Refuses, tmp_path: Path) -> None:
    add(tmp_path, "train/a.xml", "train/a.jpg")
    with refuses(FileNotFoundError):
        VocDataset(root=str(tmp_path), split="train")
    (tmp_path / "train/a.xml").unlink()
    with refuses(FileNotFoundError):
        VocDataset(root=str(tmp_path))
    with refuses(ValueError):
        find_data(tmp_path)
    with refuses(FileNotFoundError):
        find_data(tmp_path / "nowhere")


def test_an_xml_file_of_another_kind_is_no_voc(refuses: Refuses, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<svg><image/></svg>")
    with refuses(ValueError):
        find_data(tmp_path)


def test_lists_that_lie_elsewhere_are_named(tmp_path: Path) -> None:
    for name in "ab":
        add(tmp_path, f"annotations/xmls/{name}.xml", f"images/{name}.jpg")
    text = "the images of splits, and not read: VocDataset reads lists in ImageSets/Main beside Annotations"
    (tmp_path / "test.txt").write_text("other\n")
    assert not any("not read" in note for note in find_data(tmp_path).notes)
    (tmp_path / "test.txt").write_text("b 1 1\n")
    assert f"test.txt lists {text}" in find_data(tmp_path).notes
    (tmp_path / "annotations/trainval.txt").write_text("images/a.jpg\n")
    assert f"test.txt, annotations/trainval.txt list {text}" in find_data(tmp_path).notes

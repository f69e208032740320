import logging
from pathlib import Path

import pytest
from PIL import Image

from detkit.data.datasets.problems import (
    CLIPPED,
    COUNTS_FROM_ZERO,
    DROPPED,
    GUESSED_ENCODING,
    OTHER_IMAGE,
    PARTS,
    UNLISTED,
)
from detkit.data.datasets.voc import VocDataset
from tests.refusals import Refuses


def objects(*items: tuple[str, tuple[float, float, float, float], int]) -> str:
    return "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b, difficult in items
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    add(tmp_path, "a", ("dog", (1, 1, 10, 20), 0), ("cat", (5, 5, 60, 40), 1))
    add(tmp_path, "b")
    add(tmp_path, "c", ("bird", (2, 2, 9, 9), 0))
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("c 1\n")
    return tmp_path


def add(
    root: Path,
    stem: str,
    *items: tuple[str, tuple[float, float, float, float], int],
    size: str = "<size><width>60</width><height>40</height></size>",
) -> None:
    (root / f"Annotations/{stem}.xml").write_text(f"<annotation>{size}{objects(*items)}</annotation>")
    Image.new("RGB", (60, 40)).save(root / f"JPEGImages/{stem}.jpg")


def test_boxes_count_from_one_and_difficult_is_ignored(root: Path) -> None:
    data = VocDataset(root=str(root), split="train")
    # All splits' names, so that train and val agree.
    assert data.classes.names == ("bird", "cat", "dog")
    assert data.classes == VocDataset(root=str(root), split="val").classes
    a = data.records.annotation(0)
    assert a.boxes.tolist() == [[0, 0, 10, 20], [4, 4, 60, 40]]
    assert a.labels.tolist() == [2, 1]
    assert a.is_ignore.tolist() == [False, True]
    assert len(data.records.annotation(1).boxes) == 0
    zero = VocDataset(root=str(root), split="train", one_based=False)
    assert zero.records.annotation(0).boxes[0].tolist() == [1, 1, 10, 20]


def test_a_box_without_area_as_published_is_dropped_by_name(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(root, "a", ("dog", (5, 5, 5, 20), 0), ("dog", (1, 1, 10, 20), 0))
    with caplog.at_level(logging.WARNING, logger="detkit"):
        data = VocDataset(root=str(root), split="train")
    assert "1 box is unusable and left out of training:\n  a.xml, box 1 [5.0, 5.0, 5.0, 20.0]: zero area" in caplog.text
    assert len(data.records.annotation(0).boxes) == 1


def test_classes_that_differ_in_case_only_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(root, "b", ("Dog", (1, 1, 10, 20), 0))
    with caplog.at_level(logging.WARNING, logger="detkit"):
        data = VocDataset(root=str(root), split="train")
    assert data.classes.names == ("Dog", "bird", "cat", "dog")
    assert "(train): the classes Dog, dog differ only in case or spaces; they count as different classes" in caplog.text


def test_names_with_spaces_and_lists_of_windows_are_read(root: Path) -> None:
    for stem in ("my dog (1)", "a 1"):
        add(root, stem, ("dog", (1, 1, 10, 20), 0))
    (root / "ImageSets/Main/train.txt").write_bytes("\ufeffmy dog (1)\r\na 1\r\nb -1\r\n\r\n".encode())
    data = VocDataset(root=str(root), split="train")
    assert [data.records.path(i).rsplit("/", 1)[1] for i in range(3)] == ["my dog (1).jpg", "a 1.jpg", "b.jpg"]


def test_a_size_that_is_not_stated_is_unknown(root: Path) -> None:
    add(root, "a", ("dog", (1, 1, 10, 20), 0), size="")
    data = VocDataset(root=str(root), split="train")
    assert data.records.sizes[0].tolist() == [-1, -1]
    assert data.checked_image(0).size == (60, 40)


def test_a_size_that_is_not_the_images_is_refused_when_loaded(refuses: Refuses, root: Path) -> None:
    Image.new("RGB", (40, 60)).save(root / "JPEGImages/a.jpg")
    with refuses(ValueError):
        VocDataset(root=str(root), split="train").checked_image(0)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("ImageSets/Main/train.txt", ""),
        ("ImageSets/Main/train.txt", "a\na\n"),
        ("ImageSets/Main/train.txt", "a\nz\n"),
        ("Annotations/a.xml", f"<annotation>{objects((' ', (1, 1, 2, 2), 0))}</annotation>"),
        ("Annotations/a.xml", "<annotation>"),
        ("Annotations/a.xml", "<annotation><object><name>x</name></object></annotation>"),
        ("Annotations/a.xml", f"<annotation>{objects(('dog', ('one', 1, 2, 2), 0))}</annotation>"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_with_a_file_is_named(refuses: Refuses, root: Path, path: str, text: str) -> None:
    (root / path).write_text(text)
    with refuses((ValueError, FileNotFoundError)):
        VocDataset(root=str(root), split="train")


def test_files_beside_the_images_are_not_taken_for_them(root: Path) -> None:
    (root / "JPEGImages/a.txt").write_text("notes")
    (root / "JPEGImages/a.png").write_text("another format of the same name")
    data = VocDataset(root=str(root), split="train")
    assert data.records.path(0).endswith("/a.jpg")
    (root / "JPEGImages/b.jpg").rename(root / "JPEGImages/b.JPEG")
    assert VocDataset(root=str(root), split="train").records.path(1).endswith("/b.JPEG")


def test_missing_images_splits_and_folders_are_named(refuses: Refuses, root: Path, tmp_path: Path) -> None:
    with refuses(FileNotFoundError):
        VocDataset(root=str(root), split="test")
    with refuses(FileNotFoundError):
        VocDataset(root=str(tmp_path / "nowhere"), split="train")
    (root / "JPEGImages/b.jpg").unlink()
    with refuses(FileNotFoundError):
        VocDataset(root=str(root), split="train")


def test_the_blood_cells_published_mistakes_are_reported_by_name(
    shared_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="detkit"):
        sets = [VocDataset(root=str(shared_dir / "data/bccd"), split=s) for s in ("train", "val", "test")]
    assert [len(s) for s in sets] == [205, 87, 72]
    assert sum(s.problems.count(DROPPED) for s in sets) == 2
    assert "BloodImage_00338.xml" in caplog.text
    assert "BloodImage_00343.xml" in caplog.text
    assert sum(len(s.records.boxes) for s in sets) == 4888 - 2


FOREIGN = {
    "<annotations><image id='0' name='a.png'><box label='cat' xtl='1'/></image></annotations>": (
        "root <annotations>: an export of CVAT in its own format.*the root of a VOC annotation is <annotation>"
    ),
    "<dataset><images/></dataset>": "root <dataset>: a file of dlib's imglab",
    "<foo/>": "root <foo>; the root of a VOC",
    "": "the file is empty",
    "<!DOCTYPE html><html><p>404</html>": "the file is an HTML page",
    '{"version": "5", "shapes": [], "imagePath": "a.png"}': "the file is JSON: a LabelMe file of one image",
    "0 0.5 0.5 0.1 0.1\n": "the file is a YOLO label file",
    "hello": "the file is no XML \\(it begins with 'hello'\\)",
    "<annotation><size><width>60": r"no element found.*\(cut off\?\)",
    "<annotation/>": "it is empty, and none of <filename>, <folder>, <object>",
    "<annotation><thing/></annotation>": "it holds <thing>, and none of",
    "<annotation><filename>a</filename><item><bndbox/></item></annotation>": "<bndbox> stands outside of <object>",
    "<annotation><object><name>cat</name><polygon><pt/></polygon></object></annotation>": (
        r"object 1 \(cat\): no bndbox but <polygon>: export the set with boxes"
    ),
    "<annotation><object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object></annotation>": (
        r"object 1 \(cat\): bndbox has no ymin, xmax, ymax"
    ),
    "<annotation><size><width>wide</width></size></annotation>": "size has width 'wide', not a number",
}


@pytest.mark.parametrize("text", FOREIGN)
def test_a_file_of_another_kind_is_named_and_never_without_objects(refuses: Refuses, root: Path, text: str) -> None:
    (root / "Annotations/a.xml").write_text(text)
    with refuses(ValueError):
        VocDataset(root=str(root), split="train")


CAT = "<size><width>60</width><height>40</height></size>" + objects(("Größe", (1, 1, 10, 20), 0))


def test_a_namespace_is_read(root: Path) -> None:
    (root / "Annotations/a.xml").write_text(f"<annotation xmlns='http://example.org/voc'>{CAT}</annotation>")
    data = VocDataset(root=str(root), split="train")
    assert data.records.annotation(0).boxes.tolist() == [[0, 0, 10, 20]]
    assert "Größe" in data.classes.names


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "gbk", "cp1252"])
def test_annotations_in_a_declared_encoding_are_read(root: Path, encoding: str) -> None:
    name = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{name}"?>\n<annotation>{CAT}</annotation>'
    text = text.replace("Größe", "鸟") if encoding == "gbk" else text
    (root / "Annotations/a.xml").write_bytes(text.encode(encoding))
    assert {"鸟", "Größe"} & set(VocDataset(root=str(root), split="train").classes.names)


@pytest.mark.parametrize("declared", ["", "ascii", "utf-8", "klingon"])
@pytest.mark.parametrize(
    ("encoding", "names"),
    [("cp1252", ["Größe", "créée", "Äpfel"]), ("gb18030", ["鸟", "苹果A"]), ("cp1251", ["яблоко", "груша"])],
)
def test_an_encoding_that_is_not_declared_is_guessed_for_all_files_and_told(
    root: Path, declared: str, encoding: str, names: list[str]
) -> None:
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    items = objects(*((name, (1, 1, 10, 20), 0) for name in names))
    (root / "Annotations/a.xml").write_bytes(f"{head}<annotation>{items}</annotation>".encode(encoding))
    (root / "Annotations/b.xml").write_bytes(
        f"{head}<annotation>{objects((names[0], (1, 1, 10, 20), 0))}</annotation>".encode(encoding)
    )
    data = VocDataset(root=str(root), split="train")
    assert set(data.classes.names) == {*names, "bird"}
    examples = data.problems.by_kind[GUESSED_ENCODING].examples
    assert examples[0].startswith(f"a.xml: {encoding}, with the class names ")
    assert all(n in examples[0] for n in names)


def test_an_encoding_that_is_set_is_not_guessed(refuses: Refuses, root: Path) -> None:
    text = f"<annotation>{objects(('사과', (1, 1, 10, 20), 0))}</annotation>"
    (root / "Annotations/a.xml").write_bytes(text.encode("euc_kr"))
    data = VocDataset(root=str(root), split="train", encoding="euc_kr")
    assert "사과" in data.classes.names
    assert GUESSED_ENCODING not in data.problems.by_kind
    for wrong in ("ascii", "klingon"):
        with refuses(ValueError):
            VocDataset(root=str(root), split="train", encoding=wrong)


@pytest.mark.parametrize(
    "raw",
    [
        f"<annotation>{CAT}</annotation>".encode().replace(b"\xc3\xb6", b"\xc3"),  # UTF-8 with a byte missing
        f"<annotation>{CAT}\x01</annotation>".encode("latin-1"),
        f'<?xml version="1.0" encoding="klingon"?><annotation>{CAT}</annotation>'.encode(),
    ],
)
def test_damaged_text_is_not_taken_for_another_encoding(refuses: Refuses, root: Path, raw: bytes) -> None:
    (root / "Annotations/a.xml").write_bytes(raw)
    with refuses(ValueError):
        VocDataset(root=str(root), split="train")


@pytest.mark.parametrize(("encoding", "stem"), [("cp1252", "Größe"), ("gb18030", "鸟")])
def test_a_list_in_another_encoding_is_named(refuses: Refuses, root: Path, encoding: str, stem: str) -> None:
    add(root, stem, ("dog", (1, 1, 10, 20), 0))
    (root / "ImageSets/Main/train.txt").write_bytes(f"{stem}\r\n".encode(encoding))
    with refuses(ValueError):
        VocDataset(root=str(root), split="train")


def test_a_list_in_utf_16_is_read(root: Path) -> None:
    (root / "ImageSets/Main/train.txt").write_bytes("a\r\nb\r\n".encode("utf-16"))
    assert len(VocDataset(root=str(root), split="train")) == 2


@pytest.mark.parametrize("line", ["a.jpg", "JPEGImages/a.jpg", "VOC\\JPEGImages\\a.jpg", "a.jpg 1"])
def test_names_in_lists_may_have_folders_and_suffixes(refuses: Refuses, root: Path, line: str) -> None:
    (root / "ImageSets/Main/train.txt").write_text(f"{line}\n")
    data = VocDataset(root=str(root), split="train")
    assert data.records.path(0).endswith("/JPEGImages/a.jpg")
    (root / "ImageSets/Main/train.txt").write_text(f"{line}\na\n")
    with refuses(ValueError):
        VocDataset(root=str(root), split="train")


def test_a_listed_name_that_differs_in_case_is_told(refuses: Refuses, root: Path) -> None:
    (root / "ImageSets/Main/train.txt").write_text("A\n")
    with refuses(FileNotFoundError):
        VocDataset(root=str(root), split="train")


def test_a_folder_without_xml_says_what_it_has(refuses: Refuses, root: Path) -> None:
    for file in (root / "Annotations").iterdir():
        file.rename(file.with_suffix(".json"))
    with refuses(FileNotFoundError):
        VocDataset(root=str(root), split="train")


def test_annotations_without_a_single_object_are_refused(refuses: Refuses, root: Path) -> None:
    for stem in "abc":
        add(root, stem)
    with refuses(ValueError):
        VocDataset(root=str(root), split="train")


def test_the_file_name_in_an_annotation_leads_to_its_image(root: Path) -> None:
    size = "<filename>C:\\set\\photo.png</filename><size><width>60</width><height>40</height></size>"
    add(root, "a", ("dog", (1, 1, 10, 20), 0), size=size)
    (root / "JPEGImages/a.jpg").rename(root / "JPEGImages/photo.png")
    assert VocDataset(root=str(root), split="train").records.path(0).endswith("/photo.png")


def test_evaluation_has_every_box_with_its_last_pixel(root: Path) -> None:
    add(root, "a", ("dog", (5, 5, 5, 20), 0), ("dog", (51, 1, 70, 20), 0))
    data = VocDataset(root=str(root), split="train")
    assert data.records.annotation(0).boxes.tolist() == [[50, 0, 60, 20]]
    assert data.records.truth.boxes.tolist() == [[4, 4, 1, 16], [50, 0, 20, 20]]
    assert data.records.truth.area.tolist() == [16, 400]
    assert "1 is left out of training and 1 differs in training" in data.summary()


def test_fractions_are_refused(refuses: Refuses, root: Path) -> None:
    add(root, "a", ("dog", (0.1, 0.2, 0.5, 0.9), 0))
    with refuses(ValueError):
        VocDataset(root=str(root), split="train")


def test_images_without_annotation_are_counted_and_classes_can_be_chosen(root: Path) -> None:
    Image.new("RGB", (60, 40)).save(root / "JPEGImages/left_over.jpg")
    data = VocDataset(root=str(root), split="train", class_map={"dog": "pet"}, ignore_classes=["cat"])
    assert data.problems.by_kind[UNLISTED].examples == [str(root / "JPEGImages/left_over.jpg")]
    assert data.classes.names == ("bird", "pet")
    assert data.records.is_ignore.tolist() == [False, True]


def test_a_box_over_the_edge_is_named_where_no_size_is_stated(root: Path) -> None:
    add(root, "a", ("dog", (5, 5, 5000, 20), 0), size="")
    data = VocDataset(root=str(root), split="train")
    assert data.problems.by_kind[CLIPPED].examples == [
        "a.xml, box 1 [4.0, 4.0, 5000.0, 20.0]: xmax=5000 in an image 60 wide"
    ]
    assert data.records.annotation(0).boxes.tolist() == [[4, 4, 60, 20]]


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_one_image_of_two_annotations_is_refused(refuses: Refuses, root: Path, link: str) -> None:
    image = root / "JPEGImages/b.jpg"
    image.unlink()
    getattr(image, link)(root / "JPEGImages/a.jpg")
    with refuses(ValueError):
        VocDataset(root=str(root), split="train")


def test_the_suffix_that_an_annotation_states_decides(root: Path) -> None:
    Image.new("RGB", (60, 40)).save(root / "JPEGImages/a.png")
    text = (root / "Annotations/a.xml").read_text()
    (root / "Annotations/a.xml").write_text(text.replace("<size>", "<filename>a.png</filename><size>"))
    data = VocDataset(root=str(root), split="train")
    assert data.records.path(0).endswith("JPEGImages/a.png")
    (root / "Annotations/a.xml").write_text(text.replace("<size>", "<filename>c.jpg</filename><size>"))
    data = VocDataset(root=str(root), split="train")
    assert data.problems.by_kind[OTHER_IMAGE].examples == ["a.xml: <filename> is c.jpg, a.jpg is used"]


def test_parts_and_boxes_that_begin_at_zero_are_counted(root: Path) -> None:
    item = objects(("dog", (0, 3, 10, 20), 0)).replace("</object>", "<part><name>head</name></part></object>")
    (root / "Annotations/a.xml").write_text(f"<annotation>{item}</annotation>")
    data = VocDataset(root=str(root), split="train")
    assert data.problems.by_kind[PARTS].examples == ["a.xml, box 1 (dog)"]
    assert data.problems.by_kind[COUNTS_FROM_ZERO].examples == ["a.xml, box 1 [0.0, 3.0, 10.0, 20.0]"]
    plain = VocDataset(root=str(root), split="train", one_based=False)
    assert plain.problems.count(COUNTS_FROM_ZERO) == 0


@pytest.mark.parametrize("tag", ["name", "bndbox"])
def test_an_object_with_two_boxes_or_names_is_refused(refuses: Refuses, root: Path, tag: str) -> None:
    item = objects(("dog", (3, 3, 10, 20), 0)).replace(f"</{tag}>", f"</{tag}><{tag}/>", 1)
    (root / "Annotations/a.xml").write_text(f"<annotation>{item}</annotation>")
    with refuses(ValueError):
        VocDataset(root=str(root), split="train")


def test_entities_are_refused_without_being_read_or_expanded(refuses: Refuses, root: Path) -> None:
    (root / "secret").write_text("SECRET")
    laughs = "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, 12))
    item = objects(("&l11;", (3, 3, 10, 20), 0))
    for head in (f"<!ENTITY l0 'ha'>{laughs}", f"<!ENTITY l11 SYSTEM 'file://{root}/secret'>"):
        for encoding in ("utf-8", "utf-16", "utf-16-be"):
            text = f"<!DOCTYPE annotation [{head}]><annotation>{item}</annotation>"
            (root / "Annotations/a.xml").write_bytes(text.encode(encoding))
            with refuses(ValueError):
                VocDataset(root=str(root), split="train")


def test_hidden_files_are_passed_over_and_folders_named(refuses: Refuses, root: Path) -> None:
    (root / "Annotations/._a.xml").write_bytes(b"\0\5\x16\7Mac OS X")
    assert len(VocDataset(root=str(root), split="train")) == 2
    (root / "Annotations/d.xml").symlink_to("d.xml")
    with refuses(ValueError):
        VocDataset(root=str(root), split="train")
    for file in (root / "Annotations").iterdir():
        file.unlink()
    (root / "Annotations/below").mkdir()
    with refuses(FileNotFoundError):
        VocDataset(root=str(root), split="train")

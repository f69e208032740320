"""CSV tables as tutorials, Kaggle and spreadsheets write them."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detkit.data.datasets.auto import find_data
from detkit.data.datasets.csv_dataset import CsvDataset
from detkit.data.datasets.csv_images import MOVED, NO_BOX_OF_CLASS
from detkit.data.datasets.found import Place
from detkit.data.datasets.problems import COUNTS_FROM_ZERO, DROPPED
from detkit.data.datasets.voc import VocDataset
from detkit.data.datasets.voc_find import FROM_ZERO
from detkit.data.datasets.yolo_file import CONFIDENCES
from detkit.data.writers.csv import write_csv
from detkit.registry import DATASETS
from tests.refusals import Refuses

TUTORIAL = "filename,width,height,class,xmin,ymin,xmax,ymax"
CORNERS = "filename,class,xmin,ymin,xmax,ymax"
MAPPED = {"image": "f", "class": "k", "xmin": "l", "ymin": "t", "xmax": "r", "ymax": "b"}
WHEAT: dict[str, Any] = {"box_format": "xywh", "single_class": "cat"}
KERAS = "img/a.jpg,40,15,60,35,cat\nimg/a.jpg,0,0,20,20,dog\nimg/b.jpg,,,,,\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / "img").mkdir(exist_ok=True)
        Image.new("RGB", (100, 50)).save(tmp_path / f"img/{name}.jpg")
    return tmp_path


def read(root: Path, text: str | bytes, **options: Any) -> CsvDataset:
    (root / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return CsvDataset(annotations=str(root / "a.csv"), **{"images": str(root / "img"), **options})


def boxes(data: CsvDataset, index: int = 0) -> list[list[float]]:
    found: list[list[float]] = data.records.annotation(index).boxes.tolist()
    return found


def test_the_table_of_the_tutorials_counts_as_voc_does(root: Path) -> None:
    data = read(root, f"{TUTORIAL}\na.jpg,100,50,cat,41,16,60,35\na.jpg,100,50,dog,1,1,20,20\nb.jpg,100,50,,,,,\n")
    assert boxes(data) == [[40, 15, 60, 35], [0, 0, 20, 20]]
    assert data.records.truth.boxes.tolist() == [[40, 15, 20, 20], [0, 0, 20, 20]]
    assert (data.classes.names, len(data), boxes(data, 1)) == (("cat", "dog"), 2, [])
    zero = read(root, f"{TUTORIAL}\na.jpg,100,50,cat,0,16,60,35\n")
    assert zero.problems.count(COUNTS_FROM_ZERO) == 1
    assert boxes(read(root, f"{TUTORIAL}\na.jpg,0,0,cat,0,16,60,35\n", one_based=False)) == [[0, 16, 60, 35]]


def test_the_table_of_keras_retinanet_has_no_header(root: Path) -> None:
    data = read(root, KERAS, images=str(root))
    assert boxes(data) == [[40, 15, 60, 35], [0, 0, 20, 20]]
    assert (boxes(data, 1), data.classes.names) == ([], ("cat", "dog"))
    (root / "classes.csv").write_text("dog,0\ncat,1\nbird,2\n")
    data = read(root, KERAS, images=str(root), classes=str(root / "classes.csv"))
    assert data.classes.names == ("dog", "cat", "bird")
    assert data.records.annotation(0).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("file_name;label;x_min;y_min;x_max;y_max\na.jpg;cat;40,0;15;60;35,0\n", {}),
        ("image\tclass\tx1\ty1\tx2\ty2\na.jpg\tcat\t40\t15\t60\t35\n", {}),
        ("Image Path|Category|left|top|right|bottom\na.jpg|cat|40|15|60|35\n", {}),
        ('"image_id","class","xmin","ymin","xmax","ymax"\r\n"a","cat","40","15","60","35"\r\n', {}),
        ("\ufefffilename,class,xmin,ymin,xmax,ymax\n\n a.jpg , cat ,40,15,60,35\n", {}),
        ("ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,cat,0.4,0.6,0.3,0.7,0\n", {}),
        ('image_id,width,height,bbox\na,100,50,"[40.0, 15.0, 20.0, 20.0]"\n', WHEAT),
        ("filename,x,y,width,height,class\na.jpg,40,15,20,20,cat\n", {"box_format": "xywh"}),
        ("filename,x,y,w,h,class\na.jpg,50,25,20,20,cat\n", {"box_format": "cxcywh"}),
        ("filename,x_center,y_center,w,h,class\na.jpg,0.5,0.5,0.2,0.4,cat\n", {}),
        ("image_id,path,class,class_name,xmin,ymin,xmax,ymax\n17,a.jpg,3,cat,40,15,60,35\n", {}),
        ("class_name,class,image,xmin,ymin,xmax,ymax\nfeline,cat,a.jpg,40,15,60,35\n", {}),
        ("f,k,l,t,r,b\na.jpg,cat,40,15,60,35\n", {"columns": MAPPED}),
        ("a.jpg,cat,40,15,60,35\n", {"header": ["image", "class", "xmin", "ymin", "xmax", "ymax"]}),
        (f"{CORNERS}\n/home/bob/img/a.jpg,cat,40,15,60,35\n", {}),
        (f"{CORNERS}\nimg\\a.jpg,cat,40,15,60,35\n", {}),
        (f"split,{CORNERS}\nval,b.jpg,cat,1,1,5,5\ntrain,a.jpg,cat,40,15,60,35\n", {"split": "train"}),
        (f"{CORNERS}\na.jpg,cat,40,15,60,35\n".encode("utf-16"), {}),
    ],
)  # fmt: skip
def test_a_table_is_read_in_every_form(root: Path, text: str | bytes, options: dict[str, Any]) -> None:
    data = read(root, text, **options)
    assert [[round(v, 4) for v in box] for box in boxes(data)] == [[40, 15, 60, 35]]
    assert (data.classes.names, data.records.file_name(0), len(data)) == (("cat",), "a.jpg", 1)


def test_a_size_without_corners_is_kept_as_it_is_written(root: Path) -> None:
    data = read(root, "filename,x,y,width,height,class\na.jpg,0.1,0.7,20.3,20,cat\n", box_format="xywh")
    assert data.records.truth.boxes.tolist() == [[0.1, 0.7, 20.3, 20]]
    assert data.records.sizes[0].tolist() == [-1, -1]


def test_another_encoding_is_named_and_can_be_given(root: Path) -> None:
    raw = f"{CORNERS}\na.jpg,Größe,40,15,60,35\n".encode("cp1252")
    with pytest.raises(ValueError, match=r"line 2 has the byte 0xf6.*or set `encoding`"):
        read(root, raw)
    assert read(root, raw, encoding="cp1252").classes.names == ("Größe",)


def test_ignored_rows_are_ignore_regions(root: Path) -> None:
    text = "filename,class,xmin,ymin,xmax,ymax,difficult\na.jpg,cat,40,15,60,35,1\na.jpg,dog,1,1,9,9,0\n"
    assert read(root, text).records.is_ignore.tolist() == [True, False]


def test_numbers_of_classes_are_looked_up(root: Path) -> None:
    (root / "classes.csv").write_text("name,id\ncat,3\ndog,7\n")
    text = f"{CORNERS}\na.jpg,7,40,15,60,35\n"
    data = read(root, text, classes=str(root / "classes.csv"))
    assert data.classes.names[data.records.annotation(0).labels[0]] == "dog"


def test_boxes_of_no_use_are_dropped_and_paths_of_other_machines_counted(root: Path) -> None:
    rows = "a.jpg,cat,60,15,40,35\na.jpg,cat,nan,15,40,35\n/x/y/b.jpg,cat,1,2,30,40\n"
    data = read(root, f"{CORNERS}\n{rows}")
    assert (data.problems.count(DROPPED), data.problems.count(MOVED)) == (2, 1)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("just text\nmore\n", {}),
        ("a.jpg,cat,40,15,60,35\n", {}),
        (f"{TUTORIAL}\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,,,,,\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,35,7\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,,40,15,60,35\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,,,\n", {}),
        (f"{TUTORIAL}\n,100,50,cat,40,15,60,35\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,4O,15,60,35\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,1_0,15,60,35\n", {}),
        (f'{TUTORIAL}\n"a.jpg,100,50,cat,40,15,60,35\n', {}),
        (f'{TUTORIAL}\n"a".jpg,100,50,cat,40,15,60,35\n', {}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,35\na.jpg,50,100,cat,40,15,60,35\n", {}),
        (f"{TUTORIAL}\nzz.jpg,100,50,cat,40,15,60,35\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,35\nA.JPG,100,50,cat,40,15,60,35\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,35\n../img/./a.jpg,100,50,cat,40,15,60,35\nl.jpg,1,1,,,,,\n", {}),
        ("filename,class,class,xmin,ymin,xmax,ymax\na.jpg,cat,dog,1,2,3,4\n", {}),
        ("filename,x,y,width,height,class\na.jpg,40,15,20,20,cat\n", {}),
        ("image_id,bbox\na,[1,2,3,4]\n", {"single_class": "cat"}),
        ('image_id,bbox\na,"[1,2,3]"\n', {"single_class": "cat", "box_format": "xywh"}),
        ("filename,class,x,y\na.jpg,cat,1,2\n", {}),
        ("filename,xmin,ymin,xmax,ymax\na.jpg,1,2,3,4\n", {}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,35\n", {"columns": {"klass": "class"}}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,35\n", {"columns": {"class": "klass"}}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,35\n", {"split": "train"}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,35\n", {"single_class": "cat"}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,35\n", {"encoding": "utf-99"}),
        (f"{TUTORIAL}\na.jpg,100,50,cat,40,15,60,35\n", {"encoding": "base64"}),
        ("filename,class,xmin,ymin,xmax,ymax,difficult\na.jpg,cat,40,15,60,35,maybe\n", {}),
        (f"{CORNERS}\na.jpg,cat,0.4,0.2,0.9,0.9\n", {"fractions": False}),
        ("<annotation/>", {}),
        ('{"images": []}', {}),
        (b"PK\x03\x04\xff\xff\xfe", {}),
        (f"{TUTORIAL}\na\0.jpg,100,50,cat,40,15,60,35\n", {}),
    ],
)
def test_what_is_wrong_with_a_table_is_named(
    refuses: Refuses, root: Path, text: str | bytes, options: dict[str, Any]
) -> None:
    (root / "img/l.jpg").symlink_to(root / "img/a.jpg")
    with refuses((ValueError, FileNotFoundError)):
        read(root, text, **options)


@pytest.mark.parametrize("text", ["cat\n", "cat,0\ncat,1\n", "cat,0\ndog,0\n", "cat,x\ndog,0\n", "dog,0\n", ""])
def test_what_is_wrong_with_classes_is_named(refuses: Refuses, root: Path, text: str) -> None:
    (root / "classes.csv").write_text(text)
    with refuses(ValueError):
        read(root, KERAS, images=str(root), classes=str(root / "classes.csv"))


def test_tables_of_a_folder_are_found_with_images_and_classes(root: Path) -> None:
    (root / "train").mkdir()
    (root / "img/a.jpg").rename(root / "train/a.jpg")
    (root / "img").rename(root / "test")
    for split, name in (("train", "a"), ("test", "b")):
        (root / f"{split}_labels.csv").write_text(f"{TUTORIAL}\n{name}.jpg,100,50,cat,41,16,60,35\n")
    (root / "notes.csv").write_text("a,b\n1,2\n")
    found = find_data(root)
    assert (found.format, sorted(found.splits)) == ("CSV", ["test", "train"])
    for node in found.splits.values():
        assert boxes(DATASETS.build(node)) == [[40, 15, 60, 35]]


def test_a_table_of_keras_retinanet_is_found_with_its_classes(root: Path) -> None:
    (root / "annotations.csv").write_text(KERAS)
    (root / "classes.csv").write_text("dog,0\ncat,1\n")
    found = find_data(root)
    assert DATASETS.build(found.splits["all"]).classes.names == ("dog", "cat")


def test_the_folders_of_tables_are_their_splits(root: Path) -> None:
    for split, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        (root / split).mkdir()
        Image.new("RGB", (100, 50)).save(root / split / f"{name}.jpg")
        (root / split / "_annotations.csv").write_text(f"{TUTORIAL}\n{name}.jpg,100,50,cat,41,16,60,35\n")
    (root / "all.csv").write_text(f"{CORNERS}\na.jpg,cat,1,1,9,9\n")
    found = find_data(root)
    names = {split: DATASETS.build(node).records.file_name(0) for split, node in found.splits.items()}
    assert names == {"train": "a.jpg", "val": "b.jpg", "test": "c.jpg"}
    assert "not read: all.csv" in found.notes
    assert "test/_annotations.csv" in found.why


def test_several_tables_of_a_split_are_all_named(root: Path) -> None:
    for part in ("train", "train_2", "val"):
        (root / f"{part}.csv").write_text(f"{CORNERS}\na.jpg,cat,1,1,9,9\n")
    found = find_data(root)
    assert list(found.splits) == ["val", "train.csv", "train_2.csv"]
    assert found.notes == ("several are of one split, so each is its own: train.csv, train_2.csv",)
    assert list(find_data(root / "val.csv").splits) == ["val"]


def test_a_column_of_splits_makes_the_splits(root: Path) -> None:
    (root / "img").rename(root / "images")
    rows = "a.jpg,cat,40,15,60,35,TRAIN\nb.jpg,dog,1,1,9,9,valid\nc.jpg,dog,1,1,9,9,\n"
    (root / "boxes.csv").write_text(f"{CORNERS},split\n{rows}")
    found = find_data(root)
    names = {split: DATASETS.build(node).records.file_name(0) for split, node in found.splits.items()}
    assert names == {"train": "a.jpg", "val": "b.jpg"}
    assert found.notes == ("boxes.csv: 1 row is in no split, and not read",)
    (root / "boxes.csv").write_text(f"{CORNERS},split\n{rows.replace('valid', 'train')}")
    assert list(find_data(root).splits) == ["boxes.csv/TRAIN", "boxes.csv/train"]
    (root / "boxes.csv").write_text(f"{CORNERS},set\na.jpg,cat,40,15,60,35,7\n")
    assert list(find_data(root).splits) == ["all"]


def test_the_folder_of_images_is_found_by_names_without_suffixes(root: Path) -> None:
    (root / "img").rename(root / "train")
    (root / "train.csv").write_text("image_id,class,xmin,ymin,xmax,ymax\na,cat,40,15,60,35\n")
    assert find_data(root).splits["train"]["images"] == str(root / "train")


def test_a_table_far_from_the_top_and_from_its_images_is_found(root: Path) -> None:
    (root / "images/deep/down").mkdir(parents=True)
    (root / "img").rename(root / "images/deep/down/jpg")
    for split, name in (("train", "a"), ("val", "b")):
        table = root / f"labels/{split}/csv/boxes.csv"
        table.parent.mkdir(parents=True)
        table.write_text(f"{CORNERS}\njpg/{name},cat,40,15,60,35\n")
    found = {split: DATASETS.build(node) for split, node in find_data(root).splits.items()}
    assert {split: data.records.path(0) for split, data in found.items()} == {
        split: f"{root}/images/deep/down/jpg/{name}.jpg" for split, name in (("train", "a"), ("val", "b"))
    }


@pytest.mark.parametrize("name", ["val", "valid_labels"])
@pytest.mark.parametrize("folder", ["images/val", "val"])
def test_the_folder_of_a_split_goes_before_that_of_all(root: Path, name: str, folder: str) -> None:
    for place in ("images", folder):
        (root / place).mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (100, 50)).save(root / place / "c.jpg")
    for table in (f"{name}.csv", f"tables/{name}.csv"):
        (root / "tables").mkdir(exist_ok=True)
        (root / table).write_text(f"{CORNERS}\nc.jpg,cat,40,15,60,35\n")
        assert find_data(root / table).splits["val"]["images"] == str(root / folder)


def test_images_that_may_be_in_several_far_folders_are_not_guessed(root: Path) -> None:
    for folder in ("p/x", "q/x"):
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (100, 50)).save(root / folder / "c.jpg")
    (root / "boxes.csv").write_text(f"{CORNERS}\nc.jpg,cat,40,15,60,35\n")
    assert find_data(root).splits["all"]["images"] == str(root)


@pytest.mark.parametrize("header", ["x1,y1,width,height", "left,top,w,h", "bbox_x1,bbox_y1,bbox_w,bbox_h"])
def test_a_corner_and_sides_need_no_format(root: Path, header: str) -> None:
    (root / "a.csv").write_text(f"filename,{header},class\na.jpg,40,15,20,20,cat\n")
    assert boxes(DATASETS.build(find_data(root).splits["all"])) == [[40, 15, 60, 35]]


def test_detections_are_warned_of(root: Path) -> None:
    rows = "a.jpg,cat,40,15,60,35,1\na.jpg,cat,1,1,9,9,0.3\nb.jpg,cat,,,,,0.5\n"
    assert read(root, f"{CORNERS},Score\n{rows}").problems.by_kind[CONFIDENCES].examples == ["line 3: 0.3"]
    assert not read(root, f"{CORNERS},Score\n{rows.replace('0.3', '1.0')}").problems.count(CONFIDENCES)


def test_a_class_without_a_box_is_an_image_without_objects(root: Path) -> None:
    data = read(root, f"{CORNERS}\na.jpg,cat,40,15,60,35\nb.jpg,No finding,,,,\n")
    assert (data.classes.names, len(data), boxes(data, 1)) == (("cat",), 2, [])
    assert data.problems.count(NO_BOX_OF_CLASS) == 1
    text = 'image,label,bbox\na.jpg,cat,"[40, 15, 20, 20]"\nb.jpg,none,[]\n'
    assert read(root, text, box_format="xywh").classes.names == ("cat",)


def test_descriptions_of_classes_are_no_classes_of_keras_retinanet(root: Path) -> None:
    (root / "img").rename(root / "images")
    (root / "boxes.csv").write_text("ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/01,0.4,0.6,0.3,0.7\n")
    (root / "class-descriptions-boxable.csv").write_text("/m/01,Tortoise\n/m/02,Container\n")
    data = DATASETS.build(find_data(root).splits["all"])
    assert data.classes.names == ("/m/01",)


def test_a_table_of_the_tutorials_has_the_boxes_of_the_xml_that_it_is_made_of(root: Path) -> None:
    (root / "img").rename(root / "train")
    corners = "<xmin>41</xmin><ymin>16</ymin><xmax>60</xmax><ymax>35</ymax>"
    (root / "train/a.xml").write_text(
        "<annotation><filename>a.jpg</filename><size><width>100</width><height>50</height><depth>3</depth></size>"
        f"<object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
    )
    (root / "train_labels.csv").write_text(f"{TUTORIAL}\na.jpg,100,50,cat,41,16,60,35\n")
    found = [part.find(Place(root)) for part in (VocDataset, CsvDataset)]
    data = [DATASETS.build(each.splits["train"]) for each in found if each is not None]
    assert boxes(data[0]) == boxes(data[1]) == [[41, 16, 60, 35]]
    assert [each.notes for each in found if each is not None] == [(FROM_ZERO,)] * 2
    alone = find_data(root / "train_labels.csv").splits["train"]
    assert boxes(DATASETS.build(alone)) == [[41, 16, 60, 35]]
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    table = CsvDataset.find(Place(root))
    assert table is not None
    assert boxes(DATASETS.build(table.splits["train"])) == [[40, 15, 60, 35]]


def test_a_written_table_beside_xml_keeps_its_boxes(root: Path) -> None:
    (root / "a.xml").write_text("<annotation><object/></annotation>")
    data = read(root, f"{CORNERS}\na.jpg,cat,40,15,60,35\n")
    write_csv({"train": data}, root / "new")
    table = CsvDataset.find(Place(root))
    assert table is not None
    assert boxes(DATASETS.build(table.splits["train"])) == [[40, 15, 60, 35]]

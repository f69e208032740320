"""YOLO data sets as tools and people write them."""

import math
import re
from pathlib import Path

import pytest
from PIL import Image

from detkit.data.datasets.auto import find_data
from detkit.data.datasets.problems import DROPPED, MERGED, REPEATED
from detkit.data.datasets.yolo import ANNOTATED, ELSEWHERE, NO_IMAGE, NO_LABELS, OTHER_CASE, SHARED, YoloDataset
from detkit.data.datasets.yolo_file import COMMAS, CONFIDENCES, FROM_SHAPE, KEYPOINTS
from detkit.registry import DATASETS
from tests.data.hostile import png
from tests.refusals import Refuses

BOX = "0 0.5 0.5 0.2 0.4"
"""[40, 15, 60, 35] in an image of 100x50."""


def write(path: Path, content: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def picture(path: Path, size: tuple[int, int] = (100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in "ab":
            picture(tmp_path / f"images/{split}/{name}.jpg")
        write(tmp_path / f"labels/{split}/a.txt", f"{BOX}\n1 0.1 0.2 0.2 0.4\n")
    write(tmp_path / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")
    return tmp_path


def read(root: Path, split: str = "train", data: str = "data.yaml") -> YoloDataset:
    return YoloDataset(data=str(root / data), split=split)


def label(root: Path, text: str | bytes) -> YoloDataset:
    write(root / "labels/train/a.txt", text)
    return read(root)


def boxes(data: YoloDataset, index: int = 0) -> list[list[float]]:
    found: list[list[float]] = data.records.annotation(index).boxes.tolist()
    return found


def test_boxes_become_pixels_and_a_missing_label_file_means_no_objects(root: Path) -> None:
    data = read(root)
    assert boxes(data) == [[40, 15, 60, 35], [0, 0, 20, 20]]
    assert data.records.annotation(0).labels.tolist() == [0, 1]
    assert data.classes.names == ("cat", "dog")
    assert boxes(data, 1) == []
    assert data.problems.count(NO_LABELS) == 1


@pytest.mark.parametrize(
    "text",
    [
        "path: /home/someone/else/set\ntrain: images/train\nnames: {0: cat, 1: dog}",
        "train: ./images/train\nval:\nnc: 2\nnames:\n  - cat\n  - dog\n",
        "train: ../images/train\nval: ../images/val\nnc: 2\nnames: ['cat', 'dog']",
        "train: /home/someone/set/images/train\nnames: [cat, dog]",
        "train: C:\\Users\\x\\set\\images\\train\nnames: [cat, dog]",
        "\ufefftrain: [images/train]\r\nnames: [cat, dog]\r\n",
        "train: [images/train/a.txt.list, images/train]\nnames: [cat, dog]".replace("images/train/a.txt.list, ", ""),
        "train: train.txt\nnames: [cat, dog]",
        "train: [train.txt]\ntest: null\nval: ~\nnames: [cat, dog]",
    ],
)
def test_a_data_yaml_is_read_in_every_form(root: Path, text: str) -> None:
    write(root / "train.txt", f"./images/train/a.jpg\r\n\r\n{root}/images/train/b.jpg")
    write(root / "data.yaml", text)
    data = read(root)
    assert [data.records.file_name(i) for i in range(len(data))] == ["a.jpg", "b.jpg"]
    assert boxes(data) == [[40, 15, 60, 35], [0, 0, 20, 20]]
    assert data.classes.names == ("cat", "dog")


def test_names_are_read_as_they_are_written(root: Path) -> None:
    write(root / "data.yaml", "train: images/train\nnames: [no, 1.0, 'on', ~x]\n")
    assert read(root).classes.names == ("no", "1.0", "on", "~x")
    write(root / "data.yaml", "train: images/train\nnames:\n  3: dog\n  0: Größe\n  1: 鳥\n")
    assert read(root).classes.names == ("Größe", "鳥", "dog")
    write(root / "data.yaml", "train: images/train\nnc: 2\n")
    assert read(root).classes.names == ("0", "1")


def test_lists_of_another_machine_are_read_by_the_ends_of_their_paths(root: Path) -> None:
    write(root / "lists/train.txt", "/data/bob/images/train/a.jpg\nC:\\set\\images\\val\\b.jpg\n")
    write(root / "data.yaml", "train: lists/train.txt\nnames: [cat, dog]")
    data = read(root)
    assert [data.records.path(i) for i in range(2)] == [f"{root}/images/train/a.jpg", f"{root}/images/val/b.jpg"]
    assert data.problems.count(ELSEWHERE) == 2


def test_an_image_that_is_listed_twice_counts_once(root: Path) -> None:
    write(root / "data.yaml", "train: [images/train, images/train/../train]\nnames: [cat, dog]")
    data = read(root)
    assert len(data) == 2
    assert data.problems.count(MERGED) == 2


def test_only_the_last_folder_images_becomes_labels(tmp_path: Path) -> None:
    picture(tmp_path / "images/set/images/train/a.jpg")
    write(tmp_path / "images/set/labels/train/a.txt", BOX)
    write(tmp_path / "images/set/data.yaml", "train: images/train\nnames: [cat]")
    assert boxes(read(tmp_path / "images/set")) == [[40, 15, 60, 35]]


def test_labels_may_lie_beside_the_images(tmp_path: Path) -> None:
    picture(tmp_path / "train/a.JPG")
    write(tmp_path / "train/a.txt", BOX)
    write(tmp_path / "train/_darknet.labels", "cat\n")
    found = find_data(tmp_path)
    assert (found.format, list(found.splits)) == ("YOLO", ["train"])
    assert boxes(DATASETS.build(found.splits["train"])) == [[40, 15, 60, 35]]


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["images/train", "images/val2017"], ["train", "val"]),
        (["train/images", "valid/images", "test/images"], ["train", "val", "test"]),
        (["images"], ["all"]),
        (["x/images", "y/images"], ["all"]),
    ],
)
def test_a_folder_without_data_yaml_is_found(tmp_path: Path, folders: list[str], splits: list[str]) -> None:
    for folder in folders:
        picture(tmp_path / folder / "a.png")
        write(tmp_path / folder.replace("images", "labels") / "a.txt", BOX)
    write(tmp_path / "classes.txt", "cat\ndog\n")
    found = find_data(tmp_path)
    assert sorted(found.splits) == sorted(splits)
    assert {n for node in found.splits.values() for n in DATASETS.build(node).classes.names} == {"cat", "dog"}
    assert sum(len(DATASETS.build(node)) for node in found.splits.values()) == len(folders)


def labelled(root: Path, *images: str) -> None:
    """Images with labels beside them, and the names of two classes."""
    for image in images:
        picture(root / f"{image}.png")
        write(root / f"{image}.txt", f"{BOX}\n")
    write(root / "classes.txt", "cat\ndog\n")


def images_by_split(root: Path) -> dict[str, list[str]]:
    """The images of each split that is found, relative to the folder."""
    splits = {split: DATASETS.build(node).records for split, node in find_data(root).splits.items()}
    return {s: [str(Path(r.path(i)).relative_to(root)) for i in range(len(r))] for s, r in splits.items()}


@pytest.mark.parametrize("stems", [("train_1", "train_2", "train_3"), ("test", "a"), ("val-01", "my val")])
def test_the_labels_of_an_image_are_no_list_of_a_split(tmp_path: Path, stems: tuple[str, ...]) -> None:
    labelled(tmp_path, *stems)
    assert images_by_split(tmp_path) == {"all": sorted(f"{stem}.png" for stem in stems)}


def test_labels_without_image_are_no_list_of_a_split(tmp_path: Path) -> None:
    labelled(tmp_path, "a")
    write(tmp_path / "test.txt", f"{BOX}\n")
    write(tmp_path / "train_classes.txt", "cat\n")
    assert images_by_split(tmp_path) == {"all": ["a.png"]}


def test_no_list_of_a_split_replaces_another(tmp_path: Path) -> None:
    labelled(tmp_path, "a", "b", "c")
    for name, image in (("train", "a"), ("train2", "b"), ("my-val", "c")):
        write(tmp_path / f"{name}.txt", f"{image}.png\n")
    assert images_by_split(tmp_path) == {"train": ["a.png"], "train2": ["b.png"], "val": ["c.png"]}
    assert find_data(tmp_path).notes == ("several are of one split, so each is its own: train2",)


@pytest.mark.parametrize(
    ("train", "val"), [("train_set", "val_set"), ("my-train", "my-val"), ("trainset", "valset"), ("TRAIN", "VALIDATE")]
)
def test_splits_have_the_names_of_folders_that_other_formats_know(tmp_path: Path, train: str, val: str) -> None:
    labelled(tmp_path, f"{train}/a", f"{val}/b")
    assert images_by_split(tmp_path) == {"train": [f"{train}/a.png"], "val": [f"{val}/b.png"]}


def test_images_in_no_folder_of_a_split_are_named(tmp_path: Path) -> None:
    labelled(tmp_path, "images/train/a", "images/val/b", "images/c", "more/d")
    found = find_data(tmp_path)
    assert list(found.splits) == ["train", "val"]
    assert found.notes == ("2 images are in no folder of a split, as images/c.png, and not read",)


def test_another_data_yaml_in_the_folder_is_named(root: Path) -> None:
    write(root / "other.yaml", "train: images/train\nnames: [dog, cat]\n")
    assert find_data(root).notes == ("not read: other.yaml",)


def test_class_names_that_contradict_each_other_are_the_readers_error(refuses: Refuses, tmp_path: Path) -> None:
    labelled(tmp_path, "x/a", "y/b")
    (tmp_path / "classes.txt").unlink()
    write(tmp_path / "x/classes.txt", "cat\ndog\n")
    write(tmp_path / "y/classes.txt", "dog\ncat\n")
    found = find_data(tmp_path)
    with refuses(ValueError):
        DATASETS.build(found.splits["train"])


def test_a_folder_of_labels_in_pixels_is_refused_for_its_pixels(refuses: Refuses, tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    write(tmp_path / "labels/a.txt", "0 50 25 20 20\n")
    write(tmp_path / "classes.txt", "cat\ndog\n")
    with refuses(ValueError):
        DATASETS.build(find_data(tmp_path).splits["all"])
    write(tmp_path / "notes.json", "{}")
    with pytest.raises(ValueError, match="no data set of a known format"):
        find_data(tmp_path)


def test_a_folder_of_labels_in_utf_16_is_found(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(tmp_path / "a.txt", f"{BOX}\r\n".encode("utf-16"))
    write(tmp_path / "classes.txt", "cat\r\n".encode("utf-16"))
    data = DATASETS.build(find_data(tmp_path).splits["all"])
    assert (data.classes.names, boxes(data)) == (("cat",), [[40, 15, 60, 35]])


def test_a_data_yaml_one_folder_deeper_is_found(refuses: Refuses, root: Path) -> None:
    (root / "archive").mkdir()
    for name in ("images", "labels", "data.yaml"):
        (root / name).rename(root / "archive" / name)
    found = find_data(root)
    assert (found.format, found.why, list(found.splits)) == ("YOLO", "archive/data.yaml", ["train", "val"])
    data = DATASETS.build(found.splits["train"])
    assert (data.classes.names, boxes(data)) == (("cat", "dog"), [[40, 15, 60, 35], [0, 0, 20, 20]])
    write(root / "pets/data.yaml", "train: images\nnames: [mouse]\n")
    with refuses(ValueError):
        DATASETS.build(find_data(root).splits["train"])


def test_an_export_of_cvat_in_the_format_of_darknet_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "obj_train_data/a.jpg")
    write(tmp_path / "obj_train_data/a.txt", BOX)
    write(tmp_path / "train.txt", "data/obj_train_data/a.jpg\n")
    write(tmp_path / "obj.names", "cat\n")
    write(tmp_path / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    found = find_data(tmp_path)
    assert boxes(DATASETS.build(found.splits["train"])) == [[40, 15, 60, 35]]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7", FROM_SHAPE),
        ("0 0.4 0.3 0.6 0.5 0.5 0.7", FROM_SHAPE),
        ("0 0.5 0.5 0.2 0.4 0.93", CONFIDENCES),
        ("0,0.5,0.5,0.2,0.4", COMMAS),
        ("0, 0.5, 0.5, 0.2, 0.4", COMMAS),
        ("0 0,5 0,5 0,2 0,4", COMMAS),
        ("\ufeff0 0.5 0.5 0.2 0.4\r\n\r\n", None),
        ("0.0\t.5  5e-1 +0.2 0.40 ", None),
        ("0 0.5 0.5 0.2 0.4\n\x1a", None),
        ("0 0.5 0.5 0.2 0.4".encode("utf-16"), None),
    ],
)
def test_a_label_is_read_in_every_form(root: Path, text: str | bytes, kind: object) -> None:
    data = label(root, text)
    assert [[round(v, 4) for v in box] for box in boxes(data)] == [[40, 15, 60, 35]]
    assert kind is None or kind in [k for k, _ in data.problems]


def test_keypoints_are_known_by_the_data_yaml(root: Path) -> None:
    write(root / "labels/train/a.txt", f"{BOX} 0.1 0.2 2 0.3 0.4 1\n")
    write(root / "data.yaml", "train: images/train\nkpt_shape: [2, 3]\nnames: [cat, dog]")
    data = read(root)
    assert boxes(data) == [[40, 15, 60, 35]]
    assert data.problems.count(KEYPOINTS) == 1


@pytest.mark.parametrize(
    "keypoints",
    [
        "0.42 0.35 0.55 0.35 0.5 0.6 0.45 0.65",
        "0.42 0.35 0.55 0.35 -1 -1 0.45 0.65",
        "0.42 0.35 2 0.55 0.35 1",
    ],
)
def test_keypoints_without_kpt_shape_are_no_polygons(refuses: Refuses, root: Path, keypoints: str) -> None:
    with refuses(ValueError):
        label(root, f"{BOX} {keypoints}\n" * 3)
    polygon = "0 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7"
    assert len(boxes(label(root, f"{BOX} {keypoints}\n" * 3 + polygon))) == 4
    write(root / "data.yaml", "train: images/train\nkpt_shape: [4, 2]\nnames: [cat, dog]")
    assert boxes(label(root, f"{BOX} {keypoints}\n" * 3)) == [[40, 15, 60, 35]] * 3


@pytest.mark.parametrize("left", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("top", [0.1, 0.5, 0.7])
def test_polygons_are_no_keypoints(root: Path, left: float, top: float) -> None:
    angles = [k * math.pi / 8 for k in range(16)]
    circle = " ".join(f"{left + 0.1 + 0.1 * math.cos(a)} {top + 0.1 + 0.1 * math.sin(a)}" for a in angles)
    square = f"{left} {top} {left + 0.2} {top} {left + 0.2} {top + 0.2} {left} {top + 0.2}"
    for shape in (circle, square):
        assert boxes(label(root, f"0 {shape}\n" * 5))[0] == pytest.approx(
            [100 * left, 50 * top, 100 * left + 20, 50 * top + 10], abs=1e-4
        )


def test_boxes_that_cannot_be_trained_on_are_dropped_by_name(root: Path) -> None:
    data = label(root, f"{BOX}\n0 0.5 0.5 0 0.1\n0 0.5 0.5 -0.2 0.1\n0 nan 0.5 0.2 0.1\n0 1.5 0.5 0.2 0.1\n{BOX}\n")
    assert boxes(data) == [[40, 15, 60, 35]] * 2
    assert data.problems.count(DROPPED) == 4
    assert data.problems.count(REPEATED) == 1
    assert f"{root}/labels/train/a.txt, box 2" in "\n".join(data.problems.lines())


@pytest.mark.parametrize(
    "text",
    [
        "cat 0.5 0.5 0.2 0.4",
        "-1 0.5 0.5 0.2 0.4",
        "0.5 0.5 0.5 0.2 0.4",
        "2 0.5 0.5 0.2 0.4",
        "1 0.5 0.5 0.2 0.4\n2 0.5 0.5 0.2 0.4",
        "0 50 25 20 20",
        "0 0.5 0.5 0.2",
        "0 0.5 0.5 0.2 0.4 45",
        "0 0.5 0.5 0.2 0.4 -0.3",
        "0 0.5 0.5 0.2 0.4 nan",
        "0 0.5 0.5 0.2 x",
        "0 0.5 0.5 0.2 1_0",
        "0 0.1 0.1 0.3 0.1 0.3 0.4 0.2",
        "0 0.1 0.1 0.3 0.1 0.3 0.4\n0 0.1 0.1 0.3 0.1 0.3",
        "0,0,5,0,5,0,2,0,4",
        "<annotation/>",
        '{"shapes": []}',
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        b"0 0.5 0.5 0.2 0.4 \xff\xfe\xfa",
        b"\x89PNG\r\n\x1a\n\xff",
    ],
)
def test_what_is_wrong_with_a_label_is_named(refuses: Refuses, root: Path, text: str | bytes) -> None:
    with refuses(ValueError):
        label(root, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "train: [",
        "- a\n- b",
        "a: " * 3,
        "names: [cat]",
        "train: images/train",
        "train: images/train\nnames: cat",
        "train: images/train\nnames: []",
        "train: images/train\nnames: [cat, cat]",
        "train: images/train\nnames: [cat, '']",
        "train: images/train\nnames: [cat, {a: b}]",
        "train: images/train\nnames: {0: cat, 00: dog}",
        "train: images/train\nnames: {a: cat}",
        "train: images/train\nnames: [cat]\nnc: 2",
        "train: images/train\nnames: [cat]\nnames: [dog]",
        "train: images/train\nnames: [cat]\nnc: many",
        "train: {a: b}\nnames: [cat]",
        "train: images/nothing\nnames: [cat]",
        "train: images\nval: images\nvalid: images\nnames: [cat]",
        "train: empty\nnames: [cat]",
        "train: images/train/a.jpg\nnames: [cat]",
        "train: bare\nnames: [cat]",
        "train: missing.txt\nnames: [cat, dog]",
        "val: images/val\nnames: [cat, dog]",
        "train: !!python/object/apply:os.system [echo]\nnames: [cat]",
        "x: " + "[" * 5000,
    ],
)
def test_what_is_wrong_with_a_data_yaml_is_named(refuses: Refuses, root: Path, text: str) -> None:
    (root / "empty").mkdir()
    picture(root / "bare/x.jpg")
    write(root / "missing.txt", "images/train/a.jpg\nimages/train/zz.jpg\n")
    write(root / "data.yaml", text)
    with refuses((ValueError, FileNotFoundError)):
        read(root)


def test_a_folder_without_class_names_says_how_to_give_them(refuses: Refuses, root: Path) -> None:
    (root / "data.yaml").unlink()
    assert find_data(root).format == "YOLO"
    with refuses(FileNotFoundError):
        YoloDataset(data=str(root), split="train")
    assert YoloDataset(data=str(root), split="train", names=["cat", "dog"]).classes.names == ("cat", "dog")


def test_label_files_without_image_and_shared_ones_are_counted(root: Path) -> None:
    picture(root / "images/train/a.png", (200, 50))
    write(root / "labels/train/lost.txt", BOX)
    data = read(root)
    assert (data.problems.count(NO_IMAGE), data.problems.count(SHARED)) == (1, 1)
    assert boxes(data, 1)[0] == [80, 15, 120, 35]


@pytest.mark.parametrize(
    ("suffix", "empty", "full"),
    [
        ("xml", "<annotation/>", "<annotation><object><name>cat</name></object></annotation>"),
        ("json", '{"shapes": []}', '{"shapes": [{"label": "cat"}]}'),
    ],
)
def test_images_whose_objects_are_in_another_format_are_told(root: Path, suffix: str, empty: str, full: str) -> None:
    write(root / f"images/train/b.{suffix}", empty)
    data = read(root)
    assert (data.problems.count(NO_LABELS), data.problems.count(ANNOTATED)) == (1, 0)
    write(root / f"images/train/b.{suffix}", full)
    data = read(root)
    assert (data.problems.count(NO_LABELS), data.problems.count(ANNOTATED)) == (0, 1)


def test_labels_beside_a_folder_of_another_name_are_named(refuses: Refuses, tmp_path: Path) -> None:
    picture(tmp_path / "imgs/train/a.png")
    write(tmp_path / "labels/train/a.txt", BOX)
    write(tmp_path / "classes.txt", "cat\n")
    with refuses(ValueError):
        DATASETS.build(find_data(tmp_path).splits["train"])


def test_an_image_with_several_paths_must_have_the_same_objects(refuses: Refuses, root: Path) -> None:
    (root / "images/train/link.jpg").symlink_to("a.jpg")
    (root / "images/train/hard.jpg").hardlink_to(root / "images/train/a.jpg")
    with refuses(ValueError):
        read(root)
    for name in ("link", "hard"):
        write(root / f"labels/train/{name}.txt", "1 0.1 0.2 0.2 0.4\n" + BOX)
    assert len(read(root)) == 4


@pytest.mark.parametrize("place", ["Labels/train/a.txt", "labels/train/a.TXT", "images/train/A.Txt"])
def test_labels_in_another_case_are_named(refuses: Refuses, root: Path, place: str) -> None:
    (root / "labels/train/a.txt").unlink()
    write(root / place, BOX)
    with refuses(ValueError):
        read(root)
    write(root / "labels/train/b.txt", BOX)
    data = read(root)
    assert (data.problems.count(OTHER_CASE), data.problems.count(NO_IMAGE)) == (1, 0)
    assert str(root / place) in "\n".join(data.problems.lines())


def test_boxes_are_relative_to_the_upright_image(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 100)).save(root / "images/train/a.jpg", exif=exif)
    data = read(root)
    assert boxes(data)[0] == [40, 15, 60, 35]
    assert data.checked_image(0).size == (100, 50)


def test_boxes_of_an_unreadable_image_are_counted_and_gone(root: Path) -> None:
    write(root / "images/train/a.jpg", b"no image")
    data = read(root)
    assert (boxes(data), data.problems.count(DROPPED)) == ([], 2)
    with pytest.raises(ValueError, match="not a readable image"):
        data.load_image(0)


def test_a_list_must_not_lead_out_of_the_data(
    refuses: Refuses, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = picture(tmp_path_factory.mktemp("elsewhere") / "a.jpg")
    write(elsewhere.with_suffix(".txt"), BOX)
    write(root / "list.txt", f"{elsewhere}\n")
    write(root / "data.yaml", "train: list.txt\nnames: [cat, dog]")
    with refuses(ValueError, hide=re.escape(str(elsewhere.parent))):
        read(root).check_paths()
    write(root / "data.yaml", f"train: {elsewhere.parent}\nnames: [cat, dog]")
    read(root).check_paths()


def test_boxes_of_a_huge_image_are_read_from_its_header(root: Path) -> None:
    write(root / "images/train/a.jpg", png(20_000, 10_000))
    assert boxes(read(root))[0] == [8000, 3000, 12_000, 7000]


def test_a_config_is_no_data_yaml(tmp_path: Path) -> None:
    write(tmp_path / "config.yaml", "data:\n  train: x\nnames: 3\n")
    write(tmp_path / "notes.txt", "0 1 2 3 4\n")
    with pytest.raises(ValueError, match="no data set of a known format"):
        find_data(tmp_path)

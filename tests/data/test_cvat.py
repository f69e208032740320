"""CVAT's XML: images with every shape, a project's subsets, tracks of a video, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detkit.data.datasets.auto import find_data
from detkit.data.datasets.cvat import CvatDataset
from detkit.data.datasets.problems import FROM_OUTLINE, INTERPOLATED, NO_BOX, UNLISTED
from detkit.registry import DATASETS
from tests.refusals import Refuses

META = """<version>1.1</version><meta><task><id>1</id>{more}<labels><label><name>dog</name></label>
<label><name>cat</name></label><label><name>tail</name><parent>dog</parent></label></labels>
<original_size><width>60</width><height>40</height></original_size></task></meta>"""
SHAPES = """<box label="cat" xtl="5" ytl="6" xbr="30.5" ybr="35" occluded="1"/>
<polygon label="dog" points="10.0,10.0;20.0,5.0;15.0,30.0"/>
<ellipse label="dog" cx="30" cy="20" rx="5" ry="3"/>
<box label="dog" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90"/>
<mask label="cat" left="3" top="4" width="5" height="6" rle="0, 30"/>
<cuboid label="cat" xtl1="4" ytl1="5" xbl1="4" ybl1="15" xtr1="9" ytr1="5" xbr1="9" ybr1="15"
 xtl2="6" ytl2="2" xbl2="6" ybl2="12" xtr2="12" ytr2="2" xbr2="12" ybr2="12"/>
<box label="cat" xtl="1" ytl="1" xbr="2" ybr="3"><attribute name="difficult">true</attribute></box>
<points label="cat" points="1,2"/><polyline label="cat" points="1,2;3,4"/><tag label="cat"/>"""


def image(name: str, content: str = "", more: str = "") -> str:
    return f'<image id="0" name="{name}" width="60" height="40" {more}>{content}</image>'


def write(folder: Path, content: str, *images: str, more: str = "", name: str = "annotations.xml") -> Path:
    for file in images:
        (folder / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(folder / "images" / file)
    (folder / name).write_text(f"<?xml version='1.0'?>\n<annotations>{META.format(more=more)}{content}</annotations>")
    return folder / name


def read(folder: Path, **more: Any) -> CvatDataset:
    return CvatDataset(annotations=str(folder / "annotations.xml"), images=str(folder / "images"), **more)


def boxes(data: CvatDataset, index: int = 0) -> list[Any]:
    a = data.records.annotation(index)
    rows = zip(a.boxes.tolist(), a.labels.tolist(), a.is_ignore.tolist(), strict=True)
    return [(data.classes.names[k], [round(v, 3) for v in b], ignore) for b, k, ignore in rows]


def test_each_kind_of_shape_gives_its_box(tmp_path: Path) -> None:
    write(tmp_path, image("sub/a.jpg", SHAPES) + image("b.jpg"), "sub/a.jpg", "b.jpg")
    data = read(tmp_path)
    assert data.classes.names == ("dog", "cat")  # the task's order; parts of a skeleton are no classes
    assert boxes(data) == [
        ("cat", [5, 6, 30.5, 35], False),
        ("dog", [10, 5, 20, 30], False),
        ("dog", [25, 17, 35, 23], False),
        ("dog", [15, 5, 25, 25], False),  # turned about its centre (20, 15)
        ("cat", [3, 4, 8, 10], False),
        ("cat", [4, 2, 12, 15], False),
        ("cat", [1, 1, 2, 3], True),
    ]
    assert boxes(data, 1) == []
    assert (data.problems.count(FROM_OUTLINE), data.problems.count(NO_BOX)) == (5, 3)
    assert not data.problems.count(UNLISTED)


def test_the_subsets_of_a_project_are_splits(tmp_path: Path) -> None:
    content = image("a.jpg", SHAPES, 'subset="Train"') + image("a.jpg", "", 'subset="Validation"')
    write(tmp_path, content.replace('name="a', 'name="b', 1), "Train/b.jpg", "Validation/a.jpg")
    found = find_data(tmp_path)
    assert found.format == "CVAT XML"
    assert sorted(found.splits) == ["train", "val"]
    assert len(DATASETS.build(found.splits["train"]).records.truth.labels) == 7
    val = DATASETS.build(found.splits["val"])
    assert val.records.path(0) == str(tmp_path / "images/Validation/a.jpg")
    assert val.classes.names == ("dog", "cat")


def test_subsets_of_one_split_stay_apart_and_images_without_one_are_named(tmp_path: Path) -> None:
    content = "".join(image("a.jpg", SHAPES, f'subset="{name}"') for name in ("Train", "train_2"))
    write(tmp_path, content.replace('name="a', 'name="b', 1) + image("c.jpg", "", ""), "a.jpg", "b.jpg", "c.jpg")
    found = find_data(tmp_path)
    assert [len(DATASETS.build(node)) for node in found.splits.values()] == [1, 1]
    assert found.notes == (
        "1 image has no subset and is not read",
        "several are of one split, so each is its own: Train, train_2",
    )


def box(frame: int, x: float, outside: int = 0) -> str:
    return f'<box frame="{frame}" outside="{outside}" keyframe="1" xtl="{x}" ytl="2" xbr="{x + 10}" ybr="12"/>'


def test_every_frame_of_a_video_is_an_image(tmp_path: Path) -> None:
    names = [f"frame_{i:06d}.PNG" for i in range(8)]
    more = "<start_frame>0</start_frame><stop_frame>6</stop_frame>"
    cat = f'<track id="0" label="cat">{box(0, 0)}{box(4, 20)}{box(5, 20, 1)}</track>'
    dog = f'<track id="1" label="dog">{box(2, 30)}{box(3, 30, 1)}{box(6, 40)}</track>'
    write(tmp_path, cat + dog, *names, more=more)
    data = read(tmp_path)
    assert [data.records.file_name(i) for i in range(len(data))] == names[:7]  # 7 is after the last one
    assert [boxes(data, i) for i in range(7)] == [
        [("cat", [0, 2, 10, 12], False)],
        [("cat", [5, 2, 15, 12], False)],  # on the line between keyframes 0 and 4
        [("cat", [10, 2, 20, 12], False), ("dog", [30, 2, 40, 12], False)],
        [("cat", [15, 2, 25, 12], False)],
        [("cat", [20, 2, 30, 12], False)],
        [],  # both are outside
        [("dog", [40, 2, 50, 12], False)],
    ]
    assert data.problems.count(INTERPOLATED) == 3


def test_a_step_leaves_frames_out(tmp_path: Path) -> None:
    names = [f"frame_{i:06d}.png" for i in range(5)]
    more = "<start_frame>0</start_frame><stop_frame>4</stop_frame><frame_filter>step=2</frame_filter>"
    write(tmp_path, f'<track id="0" label="cat">{box(0, 0)}{box(2, 5)}{box(4, 9)}</track>', *names, more=more)
    data = read(tmp_path)
    assert [data.records.file_name(i) for i in range(len(data))] == names[::2]
    assert not data.problems.count(INTERPOLATED)


def of_image(shape: str) -> str:
    return f"<annotations>{image('a.jpg', shape)}</annotations>"


HALF = f"<annotations><track label='cat'>{box(0, 0)}</track></annotations>".replace('frame="0"', 'frame="0.5"')
BROKEN = {
    "another root": "<annotation><filename>a.jpg</filename></annotation>",
    "no number": of_image('<box label="cat" xtl="x" ytl="2" xbr="3" ybr="4"/>'),
    "no label": of_image('<box xtl="1" ytl="2" xbr="3" ybr="4"/>'),
    "no corner": of_image('<box label="cat" xtl="1" ytl="2" xbr="3"/>'),
    "no points": of_image('<polygon label="cat" points="1,2;3"/>'),
    "half a frame": HALF,
    "a turn of nan": of_image('<box label="cat" xtl="1" ytl="2" xbr="3" ybr="4" rotation="x"/>'),
    "unknown shape": of_image('<spiral label="cat"/>'),
    "no name": "<annotations><image id='0'/></annotations>",
    "twice": f"<annotations>{image('a.jpg') * 2}</annotations>",
    "nothing": "<annotations/>",
    "no images": "<annotations><meta/></annotations>",
    "cut off": "<annotations><image",
    "two videos": "<annotations><track label='cat' task_id='1'/><track label='c' task_id='2'/></annotations>",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(refuses: Refuses, tmp_path: Path, name: str) -> None:
    write(tmp_path, "", "a.jpg", "frame_000000.png")
    (tmp_path / "annotations.xml").write_text(BROKEN[name])
    with refuses(ValueError):
        read(tmp_path)


def test_a_missing_file_is_named(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(FileNotFoundError):
        read(tmp_path)
    write(tmp_path, image("a.jpg") + image("b.jpg"), "a.jpg")
    with refuses(FileNotFoundError):
        read(tmp_path)
    with refuses(ValueError):
        read(tmp_path, split="train")
    write(tmp_path, f'<track id="0" label="cat">{box(0, 0)}</track>')
    with refuses(ValueError):
        read(tmp_path)

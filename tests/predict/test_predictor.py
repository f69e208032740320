import copy
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.cli import main
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.detectors.dense import ANCHOR_CACHE
from detkit.predict.predictor import Predictor, open_image
from detkit.structures import ClassMap
from tests.refusals import Refuses

CLASSES = ClassMap(("cat", "dog"), (7, 3))
BASE = "configs/base/retinanet.yaml"


SMALL = [
    "neck.channels=32", "head.num_convs=0", "losses.classification.prior=0.3", "postprocess.max_detections=7",
    "data.val={dataset: {type: ShapesDataset}, transforms: [{type: ResizeShortestEdge, short: 64}]}",
]  # fmt: skip


@pytest.fixture(scope="module")
def predictor() -> Any:
    return small_predictor([])


def small_predictor(overrides: Any) -> Any:
    own = any(o.startswith("backbone=") for o in overrides)
    backbone = [] if own else ["backbone.depth=18", "backbone.norm=gn"]
    config = load_config(Path(__file__).resolve().parents[2] / BASE, [*backbone, *SMALL, *overrides])
    torch.manual_seed(0)
    return Predictor(build_detector(config, 2).eval(), config, CLASSES, batch_size=2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pictures")
    for i, (width, height) in enumerate([(100, 80), (64, 90), (200, 50)]):
        pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


def equal(a: Any, b: Any) -> None:
    torch.testing.assert_close(a.boxes, b.boxes)
    torch.testing.assert_close(a.scores, b.scores)
    assert torch.equal(a.labels, b.labels)


def test_paths_arrays_tensors_and_pictures_give_the_same(predictor: Any, pictures: Any) -> None:
    (one,) = predictor(pictures[0])
    assert len(one) == 7
    opened = Image.open(pictures[0])
    array = np.asarray(opened)
    for same in (str(pictures[0]), opened, array, torch.tensor(array).permute(2, 0, 1)):
        equal(predictor(same)[0], one)


def test_boxes_are_in_pixels_of_the_given_image(predictor: Any, pictures: Any) -> None:
    for found, path in zip(predictor(pictures), pictures, strict=True):
        with Image.open(path) as image:
            limit = torch.tensor([image.width, image.height, image.width, image.height])
        assert (found.boxes >= 0).all()
        assert (found.boxes <= limit + 1e-3).all()
        assert found.boxes[:, 2].max() > 0.5 * limit[0]
        assert (found.scores.diff() <= 0).all()


def test_a_batch_of_unequal_images_changes_little(predictor: Any, pictures: Any) -> None:
    # Padding changes what is beside the image, so scores move, but only in the last digits.
    together = predictor(pictures)
    assert [len(f) for f in together] == [7, 7, 7]


def test_the_type_of_the_numbers_says_what_they_mean(predictor: Any, pictures: Any) -> None:
    array = np.asarray(Image.open(pictures[0]))
    tensor = torch.tensor(array).permute(2, 0, 1)
    (one,) = predictor(array)
    for kind in (np.float16, np.float32, np.float64):
        equal(predictor((array / 255).astype(kind))[0], one)
    equal(predictor(tensor / 255)[0], one)
    equal(predictor((tensor / 255).requires_grad_())[0], one)
    # A dark image of 0s and 1s is dark as uint8, and black and white as floating point.
    dark = (array > 127).astype(np.uint8)
    assert np.asarray(open_image(dark)).max() == 1
    assert np.asarray(open_image(dark.astype(np.float32))).max() == 255


def test_batches_are_images_one_after_another(predictor: Any, pictures: Any) -> None:
    array = np.asarray(Image.open(pictures[0]))
    batch = np.stack([array, array[::-1]])
    expected = predictor([array, array[::-1]])
    tensors = torch.tensor(batch).permute(0, 3, 1, 2)
    for given in (batch, tensors, tensors / 255, [batch], (image for image in batch), iter([tensors])):
        found = predictor(given)
        assert len(found) == 2
        for a, b in zip(found, expected, strict=True):
            equal(a, b)
    assert predictor([]) == predictor(batch[:0]) == []


def test_a_predictor_leaves_the_mode_of_its_detector(pictures: Any) -> None:
    predictor = small_predictor([])
    expected = predictor(pictures[0])[0]
    predictor.detector.train()
    equal(predictor(pictures[0])[0], expected)
    assert predictor.detector.training


def test_a_detector_is_enough_for_a_predictor(refuses: Refuses, predictor: Any, pictures: Any) -> None:
    alone = Predictor(predictor.detector)
    assert alone.classes.names == ("class 0", "class 1")
    equal(alone(pictures[0])[0], predictor(pictures[0])[0])
    assert Predictor(predictor.detector, classes=["cat", "dog"]).classes.names == CLASSES.names
    with refuses(ValueError):
        Predictor(predictor.detector, classes=["cat"])
    with refuses(ValueError):
        Predictor(predictor.detector, classes="cat")
    by_hand = copy.copy(predictor.detector)
    by_hand.config = None
    with refuses(ValueError):
        Predictor(by_hand)


@pytest.mark.parametrize(
    "image",
    [
        np.full((4, 4, 3), 255.0),
        np.full((4, 4, 3), 1.001, np.float32),
        np.full((4, 4, 3), -2.1),
        np.full((4, 4, 3), np.nan),
        torch.full((3, 4, 4), torch.inf),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 3), bool),
        np.zeros((3, 9, 9), np.uint8),
        torch.zeros((9, 9, 3), dtype=torch.uint8),
        np.zeros((1, 1, 4, 4, 3), np.uint8),
        {},
        b"abc",
    ],
)
def test_pixels_of_unknown_meaning_are_refused_and_never_guessed(refuses: Refuses, predictor: Any, image: Any) -> None:
    with refuses(ValueError):
        predictor(image) or open_image(image)


def test_senseless_images_are_named(refuses: Refuses) -> None:
    with refuses(ValueError):
        open_image(np.zeros((3, 3, 3), np.int32))
    with refuses(ValueError):
        open_image(3)  # type: ignore[arg-type]
    with refuses(FileNotFoundError):
        open_image("nothing.jpg")


@pytest.fixture
def checkpoint(predictor: Any, tmp_path: Path) -> Any:
    from detkit.checkpoint import Checkpoint, save_checkpoint

    path = tmp_path / "model.pt"
    weights = predictor.detector.state_dict()
    save_checkpoint(path, Checkpoint(step=0, seed=0, model=weights, config=predictor.config.to_dict(), classes=CLASSES))
    return path


def test_the_command_draws_and_writes_coco_results(
    checkpoint: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], predictor: Any
) -> None:
    out = tmp_path / "out"
    folder = pictures[0].parent
    assert (
        main(
            [
                "predict",
                str(checkpoint),
                str(folder),
                str(pictures[0]),
                "--output",
                str(out),
                "--score",
                "0.05",
                "--device",
                "cpu",
                "--batch",
                "1",
            ]
        )
        == 0
    )
    results = json.loads((out / "predictions.json").read_text())
    images = json.loads((out / "images.json").read_text())
    assert [i["file_name"] for i in images] == [*map(str, pictures), str(pictures[0])]
    assert {r["category_id"] for r in results} <= {7, 3}
    first = [r for r in results if r["image_id"] == 1]
    (found,) = predictor(pictures[0])
    x, y, w, h = first[0]["bbox"]
    torch.testing.assert_close(torch.tensor([x, y, x + w, y + h]), found.boxes[0], rtol=0, atol=1e-3)
    # The same file twice gets two pictures.
    assert sorted(p.name for p in out.glob("*.png")) == ["0-2.png", "0.png", "1.png", "2.png"]
    with Image.open(out / "2.png") as drawn:
        assert drawn.size == (200, 50)
    assert "detections in 4 images" in capsys.readouterr().out


def test_files_that_are_no_images_are_told_and_left_out(
    checkpoint: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.jpg").write_text("text")
    (folder / "b.png").write_bytes(pictures[0].read_bytes())
    (folder / "c.png").write_bytes(pictures[1].read_bytes()[:60])
    out = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(folder), "--output", str(out)]) == 1
    (image,) = json.loads((out / "images.json").read_text())
    assert (image["id"], image["file_name"]) == (1, str(folder / "b.png"))
    assert [p.name for p in out.glob("*.png")] == ["b.png"]
    told = capsys.readouterr()
    assert " in 1 image;" in told.out
    assert [line.partition(": not a ")[0] for line in told.err.splitlines()] == [
        f"warning: skipped: {folder / 'a.jpg'}",
        f"warning: skipped: {folder / 'c.png'}",
        "error: 2 of 3 files could not be read, see above",
    ]
    (folder / "b.png").unlink()
    assert main(["predict", str(checkpoint), str(folder), "--output", str(out)]) == 2
    assert "error: none of the 2 files is a readable image" in capsys.readouterr().err
    assert main(["predict", str(checkpoint), str(folder / "a.jpg"), "--output", str(out)]) == 2
    assert f"error: {folder / 'a.jpg'}: not a readable image" in capsys.readouterr().err


def test_images_of_every_suffix_are_found_and_the_rest_of_a_folder_is_told(
    checkpoint: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    with Image.open(pictures[0]) as image:
        for name in ("a.jfif", "b.JPE", "c.webp", "d.tga"):
            image.convert("RGB").save(folder / name, format=None if name[0] in "cd" else "jpeg")
    (folder / "notes.txt").touch()
    (folder / "deeper").mkdir()
    out = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(folder), "--output", str(out), "--no-draw"]) == 0
    told = capsys.readouterr()
    assert [Path(i["file_name"]).name for i in json.loads((out / "images.json").read_text())] == [
        "a.jfif", "b.JPE", "c.webp", "d.tga",
    ]  # fmt: skip
    assert (
        told.err
        == f"note: {folder}: skipped 1 file that can't be read as images: notes.txt; 1 folder below it: deeper "
        "(--recursive reads folders below)\n"
    )


def test_an_image_over_the_limit_is_refused_until_it_is_lifted(
    checkpoint: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(checkpoint), str(pictures[0]), "--output", str(tmp_path / "out"), "--no-draw"]
    assert main([*words, "--max-megapixels", "0.001"]) == 2
    assert "0.png: the image has 0.0 megapixels (100x80), the limit is 0.001" in capsys.readouterr().err
    assert main([*words, "--max-megapixels", "0.01"]) == 0
    assert main([*words, "--max-megapixels", "0"]) == 2
    assert "--max-megapixels: 0.0 must be a positive number" in capsys.readouterr().err


def test_what_is_not_there_is_named(checkpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for path, text in (
        ("gone.jpg", "no file, folder or glob match: gone.jpg"),
        (str(tmp_path / "empty"), "holds no image"),
    ):
        assert main(["predict", str(checkpoint), path]) == 2
        assert text in capsys.readouterr().err
    assert main(["predict", str(checkpoint), "x.jpg", "--score", "2"]) == 2
    assert "--score: 2.0" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "none.pt"), str(tmp_path)]) == 2


def in_threads(work: Any, count: int = 8) -> Any:
    """What `work(k)` gives for k threads that begin together and are interrupted often."""
    start, interval = Barrier(count), sys.getswitchinterval()

    def run(k: Any) -> Any:
        start.wait()
        return work(k)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        pytest.param(["anchors={type: TorchvisionAnchors}"], marks=pytest.mark.slow),
        pytest.param(
            ["backbone={type: TimmBackbone, name: resnet10t}", "neck.extra_levels=0", "nms={type: SoftNMS}"],
            marks=pytest.mark.slow,
        ),
        ["backbone={type: TorchvisionBackbone, name: mobilenet_v3_small}", "nms={type: MatrixNMS}"],
    ],
    ids=["own", "torchvision's anchors", "timm's backbone", "torchvision's backbone"],
)
def test_many_threads_with_many_shapes_find_what_one_thread_finds(parts: list[str]) -> None:
    parts = [*parts, "data.val.transforms=[]", "data.loader.size_divisor=8"]
    shared, alone = small_predictor(parts), small_predictor(parts)
    sides = [(32 + 8 * (k % 5), 32 + 8 * (k // 5)) for k in range(15)]
    images = [np.random.default_rng(k).integers(0, 256, (*side, 3), dtype=np.uint8) for k, side in enumerate(sides)]
    want = [alone(image)[0] for image in images]
    orders = [np.roll(np.arange(len(images)), k).tolist() for k in range(8)]
    for order, seen in zip(orders, in_threads(lambda k: [shared(images[i])[0] for i in orders[k]]), strict=True):
        for i, found in zip(order, seen, strict=True):
            equal(found, want[i])
    assert sum(map(len, want)) > 0


def test_threads_that_ask_for_more_shapes_than_are_remembered_get_the_anchors_of_theirs(predictor: Any) -> None:
    detector, cpu = predictor.detector, torch.device("cpu")
    levels = [[(-(-side // s),) * 2 for s in (8, 16, 32, 64, 128)] for side in range(32, 32 + 8 * 24, 8)]
    want = [torch.cat(detector.anchors(shapes, (8 * shapes[0][0],) * 2, cpu)) for shapes in levels]

    def work(k: Any) -> Any:
        order = np.random.default_rng(k).integers(0, len(levels), 150).tolist()
        return [(i, torch.cat(detector._anchors_for(levels[i], (8 * levels[i][0][0],) * 2, cpu))) for i in order]

    for seen in in_threads(work):
        assert all(torch.equal(found, want[i]) for i, found in seen)
    assert len(detector._anchor_cache) <= ANCHOR_CACHE


def test_the_anchor_cache_keeps_the_newest_shapes_and_gives_the_same_tensors_again(predictor: Any) -> None:
    detector, cpu = predictor.detector, torch.device("cpu")
    levels = [[(side,) * 2] * 5 for side in range(1, ANCHOR_CACHE + 3)]
    kept = [detector._anchors_for(shapes, (64, 64), cpu)[0] for shapes in levels]
    assert detector._anchors_for(levels[-1], (64, 64), cpu)[0] is kept[-1]
    assert detector._anchors_for(levels[0], (64, 64), cpu)[0] is not kept[0]
    assert len(detector._anchor_cache) == ANCHOR_CACHE


def image_folder(folder: Any, pictures: Any, *names: Any) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(pictures[0].read_bytes())
    return folder


def contents(folder: Any) -> Any:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_photo_is_never_drawn_over(
    checkpoint: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = image_folder(tmp_path / "photos", pictures, "a.png", "b.png")
    (tmp_path / "link").symlink_to(photos)
    before = contents(photos)
    for output in (photos, tmp_path / "link", photos / "../photos"):
        assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 2
        assert "a.png, which is an input: choose another path" in capsys.readouterr().err
    hard = tmp_path / "hard"
    hard.mkdir()
    (hard / "a.png").hardlink_to(photos / "a.png")
    assert main(["predict", str(checkpoint), str(photos), "--output", str(hard)]) == 2
    assert contents(photos) == before
    # Beside the photos, under other names, there is room; and what was drawn is no photo to the next run.
    jpegs = image_folder(tmp_path / "jpegs", pictures, "c.jpg")
    for _ in range(2):
        assert main(["predict", str(checkpoint), str(jpegs), "--output", str(jpegs)]) == 0
    assert "skipped: 1 file in" in capsys.readouterr().out
    assert [i["file_name"] for i in json.loads((jpegs / "images.json").read_text())] == [str(jpegs / "c.jpg")]


@pytest.mark.parametrize("name", ["a.png", "predictions.json", "images.json"])
def test_a_file_of_a_person_in_the_output_folder_stays(
    name: str, checkpoint: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = image_folder(tmp_path / "photos", pictures, "a.jpg"), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    assert main(["predict", str(checkpoint), str(photos), "--output", str(out)]) == 2
    assert f"--output: detkit did not write {out / name}" in capsys.readouterr().err
    assert contents(out) == {name: b"mine"}
    (out / name).unlink()
    for _ in range(2):
        assert main(["predict", str(checkpoint), str(photos), "--output", str(out)]) == 0
    (out / name).write_text("changed since")
    assert main(["predict", str(checkpoint), str(photos), "--output", str(out)]) == 2
    assert (out / name).read_text() == "changed since"


def test_the_folder_of_a_run_is_no_place_for_drawings(
    checkpoint: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    assert main(["predict", str(checkpoint), str(pictures[0]), "--output", str(tmp_path / "run")]) == 2
    assert "is the folder of a run or a bench (checkpoints)" in capsys.readouterr().err


def test_no_name_of_a_file_ends_it(
    checkpoint: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a\n\x1b[2J.png", "x" * 251 + ".png", os.fsdecode(b"b\xdf.png"), "A\n\x1b[2j.png"]
    photos = image_folder(tmp_path / "photos", pictures, *names)
    out = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(out)]) == 0
    told = capsys.readouterr().out
    assert r"a\n\x1b[2J.png: " in told
    assert r"b\xdf.png: " in told
    assert "\x1b" not in told
    images = json.loads((out / "images.json").read_bytes().decode("ascii"))
    assert sorted(len(image) for image in images) == [4, 4, 4, 5]
    (odd,) = [image for image in images if "file_name_hex" in image]
    assert bytes.fromhex(odd["file_name_hex"]) == os.fsencode(photos / os.fsdecode(b"b\xdf.png"))
    assert len(list(out.glob("*.png"))) == 4


def test_what_was_found_before_an_interrupt_is_written(
    checkpoint: Any, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detkit.predict import results as predict_results

    def interrupted(self: Any, name: Any, image: Any, found: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_results.Results, "draw", interrupted)
    out = tmp_path / "out"
    assert main(["predict", str(checkpoint), *map(str, pictures), "--output", str(out), "--batch", "1"]) == 130
    assert len(json.loads((out / "images.json").read_text())) == 1
    assert (out / "predictions.json").exists()


def test_a_drawing_that_can_t_be_written_loses_no_result(
    checkpoint: Any, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from detkit.predict import results as predict_results

    write = predict_results.write_png

    def fail_once(path: Any, content: Any, *, ledger: Any = None) -> None:
        if path.name == "1.png":
            raise PermissionError(13, "Permission denied", str(path))
        write(path, content, ledger=ledger)

    monkeypatch.setattr(predict_results, "write_png", fail_once)
    out = tmp_path / "out"
    assert main(["predict", str(checkpoint), *map(str, pictures), "--output", str(out)]) == 1
    assert len(json.loads((out / "images.json").read_text())) == 3
    assert "error: 1 of 3 drawings could not be written" in capsys.readouterr().err


def test_senseless_options_are_named(
    checkpoint: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    for more, text in (
        (["--batch", "0"], "--batch: 0 must be at least 1"), (["--score", "nan"], "--score: nan must be at least 0"),
        (["--max-megapixels", "nan"], "--max-megapixels: nan must be a positive number"),
        (["--device", "gpu"], "--device: 'gpu' must be auto, cpu"),
        (["--output", str(tmp_path / "file")], "is a file, not a folder: choose another path"),
    ):  # fmt: skip
        assert main(["predict", str(checkpoint), str(pictures[0]), "--output", str(tmp_path / "out"), *more]) == 2
        assert text in capsys.readouterr().err


def test_a_grey_image_with_a_channel_is_that_without() -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for image in (grey[:, :, None], torch.from_numpy(grey)[None], torch.from_numpy(grey)[None] / 255):
        assert np.array_equal(np.asarray(open_image(image)), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 9), (9, 9, 7), (9,)])
def test_an_array_that_is_no_image_is_named_with_its_shape(refuses: Refuses, shape: tuple[int, ...]) -> None:
    with refuses(ValueError):
        open_image(np.zeros(shape, np.uint8))

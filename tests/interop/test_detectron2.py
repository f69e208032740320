"""A converted Detectron2 RetinaNet computes what Detectron2 itself computed."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detkit.config import Config
from detkit.data.datasets.images import read_image
from detkit.data.loader import collate_images
from detkit.data.transforms.base import transform_image
from detkit.interop.detectron2 import convert_detectron2
from detkit.interop.files import Converted
from detkit.predict.predictor import Predictor
from detkit.registry import TRANSFORMS
from tests.refusals import Refuses

IMAGE = "data/bccd/JPEGImages/BloodImage_00001.jpg"


@pytest.fixture(scope="module")
def weights(shared_dir: Path, tmp_path_factory: Any) -> Path:
    """The random weights of the golden run, in the layout of a model zoo file."""
    script = shared_dir / "golden" / "make_detectron2_weights.py"
    if not script.is_file() or not (shared_dir / IMAGE).is_file():
        pytest.skip("../shared has no golden Detectron2 run")
    path: Path = tmp_path_factory.mktemp("detectron2") / "model_final.pkl"
    subprocess.run([sys.executable, str(script), str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def converted(weights: Path) -> Converted:
    return convert_detectron2(weights)


@pytest.fixture(scope="module")
def golden(shared_dir: Path) -> Any:
    return np.load(shared_dir / "golden" / "expected_detectron2.npz")


def close(found: Tensor, expected: np.ndarray) -> None:
    """Within 1e-3 of the largest expected value, all over."""
    want = torch.from_numpy(expected)
    assert found.shape == want.shape
    assert (found - want).abs().max() <= 1e-3 * want.abs().max()


def on_map(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(1, H * W * 9, c) -> Detectron2's (1, 9 * c, H, W)."""
    return rows.unflatten(1, (*shape[-2:], 9)).permute(0, 3, 4, 1, 2).reshape(shape)


def resized(shared_dir: Path) -> Tensor:
    """(3, 320, 427) uint8 RGB, as the data room makes it."""
    transform = TRANSFORMS.build({"type": "ResizeShortestEdge", "short": 320, "max_size": 1333})
    return transform_image([transform], read_image(shared_dir / IMAGE))


@torch.no_grad()
def test_image_anchors_and_head_outputs(converted: Converted, golden: Any, shared_dir: Path) -> None:
    image = resized(shared_dir)
    np.testing.assert_array_equal(image.permute(1, 2, 0).flip(-1).numpy(), golden["resized_image"])
    batch, sizes = collate_images([image], 32)
    assert tuple(batch.shape) == tuple(golden["padded_shape"])
    pred = converted.detector(batch, sizes)
    logits, deltas = (x.split(pred.level_sizes, dim=1) for x in (pred.logits, pred.deltas))
    anchors = pred.anchors.split(pred.level_sizes)
    close(anchors[0][: len(golden["anchors_p3_first"])], golden["anchors_p3_first"])
    for i, level in ((2, "p5"), (3, "p6"), (4, "p7")):
        close(anchors[i], golden[f"anchors_{level}"])
    for i, level in ((3, "p6"), (4, "p7")):
        close(on_map(logits[i], golden[f"logits_{level}"].shape), golden[f"logits_{level}"])
        close(on_map(deltas[i], golden[f"deltas_{level}"].shape), golden[f"deltas_{level}"])
    for found, name in ((logits[0], "logits_p3_sum"), (deltas[0], "deltas_p3_sum")):
        assert float(found.double().abs().sum()) == pytest.approx(float(golden[name]), rel=1e-3)


def test_the_99_detections_from_the_file_on_disk(converted: Converted, golden: Any, shared_dir: Path) -> None:
    """Through the checkpoint's own predictor: read, resize, pad, detect, undo the resize."""
    tree = converted.config.to_dict()
    tree["data"]["val"]["transforms"][0]["short"] = 320
    predictor = Predictor(converted.detector, Config.from_dict(tree), converted.classes)
    (found,) = predictor(shared_dir / IMAGE)
    assert len(found) == len(golden["scores"]) == 99
    # Two with nearly one score may change places, so each is looked up.
    same = (
        ((found.boxes[:, None] - torch.from_numpy(golden["boxes"])).abs().amax(-1) < 0.05)
        & ((found.scores[:, None] - torch.from_numpy(golden["scores"])).abs() < 1e-4)
        & (found.labels[:, None] == torch.from_numpy(golden["classes"]))
    )
    assert same.sum(0).tolist() == [1] * 99
    assert same.sum(1).tolist() == [1] * 99


def test_80_classes_are_those_of_coco(converted: Converted) -> None:
    assert converted.classes.names[:3] == ("person", "bicycle", "car")
    assert converted.classes.ids[11:13] == (13, 14)
    assert converted.config.postprocess.max_detections == 100


def test_a_deeper_backbone_is_read_off_the_tensors(refuses: Refuses, weights: Path, tmp_path: Path) -> None:
    """R101 has 23 blocks in the third stage instead of 6, all of one shape but the first."""
    model = arrays(weights)
    for name in [n for n in model if "bottom_up.res4.1." in n]:
        for block in range(6, 23):
            model[name.replace("res4.1.", f"res4.{block}.")] = model[name]
    path = tmp_path / "r101.pkl"
    path.write_bytes(pickle.dumps({"model": model}))
    deep = convert_detectron2(path)
    assert deep.config.backbone.depth == 101
    assert list(deep.config.schedule.milestones) == [210000, 250000]
    assert deep.config.train.iterations == 270000
    assert float(deep.detector.normalizer.average) == 100  # type: ignore[arg-type]
    found = deep.detector.state_dict()["backbone.layer3.22.conv2.weight"]
    assert torch.equal(found, torch.from_numpy(model["backbone.bottom_up.res4.1.conv2.weight"]))
    del model["backbone.bottom_up.res4.22.conv1.weight"]
    path.write_bytes(pickle.dumps({"model": model}))
    with refuses(ValueError):
        convert_detectron2(path)


def arrays(weights: Path) -> dict[str, np.ndarray]:
    with weights.open("rb") as file:
        model: dict[str, np.ndarray] = pickle.load(file)["model"]
    return model


def test_other_layouts_of_the_same_weights(weights: Path, converted: Converted, tmp_path: Path) -> None:
    """A .pth of Detectron2's own training, and the constants that older files carry."""
    model = {k: torch.from_numpy(v) for k, v in arrays(weights).items()}
    model["pixel_mean"] = torch.zeros(3, 1, 1)
    model["anchor_generator.cell_anchors.0"] = torch.zeros(9, 4)
    torch.save({"model": model, "iteration": 7}, tmp_path / "model_final.pth")
    again = convert_detectron2(tmp_path / "model_final.pth", classes=[f"c{i}" for i in range(80)])
    assert (again.classes.names[0], again.classes.ids[0]) == ("c0", 1)
    for name, tensor in converted.detector.state_dict().items():
        assert torch.equal(tensor, again.detector.state_dict()[name])


def test_a_file_that_does_not_fit_names_its_tensors(refuses: Refuses, weights: Path, tmp_path: Path) -> None:
    model = arrays(weights)
    del model["backbone.fpn_lateral3.bias"]
    model["proposal_generator.rpn_head.conv.weight"] = np.zeros(3, np.float32)
    model["backbone.bottom_up.stem.conv1.weight"] = np.zeros((64, 1, 7, 7), np.float32)
    path = tmp_path / "broken.pkl"
    path.write_bytes(pickle.dumps({"model": model}))
    with pytest.raises(ValueError) as error:
        convert_detectron2(path)
    text = str(error.value)
    assert str(path) in text
    assert "1 missing: backbone.fpn_lateral3.bias" in text
    assert "1 unexpected: proposal_generator.rpn_head.conv.weight" in text
    assert "backbone.bottom_up.stem.conv1.weight (64, 1, 7, 7) instead of (64, 3, 7, 7)" in text
    with refuses(ValueError):
        convert_detectron2(weights, classes=["a", "b", "c"])


def test_files_that_are_something_else_are_refused(refuses: Refuses, tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"conv1_w": np.zeros(3)}))
    with refuses(ValueError):
        convert_detectron2(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with refuses(ValueError):
        convert_detectron2(path)
    with refuses(ValueError):
        convert_detectron2(tmp_path / "none.pkl")

"""detkit inside the slicing of SAHI and supervision, with these libraries themselves."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detkit.predict.predictor import Predictor
from tests.predict.blobs import Blobs, painted
from tests.predict.test_views import IMAGE, RECTANGLES
from tests.refusals import Refuses


@pytest.fixture
def sahi() -> Any:
    """The functions of SAHI that predict."""
    return pytest.importorskip("sahi.predict")


def model(sahi: Any, **more: Any) -> Any:
    from detkit.predict.sahi_model import DetkitDetectionModel

    return DetkitDetectionModel(**{"model": Predictor(Blobs()), "device": "cpu", **more})


def found(result: Any) -> Any:
    return sorted(
        (p.category.name, tuple(round(v) for v in p.bbox.to_xyxy())) for p in result.object_prediction_list
    )  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
def test_sahi_finds_in_slices_what_is_in_the_image(sahi: Any, batch: int) -> None:
    made = model(sahi)
    result = sahi.get_sliced_prediction(
        IMAGE, made, slice_height=80, slice_width=80, overlap_height_ratio=0.6, overlap_width_ratio=0.6, verbose=0,
        batch_size=batch,
    )  # fmt: skip
    assert found(result) == sorted(RECTANGLES)
    assert found(sahi.get_prediction(IMAGE, made)) == sorted(RECTANGLES)
    assert (made.num_categories, made.category_names, made.has_mask) == (3, ["red", "green", "blue"], False)
    assert {p.category.id for p in result.object_prediction_list} == {0, 1, 2}
    assert result.object_prediction_list[0].score.value == pytest.approx(230 / 256)


def test_sahi_has_its_own_threshold_and_names(sahi: Any) -> None:
    assert found(sahi.get_prediction(IMAGE, model(sahi, confidence_threshold=0.95))) == []
    other = model(sahi, category_mapping={"0": "a", "1": "b", "2": "c"})
    assert {name for name, _ in found(sahi.get_prediction(IMAGE, other))} == {"a", "b", "c"}


def test_sahi_loads_a_checkpoint(sahi: Any, tiny: Path, tmp_path: Path, refuses: Refuses) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    made = model(sahi, model=None, model_path=str(tiny), confidence_threshold=0.1)
    result = sahi.get_prediction(str(tmp_path / "a.png"), made)
    (expected,) = Predictor.from_checkpoint(tiny, device="cpu", overrides=["postprocess.score_threshold=0.1"])(
        tmp_path / "a.png"
    )
    assert [p.category.name for p in result.object_prediction_list] == expected.names
    assert [p.score.value for p in result.object_prediction_list] == pytest.approx(expected.scores.tolist())
    with refuses(ValueError):
        model(sahi, model=None)
    with refuses(ValueError):
        model(sahi, image_size=640)


@pytest.mark.parametrize("batch", [1, 4])
def test_supervision_finds_in_slices_what_is_in_the_image(batch: int) -> None:
    supervision = pytest.importorskip("supervision")
    callback = Predictor(Blobs()).slicer_callback(channels="RGB")
    slicer = supervision.InferenceSlicer(
        callback=callback, slice_wh=(100, 100), overlap_wh=(50, 50), thread_workers=1, batch_size=batch,
        overlap_metric=supervision.OverlapMetric.IOS,
    )  # fmt: skip
    there = slicer(IMAGE)
    names = there.data["class_name"].tolist()
    boxes = [tuple(round(v) for v in box) for box in there.xyxy.tolist()]
    assert sorted(zip(names, boxes, strict=True)) == sorted(RECTANGLES)


def test_the_callback_reads_bgr_unless_told_otherwise(refuses: Refuses) -> None:
    pytest.importorskip("supervision")
    predictor, red = Predictor(Blobs()), painted(40, 40, [("red", (5, 5, 20, 20))])
    assert predictor.slicer_callback()(red).data["class_name"].tolist() == ["blue"]
    assert predictor.slicer_callback()(red[..., ::-1]).data["class_name"].tolist() == ["red"]
    with refuses(ValueError):
        predictor.slicer_callback(channels="GBR")  # type: ignore[arg-type]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    monkeypatch.setitem(sys.modules, "sahi.models.base", None)
    monkeypatch.delitem(sys.modules, "detkit.predict.sahi_model", raising=False)
    with refuses(ImportError):
        importlib.import_module("detkit.predict.sahi_model")

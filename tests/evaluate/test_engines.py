from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

from detkit.evaluate.arrays import GroundTruth, Shard
from detkit.evaluate.engines import run_engine
from detkit.evaluate.options import EvaluatorOptions
from tests.refusals import Refuses

NO_IDS = np.zeros(0, np.int64)
TRUTH = GroundTruth(
    np.array([5]), np.array([0, 0]), np.zeros((0, 4), np.float32), NO_IDS, np.zeros(0, bool), np.zeros(0)
)
FOUND = Shard(np.array([5]), np.array([0]), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), NO_IDS)


@pytest.mark.parametrize("engine", ["faster", "pycocotools"])
def test_shapes_and_silence(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    precision, recall = run_engine(TRUTH, FOUND, 3, EvaluatorOptions(engine=engine))  # type: ignore[arg-type]
    assert precision.shape == (10, 101, 3, 4, 3)
    assert recall.shape == (10, 3, 4, 3)
    assert (precision == -1).all()
    assert capsys.readouterr() == ("", "")


def test_garbage_collection_is_left_as_it_was() -> None:
    assert gc.isenabled()
    run_engine(TRUTH, FOUND, 3, EvaluatorOptions())
    assert gc.isenabled()
    gc.disable()
    try:
        run_engine(TRUTH, FOUND, 3, EvaluatorOptions())
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_missing_engine_says_what_to_install(refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with refuses(ImportError):
        run_engine(TRUTH, FOUND, 3, EvaluatorOptions())

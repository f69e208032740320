"""A tiny detector as a checkpoint, shared by the tests of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.checkpoint import Checkpoint, save_checkpoint
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.structures import ClassMap

BASE = Path(__file__).resolve().parents[2] / "configs/base/retinanet.yaml"
SETTINGS = [
    "backbone.depth=18", "backbone.norm=gn", "neck.channels=32", "head.num_convs=0", "losses.classification.prior=0.3",
    "postprocess.max_detections=7",
    "data.val={dataset: {type: ShapesDataset}, transforms: [{type: ResizeShortestEdge, short: 64}]}",
]  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkpoint of an untrained detector of cats and dogs, whose scores are near 0.3."""
    config = load_config(BASE, SETTINGS)
    torch.manual_seed(0)
    detector = build_detector(config, 2).eval()
    path = tmp_path_factory.mktemp("tiny") / "model.pt"
    classes = ClassMap(("cat", "dog"), (7, 3))
    save_checkpoint(
        path, Checkpoint(step=0, seed=0, model=detector.state_dict(), config=config.to_dict(), classes=classes)
    )
    return path

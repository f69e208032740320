"""Run with: pytest projects/my_dataset"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detkit.config import load_config
from detkit.registry import DATASETS
from detkit.testing import check_dataset
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")  # imports my_dataset.py, and so registers its class


def test_contract() -> None:
    check_dataset(DATASETS.get("MyDataset"))  # ContractError says what is broken, and why it matters


def test_boxes_lie_where_the_objects_are() -> None:
    data = DATASETS.build(CONFIG.data.val.dataset)
    assert len(data) == CONFIG.data.val.dataset.num_images
    for i in range(5):
        annotation, pixels = data.records.annotation(i), np.asarray(data.checked_image(i))
        (x1, y1, x2, y2), label = annotation.boxes[0].astype(int), annotation.labels[0]
        assert (pixels[y1:y2, x1:x2, label] == 255).all()


def test_training_and_validation_share_no_image() -> None:
    train_set, val_set = (DATASETS.build(CONFIG.data[split].dataset) for split in ("train", "val"))
    assert train_set.load_image(0) != val_set.load_image(0)


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    assert (tmp_path / "run/result.json").exists()

"""Run with: pytest projects/my_logger"""

from __future__ import annotations

from pathlib import Path

from detkit.config import load_config
from detkit.registry import LOGGERS
from detkit.testing import check_logger
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")  # imports my_logger.py, and so registers its class


def test_contract() -> None:
    check_logger(LOGGERS.get("MyLogger"))  # ContractError says what is broken, and why it matters


def test_a_training_with_the_logger(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2", "train.log_every=1"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    words = [line.split() for line in (tmp_path / "run/my_logger.txt").read_text(encoding="utf-8").splitlines()]
    assert [step for step, name, _ in words if name == "train/loss"] == ["1", "2"]
    assert ("2", "val/ap") in {(step, name) for step, name, _ in words}

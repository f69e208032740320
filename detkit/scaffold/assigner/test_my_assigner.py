"""Run with: pytest projects/my_assigner"""

from __future__ import annotations

from pathlib import Path

import torch

from detkit.config import load_config
from detkit.registry import ASSIGNERS
from detkit.structures import BACKGROUND, Candidates, Targets
from detkit.testing import check_assigner
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")  # imports my_assigner.py, and so registers its class


def test_contract() -> None:
    check_assigner(ASSIGNERS.get("MyAssigner"))  # ContractError says what is broken, and why it matters


ANCHORS = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [40, 40, 48, 48], [80, 80, 88, 88]])


def assign(boxes: list[list[float]], labels: list[int]) -> tuple[list[int], list[int]]:
    targets = Targets(torch.tensor(boxes).view(-1, 4), torch.tensor(labels).long())
    nothing = torch.zeros(len(ANCHORS), 4)
    candidates = Candidates(ANCHORS, (len(ANCHORS),), lambda: nothing, lambda: nothing)
    assignment = ASSIGNERS.build(CONFIG.assigner)(candidates, targets)
    return assignment.labels.tolist(), assignment.matched.tolist()


def test_objects_get_the_anchors_that_overlap_them_most() -> None:
    labels, matched = assign([[1.0, 1, 8, 8], [41.0, 41, 47, 47]], [5, 2])
    assert labels == [5, BACKGROUND, 2, BACKGROUND]
    assert (matched[0], matched[2]) == (0, 1)


def test_without_objects_all_is_background() -> None:
    assert assign([], [])[0] == [BACKGROUND] * 4


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    assert (tmp_path / "run/result.json").exists()

"""Detectors whose rules change in the course of a training end with the same bits when resumed at the change."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.checkpoint import read_checkpoint
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.structures import Batch, ClassMap, Targets
from detkit.train.optim import AdamW
from detkit.train.run_hooks import Checkpoints
from tests.family.test_fragments import overrides

CONFIGS = {
    "configs/tood/tood.yaml": "assigner.assigner.until=0.5",
    "configs/yolox/yolox_tiny.yaml": "losses.auxiliary=[{type: LateL1Loss, after: 0.5}]",
    "configs/ddod/ddod.yaml": "losses.classification={type: WarmupLoss, until: 0.5, first: {type: SigmoidFocalLoss}, "
    "then: {type: GHMCLoss, momentum: 0.5}}",
}
SIDE = 64


def detector(config: str) -> Any:
    torch.manual_seed(0)
    return build_detector(load_config(config, [*overrides(config), CONFIGS[config]]), 3)


def batches(start: int = 0) -> Iterator[Batch]:
    for position in count(start):
        noise = torch.Generator().manual_seed(position)
        corner = torch.rand(2, 2, 2, generator=noise) * 30
        yield Batch(
            images=torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=noise),
            sizes=torch.full((2, 2), SIDE),
            targets=[Targets(torch.cat((c, c + 24), dim=1), torch.tensor([0, 2])) for c in corner],
            original_sizes=torch.full((2, 2), SIDE),
            image_ids=[2 * position, 2 * position + 1],
            paths=["a.png", "b.png"],
        )


@pytest.mark.parametrize("config", CONFIGS)
def test_resumed_where_the_rules_change_it_ends_with_the_same_bits(
    config: str, tmp_path: Path, make_trainer: Any
) -> None:
    settings = {"optimizer": AdamW(lr=1e-3), "iterations": 4, "checkpoint_every": 2, "keep_last": 9}
    hook = Checkpoints(tmp_path, {"seed": 0}, ClassMap(("a", "b", "c"), (1, 2, 3)), None)
    whole = make_trainer(detector=detector(config), batches=batches(), hooks=(hook,), **settings)
    whole.run()
    rest = make_trainer(detector=detector(config), batches=batches(2), **settings)
    hook.restore(rest, read_checkpoint(tmp_path / "checkpoints" / "step_00000002.pt"))
    assert rest.train_step().step == 3
    assert rest.detector.progress == 0.5
    rest.run()
    want, have = whole.detector.state_dict(), rest.detector.state_dict()
    assert [name for name in want if not torch.equal(want[name], have[name])] == []

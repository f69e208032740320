"""A worker of test_sharded: trains, saves, resumes and calls a divided detector; also the same in one process."""

import copy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from detkit.checkpoint import read_checkpoint, step_path
from detkit.config import load_config
from detkit.data.loader import build_train_loader
from detkit.detectors.build import build_detector
from detkit.distributed import comm
from detkit.registry import DATASETS, OPTIMIZERS, SCHEDULES, TRANSFORMS
from detkit.train.random import seed_everything
from detkit.train.run_hooks import Checkpoints
from detkit.train.sharded import full_state, local_shard, unsharded
from detkit.train.torch_setup import set_deterministic
from detkit.train.trainer import Trainer

IMAGES = torch.full((1, 3, 64, 64), 100, dtype=torch.uint8)


def build(config: Any, folder: Any, resume: Any = None) -> Any:
    """A trainer with its checkpoints, gone on from a file or not."""
    dataset = DATASETS.build(config.require("data.train.dataset"))
    rank, world_size = comm.rank(), comm.world_size()
    seed_everything(0)
    detector = build_detector(config, len(dataset.classes))
    options = config.options("train")
    saved = read_checkpoint(resume) if resume else None
    batches = build_train_loader(
        dataset, [TRANSFORMS.build(t) for t in config.require("data.train.transforms")], config.options("data.loader"),
        seed=0, rank=rank, world_size=world_size, micro_batches=options.accumulate,
        start_step=saved.step if saved else 0,
    )  # fmt: skip
    checkpoints = Checkpoints(folder, config.to_dict(), dataset.classes)
    trainer = Trainer(
        detector, iter(batches), OPTIMIZERS.build(config.optimizer).build(detector), SCHEDULES.build(config.schedule),
        options, hooks=[checkpoints],
    )  # fmt: skip
    if saved:
        checkpoints.restore(trainer, saved)
    return trainer


def state_of(trainer: Any) -> Any:
    """Everything that goes on into the next step, as one process has it."""
    state = {
        "model": full_state(trainer.detector.state_dict()),
        "ema": full_state(trainer.ema.module.state_dict()),
        "optimizer": full_state(trainer.optimizer.state_dict())["state"],
    }
    return copy.deepcopy(state)


def train(config: Any, folder: Any, resume: Any = None) -> Any:
    trainer = build(config, folder, resume)
    trainer.run()
    return trainer, state_of(trainer)


def main(folder: Any, overrides: Any) -> None:
    torch.set_num_threads(1)
    set_deterministic(True)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    config = load_config("configs/quickstart/shapes.yaml", overrides)
    mine = folder / f"rank{rank}"
    trainer, end = train(config, mine)
    numbers = [sum(local_shard(p).numel() for p in trainer.detector.parameters())]
    numbers += [sum(local_shard(v).numel() for s in trainer.optimizer.state.values() for v in s.values() if v.ndim)]
    # One rank calls the average alone, as an evaluation with uneven parts does; then training goes on.
    with unsharded(trainer.model), torch.inference_mode():
        alone = [trainer.model(IMAGES).logits.clone() for _ in range(2 * rank)]
    after = trainer.train_step()
    # All resume from rank 0's file, as on a disk that they share.
    dist.barrier()
    resumed = train(config, folder / f"resumed{rank}", step_path(folder / "rank0", 2))[1]
    torch.save(
        {"end": end, "resumed": resumed, "numbers": numbers, "alone": alone, "after": after.loss},
        folder / f"rank{rank}.pt",
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

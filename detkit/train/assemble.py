"""From a checked config to everything a training needs, in order of dependence, top to bottom."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from detkit.checkpoint import Checkpoint, load_checkpoint
from detkit.config import Config
from detkit.data.build import SPLITS, build_datasets, build_transforms, open_images
from detkit.data.datasets.base import DetectionDataset
from detkit.data.loader import Loader, LoaderOptions, build_eval_loader, build_train_loader
from detkit.data.scan import BadImagesError
from detkit.data.transforms.base import Transform
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.distributed import comm
from detkit.distributed.comm import from_first_rank
from detkit.distributed.coordinator import COLLECTIVE_TIMEOUT, Coordinator
from detkit.distributed.preflight import check_data, data_hashes
from detkit.evaluate.loop import evaluate
from detkit.registry import CLASS_LOSSES, OPTIMIZERS, SCHEDULES
from detkit.runs.environment import environment
from detkit.runs.folder import RESULT
from detkit.runs.starts import Start, starts_before, this_start, to_plain
from detkit.structures import Batch, ClassMap
from detkit.train.meaning import differences
from detkit.train.options import TrainOptions
from detkit.train.profile import Profile
from detkit.train.random import seed_everything
from detkit.train.recorder import Recorder
from detkit.train.resume import check_code, find_resumable, resumed_start
from detkit.train.run_hooks import BeforeEvaluation, Checkpoints, Evaluation, TimeLimit
from detkit.train.speed import RankLog
from detkit.train.trainer import Trainer
from detkit.train.weights import format_rows, init_from
from detkit.utils.console import guard_stream
from detkit.utils.types import Tree

if TYPE_CHECKING:
    from detkit.evaluate.coco import CocoResult

log = logging.getLogger("detkit")

DataSets = tuple[DetectionDataset, DetectionDataset]
"""Of training and of validation."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """The parts of a run, ready to train.

    batches: endless micro-batches of this process. environment: versions and machine, as in environment.json.
    start: what this start of the run is made of. earlier_starts: those of the run before it, on rank 0.
    same_data: the line of the header that says that all ranks have the same data.
    """

    config: Config
    folder: Path
    coordinator: Coordinator
    train_set: DetectionDataset
    val_set: DetectionDataset
    val_loader: Loader
    batches: Generator[Batch, None, None]
    trainer: Trainer
    recorder: Recorder | None
    evaluation: Evaluation
    checkpoints: Checkpoints
    environment: Tree
    start: Start
    earlier_starts: list[Start]
    same_data: dict[str, str]

    @property
    def options(self) -> TrainOptions:
        """The `train` section of the config."""
        return self.trainer.options

    @property
    def loader_options(self) -> LoaderOptions:
        """The `data.loader` section of the config."""
        options: LoaderOptions = self.config.options("data.loader")
        return options

    @property
    def detector(self) -> DenseDetector:
        """The detector that is trained; `trainer.model` is the one to evaluate."""
        return self.trainer.detector

    @property
    def classes(self) -> ClassMap:
        """The classes of the training data."""
        return self.train_set.classes

    @property
    def images_per_micro_batch(self) -> int:
        """Images of one forward pass of one process."""
        return self.loader_options.batch_size // (self.options.accumulate * self.trainer.world_size)

    def transforms(self, split: str) -> list[Transform]:
        """The transforms of `data.<split>`."""
        return build_transforms(self.config, split)


def assemble(
    config: Config,
    folder: Path,
    *,
    resume: bool,
    coordinator: Coordinator,
    device: torch.device,
    init_weights: str | None = None,
    profile: int | None = None,
    allow: Sequence[str] = (),
    data_sets: DataSets | None = None,
) -> Session:
    """Builds a run, or restores it from its newest checkpoint.

    init_weights, profile, allow: see the options of `detkit train`. data_sets: opened already.
    """
    options: TrainOptions = config.options("train")
    train_set, val_set = data_sets or open_data_sets(config, coordinator)
    data = data_hashes(train_set, val_set)
    same_data = check_data(coordinator, data)
    saved = from_first_rank(lambda: find_resumable(folder, config, train_set.classes, data)) if resume else None
    if saved is None:
        config.check_length()
    detector = initial_detector(config, train_set.classes, init_weights, pretrained=saved is None)
    detector.to(device)
    if options.channels_last:
        detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train_loader, val_loader = build_loaders(config, train_set, val_set, start_step=saved.step if saved else 0)
    # Only now, as a part may import a module while it is built.
    versions = environment()
    rank, world_size = comm.rank(), comm.world_size()
    start = this_start(config, device, world_size, versions["command"])
    if saved is not None and not (saved.step >= options.iterations and (folder / RESULT).exists()):
        from_first_rank(lambda: check_code(saved, start, allow))
    earlier = starts_before(folder, saved) if saved is not None and rank == 0 else []
    if saved is not None:
        start = resumed_start(start, saved, earlier, detector, allow)
    batches = iter(train_loader)
    recorder = Recorder(folder) if rank == 0 else None
    evaluation = Evaluation(evaluator(config, val_set, val_loader), recorder)
    checkpoints = Checkpoints(folder, config.to_dict(), train_set.classes, evaluation, data=data, start=to_plain(start))
    tracer = [Profile(folder, profile)] if profile is not None else []
    trainer = Trainer(
        detector,
        batches,
        build_optimizer(config, detector),
        SCHEDULES.build(config.schedule),
        options,
        seed=config.seed,
        device=device,
        hooks=[
            *tracer, recorder or RankLog(), TimeLimit(), BeforeEvaluation(checkpoints), evaluation, checkpoints
        ],
    )  # fmt: skip
    if saved is not None:
        checkpoints.restore(trainer, saved)
        log.info("resuming %s after step %d", saved.path, saved.step)
    return Session(
        config=config,
        folder=folder,
        coordinator=coordinator,
        train_set=train_set,
        val_set=val_set,
        val_loader=val_loader,
        batches=batches,
        trainer=trainer,
        recorder=recorder,
        evaluation=evaluation,
        checkpoints=checkpoints,
        environment=versions,
        start=start,
        earlier_starts=earlier,
        same_data=same_data,
    )


def open_data_sets(config: Config, coordinator: Coordinator) -> DataSets:
    """The data sets of training and validation, after every image has been opened."""

    def share(name: str, value: object) -> list[object]:
        return coordinator.all_gather(name, value, COLLECTIVE_TIMEOUT.total_seconds(), "opens its images")

    rank, world_size = coordinator.process.rank, coordinator.process.world_size
    sets, bad = [], []
    for split, dataset in zip(SPLITS, build_datasets(config), strict=True):
        try:
            sets.append(open_images(dataset, split, all_gather=share, rank=rank, world_size=world_size, early=True))
        except BadImagesError as error:  # raised on every rank alike, so that the other split is reported as well
            bad.append(str(error))
    if bad:
        raise BadImagesError("\n".join(bad))
    train_set, val_set = sets
    return train_set, val_set


def initial_detector(config: Config, classes: ClassMap, init_weights: str | None, *, pretrained: bool) -> DenseDetector:
    """The detector with weights of another run (`--init-from`), a pretrained backbone, or as initialised."""
    seed_everything(config.seed)
    detector = build_detector(config, len(classes))
    if init_weights is not None:
        load_weights(init_weights, detector, config, classes)
    elif pretrained:
        try:
            detector.backbone.load_pretrained()
        except ValueError as error:
            raise ValueError(f"{config.location('backbone.weights')}: {error}") from error
    return detector


def load_weights(source: str, detector: DenseDetector, config: Config, classes: ClassMap) -> None:
    """Loads the weights that fit, and logs a table of the rest."""
    saved: Checkpoint = load_checkpoint(source)
    columns = CLASS_LOSSES.build(saved.config["losses"]["classification"]).num_columns(len(saved.classes))
    mine = detector.class_loss.num_columns(len(classes))
    changed = differences(saved.config, config, detector)
    rows = init_from(detector, saved.ema or saved.model, saved.classes, classes, (columns, mine), changed)
    log.info("weights of %s, step %d\n%s", saved.path, saved.step, format_rows(rows))
    for note in changed.notes:
        log.warning("--init-from: %s", note)


def build_loaders(
    config: Config, train_set: DetectionDataset, val_set: DetectionDataset, start_step: int
) -> tuple[Loader, Loader]:
    """Loaders of this rank's share of training and validation images."""
    options: LoaderOptions = config.options("data.loader")
    rank, world_size = comm.rank(), comm.world_size()
    val_loader = build_eval_loader(val_set, build_transforms(config, "val"), options, rank=rank, world_size=world_size)
    train_loader = build_train_loader(
        train_set,
        build_transforms(config, "train"),
        options,
        seed=config.seed,
        start_step=start_step,
        rank=rank,
        world_size=world_size,
        micro_batches=config.options("train").accumulate,
    )
    return train_loader, val_loader


def evaluator(config: Config, val_set: DetectionDataset, val_loader: Loader) -> Callable[[Trainer], CocoResult]:
    """A function that returns the COCO figures of a trainer's model on the validation images."""

    def run(trainer: Trainer) -> CocoResult:
        return evaluate(
            trainer.model,
            val_set,
            trainer.progress.track(val_loader),
            config.options("evaluator"),
            progress=guard_stream(sys.stderr).isatty(),
        )

    return run


def build_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the config, its learning rates scaled with the batch size where `train.lr_scaling` says so."""
    optimizer: torch.optim.Optimizer = OPTIMIZERS.build(config.optimizer).build(model)
    factor = config.options("train").lr_factor(config.options("data.loader").batch_size)
    for group in optimizer.param_groups:
        group["lr"] *= factor
        group["initial_lr"] *= factor
    return optimizer

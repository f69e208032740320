"""From a checked config to everything a training needs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from detkit.config import Config
from detkit.data.build import SPLITS, build_datasets, build_transforms, open_images
from detkit.data.datasets.base import DetectionDataset
from detkit.data.final import build_final
from detkit.data.loader import Loader, LoaderOptions, build_eval_loader, build_train_loader
from detkit.data.scan import BadImagesError
from detkit.data.transforms.base import Transform
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.distributed import comm
from detkit.distributed.comm import from_first_rank
from detkit.distributed.coordinator import COLLECTIVE_TIMEOUT, Coordinator
from detkit.distributed.preflight import check_data, data_hashes
from detkit.evaluate.coco import CocoResult
from detkit.evaluate.loop import evaluate
from detkit.interop import load_any
from detkit.registry import CLASS_LOSSES, OPTIMIZERS, SCHEDULES
from detkit.runs.environment import environment
from detkit.runs.folder import RESULT
from detkit.runs.starts import Start, starts_before, this_start, to_plain
from detkit.structures import ClassMap
from detkit.train.hook_access import Surroundings
from detkit.train.meaning import differences
from detkit.train.observers import build_hooks, build_loggers
from detkit.train.options import TrainOptions
from detkit.train.pictures import predict_images
from detkit.train.profile import Profile
from detkit.train.random import seed_everything
from detkit.train.recorder import Recorder
from detkit.train.resume import check_code, find_resumable, resumed_start
from detkit.train.run_hooks import BeforeEvaluation, Checkpoints, Evaluation, TimeLimit
from detkit.train.speed import RankLog
from detkit.train.trainer import Trainer
from detkit.train.val_loss import ValidationLoss
from detkit.train.weights import format_rows, init_from
from detkit.utils.console import guard_stream

log = logging.getLogger("detkit")

DataSets = tuple[DetectionDataset, DetectionDataset]
"""Of training and of validation."""


class Session:
    """The parts of a run, ready to train: built from a config, or restored from the newest checkpoint in the folder.

    init_weights, profile, allow: see the options of `detkit train`. data_sets: opened already.
    detector: what is trained; `trainer.model` is what to evaluate. batches: endless micro-batches of this process.
    environment: versions and machine, as in environment.json. start: what this start of the run is made of.
    earlier_starts: those of the run before it, on rank 0. same_data: the header's line on data that all ranks share.
    """

    def __init__(
        self,
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
    ) -> None:
        self.config, self.folder, self.coordinator = config, folder, coordinator
        self.options: TrainOptions = config.options("train")
        self.loader_options: LoaderOptions = config.options("data.loader")
        self.train_set, self.val_set = data_sets or open_data_sets(config, coordinator)
        self.classes = self.train_set.classes
        data = data_hashes(self.train_set, self.val_set)
        self.same_data = check_data(coordinator, data)
        saved = from_first_rank(lambda: find_resumable(folder, config, self.classes, data)) if resume else None
        if saved is None:
            config.check_length()
        self.detector = initial_detector(config, self.classes, init_weights, pretrained=saved is None).to(device)
        if self.options.channels_last:
            self.detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.build_loaders(saved.step if saved else 0)
        # Only now, as a part may import a module while it is built.
        self.environment = environment()
        self.start = this_start(config, device, comm.world_size(), self.environment["command"])
        self.earlier_starts: list[Start] = []
        if saved is not None:
            if saved.step < self.options.iterations or not (folder / RESULT).exists():
                from_first_rank(lambda: check_code(saved, self.start, allow))
            self.earlier_starts = starts_before(folder, saved) if comm.is_first() else []
            self.start = resumed_start(self.start, saved, self.earlier_starts, self.detector, allow)
        self.batches = iter(self.train_loader)
        loggers = build_loggers(config)
        self.recorder = Recorder(folder, loggers, config.to_dict()) if comm.is_first() else None
        self.evaluation = Evaluation(partial(evaluate_model, config, self.val_set, self.val_loader), self.recorder)
        self.checkpoints = Checkpoints(
            folder, config.to_dict(), self.classes, self.evaluation, data=data, start=to_plain(self.start)
        )
        tracer = [Profile(folder, profile)] if profile is not None else []
        before = BeforeEvaluation(self.checkpoints)
        self.trainer = Trainer(
            self.detector,
            self.batches,
            build_optimizer(config, self.detector),
            SCHEDULES.build(config.schedule),
            self.options,
            seed=config.seed,
            device=device,
            hooks=[
                *tracer, self.recorder or RankLog(), TimeLimit(), before, self.evaluation, *build_hooks(config),
                self.checkpoints,
            ],
        )  # fmt: skip
        self.trainer.around = self.surroundings()
        if saved is not None:
            self.checkpoints.restore(self.trainer, saved)
            log.info("resuming %s after step %d", saved.path, saved.step)

    @property
    def images_per_micro_batch(self) -> int:
        """Images of one forward pass of one process."""
        return self.loader_options.batch_size // (self.options.accumulate * self.trainer.world_size)

    def transforms(self, split: str) -> list[Transform]:
        return build_transforms(self.config, split)

    def surroundings(self) -> Surroundings:
        """What the hooks of the config reach through the trainer."""
        recorder, options, trainer = self.recorder, replace(self.loader_options, num_workers=0), self.trainer
        return Surroundings(
            folder=self.folder,
            classes=self.classes,
            validation_images=len(self.val_set),
            size_divisor=options.size_divisor,
            save_weights=partial(self.checkpoints.save_weights, trainer),
            predictions=partial(predict_images, trainer, self.val_set, self.transforms("val"), options),
            record=recorder.record if recorder else lambda step, values: None,
            record_image=recorder.loggers.log_image if recorder else lambda step, name, path: None,
        )

    def build_loaders(self, start_step: int) -> None:
        """Makes the loaders of this rank's images; the session holds them, as they explain the death of a worker."""
        ranks = {"rank": comm.rank(), "world_size": comm.world_size()}
        self.val_loader = build_eval_loader(self.val_set, self.transforms("val"), self.loader_options, **ranks)
        transforms = self.transforms("train")
        self.train_loader = build_train_loader(
            self.train_set,
            transforms,
            self.loader_options,
            seed=self.config.seed,
            start_step=start_step,
            micro_batches=self.options.accumulate,
            final=build_final(self.config, transforms),
            **ranks,
        )


def open_data_sets(config: Config, coordinator: Coordinator) -> DataSets:
    """The data sets of training and validation, after every image has been opened."""

    def gather(name: str, value: object) -> list[object]:
        return coordinator.all_gather(name, value, COLLECTIVE_TIMEOUT.total_seconds(), "opens its images")

    rank, world_size = coordinator.process.rank, coordinator.process.world_size
    sets, bad = [], []
    for split, dataset in zip(SPLITS, build_datasets(config), strict=True):
        try:
            sets.append(open_images(dataset, split, all_gather=gather, rank=rank, world_size=world_size, early=True))
        except BadImagesError as error:  # raised on every rank alike, so that the other split is reported as well
            bad.append(str(error))
    if bad:
        raise BadImagesError("\n".join(bad))
    return sets[0], sets[1]


def initial_detector(config: Config, classes: ClassMap, init_weights: str | None, *, pretrained: bool) -> DenseDetector:
    """The detector with weights of another run (`--init-from`), a pretrained backbone, or as initialised."""
    seed_everything(config.seed)
    detector = build_detector(config, len(classes))
    if init_weights is not None:
        load_weights(init_weights, detector, config, classes)
    elif pretrained:
        with config.locate_errors("backbone.weights"):
            detector.backbone.load_pretrained()
    return detector


def load_weights(source: str, detector: DenseDetector, config: Config, classes: ClassMap) -> None:
    """Loads the weights that fit, and logs a table of the rest."""
    saved = load_any(source)
    columns = CLASS_LOSSES.build(saved.config["losses"]["classification"]).num_columns(len(saved.classes))
    new_columns = detector.class_loss.num_columns(len(classes))
    changed = differences(saved.config, config, detector)
    rows = init_from(detector, saved.weights, saved.classes, classes, (columns, new_columns), changed)
    log.info("weights of %s, step %d\n%s", saved.path or source, saved.step, format_rows(rows))
    for note in changed.notes:
        log.warning("--init-from: %s", note)


def evaluate_model(config: Config, val_set: DetectionDataset, val_loader: Loader, trainer: Trainer) -> CocoResult:
    """The COCO figures of a trainer's model on the validation images, and its loss with `train.val_loss`."""
    images, options = trainer.progress.track(val_loader), config.options("evaluator")
    loss = ValidationLoss(trainer.detector, config.options("data.loader").batch_size)
    on_predictions = loss.add if trainer.options.val_loss else None
    shows = guard_stream(sys.stderr).isatty()
    result = evaluate(trainer.model, val_set, images, options, progress=shows, on_predictions=on_predictions)
    return replace(result, losses=loss.result()) if trainer.options.val_loss else result


def build_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the config, its learning rates scaled with the batch size where `train.lr_scaling` says so."""
    optimizer: torch.optim.Optimizer = OPTIMIZERS.build(config.optimizer).build(model)
    factor = config.options("train").lr_factor(config.options("data.loader").batch_size)
    for group in optimizer.param_groups:
        group["lr"] *= factor
        group["initial_lr"] *= factor
    return optimizer

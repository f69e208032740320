"""A training run from config to result.json, top to bottom."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from detkit.analyze.anchor_coverage import warn_of_misfits
from detkit.checkpoint import as_full_disk, load_checkpoint, saved_steps, step_path
from detkit.config import Config
from detkit.data.audit import warn_of_lost_objects
from detkit.data.build import SPLITS, build_datasets, build_transforms, open_images, warn_of_shared_images
from detkit.data.datasets.base import DetectionDataset
from detkit.data.loader import build_eval_loader, build_train_loader, check_split
from detkit.data.scan import BadImagesError
from detkit.data.worker import check_workers, explain_death, worker_processes
from detkit.detectors.build import build_detector
from detkit.distributed import comm
from detkit.distributed.comm import from_first_rank
from detkit.distributed.coordinator import COLLECTIVE_TIMEOUT, Coordinator
from detkit.distributed.group import device_of, process_group
from detkit.distributed.preflight import check_data, data_hashes, preflight, same_everywhere
from detkit.distributed.process_info import ProcessInfo
from detkit.distributed.watchdog import Watchdog
from detkit.evaluate.report import format_table, to_json
from detkit.evaluate.run import evaluate
from detkit.fingerprint import digest
from detkit.losses.base import Normalizer
from detkit.registry import CLASS_LOSSES, OPTIMIZERS, SCHEDULES
from detkit.runs.environment import environment, peak_memory_mb
from detkit.runs.folder import (
    CONFIG,
    CURVES,
    ENVIRONMENT,
    METRICS,
    PREDICTIONS,
    RESULT,
    TENSORBOARD,
    check_folder,
    claimed,
    prepare_folder,
    write_json,
    write_own,
)
from detkit.runs.log import log_path, run_log
from detkit.runs.starts import starts_before, this_start, to_plain, with_starts
from detkit.structures import Batch, ClassMap, Detections
from detkit.train.meaning import differences
from detkit.train.memory import as_out_of_memory, check_fits
from detkit.train.non_finite import NonFiniteLossError
from detkit.train.options import TrainOptions
from detkit.train.parallel import warn_of_the_split
from detkit.train.profile import Profile
from detkit.train.random import seed_everything, set_deterministic
from detkit.train.recorder import Recorder
from detkit.train.resume import check_code, find_resumable, resumed_start
from detkit.train.run_hooks import BeforeEvaluation, Checkpoints, Evaluation, TimeLimit, stop_on_signals
from detkit.train.sharded import gathered
from detkit.train.speed import RankLog, speed_of_run
from detkit.train.trainer import Trainer
from detkit.train.weights import format_rows, init_from
from detkit.utils.console import guard_of, say
from detkit.utils.cores import usable_cores
from detkit.utils.outputs import Ledger, lack_of_space

log = logging.getLogger("detkit")

GRID_IMAGES = 8
EVALUATION_ERROR = "evaluation_error"
"""Key of result.json: why the last evaluation of a finished training gave no figures."""
FAILED_EVALUATION = 1
DIVERGED = NonFiniteLossError.exit_code


def train(config: Config, folder: str | Path, *, resume: bool = False, init_from: str | Path | None = None,
          overwrite: bool = False, coordinator: Coordinator | None = None,
          profile: int | None = None, allow: Sequence[str] = ()) -> int:  # fmt: skip
    """Runs a whole training in `folder`; returns the exit code of `detkit train`.

    coordinator: the processes of the run, of which this is one; alone without it. profile: steps to record
    a trace of. allow: what may have changed at a resume: `code`.
    """
    if not isinstance(config, Config):
        raise ValueError(f"config: {config!r} is not a Config: train(load_config(FILE), FOLDER)")
    folder, coordinator = Path(folder), coordinator or Coordinator(ProcessInfo())
    init_from = None if init_from is None else str(init_from)
    check_batch(config, coordinator)
    if overwrite and init_from and Path(init_from).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"--overwrite would delete {init_from} before it is read: choose another --output")
    device = set_up_torch(config.options("train"), coordinator.process)
    facts = same_everywhere(coordinator, config, device)
    with process_group(coordinator, device) as backend, contextlib.ExitStack() as kept:
        lines = preflight(coordinator, facts, device, backend)
        restarted = coordinator.was_started()
        resume, overwrite = after_restart(coordinator, folder, resume=resume, overwrite=overwrite)
        if restarted:  # another machine may be the first one now, and have compiled the native library for itself
            allow = [*allow, "native"]

        def prepare() -> None:
            check_folder(folder, resume=resume, overwrite=overwrite)  # at once, not after a wait for the lock
            kept.enter_context(claimed(folder, restarted=restarted))
            prepare_folder(folder, resume=resume, overwrite=overwrite)

        try:
            coordinator.on_rank_zero(prepare)
            coordinator.mark_started()
            folder.mkdir(parents=True, exist_ok=True)  # the disk may be another machine's own
            kept.enter_context(run_log(folder, coordinator.process.rank))
        except OSError as error:
            raise as_full_disk(error, folder) or error from error
        try:
            session = Session(
                config, folder, resume=resume, init_weights=None if resume else init_from, coordinator=coordinator,
                device=device, profile=profile, allow=allow,
            )  # fmt: skip
            session.network = lines
            return session.run()
        except NonFiniteLossError as error:
            log.error("%s", error, extra={"only_file": coordinator.process.is_worker})
            if coordinator.process.is_worker:  # told once, by who started the workers, on every machine
                raise
            return DIVERGED
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            known = explain_death(error) or as_full_disk(error, folder) or as_out_of_memory(error, config, device)
            log.error("%s", known or error, extra={"only_file": True})
            if known is None:
                raise
            raise known from error


def after_restart(coordinator: Coordinator, folder: Path, *, resume: bool, overwrite: bool) -> tuple[bool, bool]:
    """`resume` and `overwrite` for this start: after a failure the run goes on, and deletes no checkpoint.

    A restart before the first checkpoint begins anew, over what little the run has written itself.
    """
    if not coordinator.was_started():
        return resume, overwrite
    there = coordinator.all_gather("checkpoints", bool(saved_steps(folder)))[0]
    return resume or there, not (resume or there)


def check_batch(config: Config, coordinator: Coordinator) -> None:
    """Refuses a batch that the processes can't share out, and too many loader processes, before they connect."""
    loader = config.options("data.loader")
    check_split(loader.batch_size, coordinator.process.world_size, config.options("train").accumulate)
    try:
        check_workers(loader.num_workers)
    except ValueError as error:
        raise ValueError(f"{config.place('data.loader.num_workers')}: {error}") from error


def check(config: Config, coordinator: Coordinator) -> int:
    """`--check`: everything that is looked at before a model is built, and nothing else."""
    check_batch(config, coordinator)
    device = set_up_torch(config.options("train"), coordinator.process)
    facts = same_everywhere(coordinator, config, device)
    with process_group(coordinator, device) as backend:
        lines = preflight(coordinator, facts, device, backend)
        lines |= check_data(coordinator, data_hashes(*open_data_sets(config, coordinator)))
        if coordinator.process.rank == 0:
            lines["ready"] = f"{coordinator.process.world_size} processes"
            say(format_lines(lines))
    return 0


def open_data_sets(config: Config, coordinator: Coordinator) -> tuple[DetectionDataset, DetectionDataset]:
    """The data sets of training and validation, after every image has been opened."""

    def share(name: str, value: Any) -> list[Any]:
        return coordinator.all_gather(name, value, COLLECTIVE_TIMEOUT.total_seconds(), "opens its images")

    rank, world_size = coordinator.process.rank, coordinator.process.world_size
    sets, bad = [], []
    for split, dataset in zip(SPLITS, build_datasets(config), strict=True):
        try:
            sets.append(open_images(dataset, split, share=share, rank=rank, world_size=world_size, early=True))
        except BadImagesError as error:  # raised on every rank alike, so that the other split is reported as well
            bad.append(str(error))
    if bad:
        raise BadImagesError("\n".join(bad))
    train_set, val_set = sets
    return train_set, val_set


class Session:
    """What a run is made of, built in order of dependence."""

    def __init__(self, config: Config, folder: Path, *, resume: bool, init_weights: str | None,
                 coordinator: Coordinator, device: torch.device, profile: int | None = None, allow: Sequence[str] = (),
                 data_sets: tuple[DetectionDataset, DetectionDataset] | None = None) -> None:  # fmt: skip
        self.config, self.folder, self.coordinator = config, folder, coordinator
        self.options: TrainOptions = config.options("train")
        self.loader_options = config.options("data.loader")
        self.rank, self.world_size = comm.rank(), comm.world_size()
        self.device = device
        self.train_set, self.val_set = data_sets or open_data_sets(config, coordinator)
        self.network: dict[str, str] = {}
        data = data_hashes(self.train_set, self.val_set)
        self.same_data = check_data(coordinator, data)
        self.classes: ClassMap = self.train_set.classes
        self.environment = environment()
        saved = from_first_rank(lambda: find_resumable(folder, config, self.classes, data)) if resume else None
        if saved is None:
            config.check_length()
        seed_everything(config.seed)
        self.detector = build_detector(config, len(self.classes))
        if init_weights is not None:
            self.load_weights(init_weights)
        elif saved is None:
            try:
                self.detector.backbone.load_pretrained()
            except ValueError as error:
                raise ValueError(f"{config.place('backbone.weights')}: {error}") from error
        self.detector.to(self.device)
        if self.options.channels_last:
            self.detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.val_loader = build_eval_loader(
            self.val_set,
            self.transforms("val"),
            self.loader_options,
            rank=self.rank,
            world_size=self.world_size,
        )
        self.train_loader = build_train_loader(
            self.train_set,
            self.transforms("train"),
            self.loader_options,
            seed=config.seed,
            start_step=saved.step if saved else 0,
            rank=self.rank,
            world_size=self.world_size,
            micro_batches=self.options.accumulate,
        )
        # Only now, as a part may import a module while it is built.
        start = this_start(config, device, self.world_size, self.environment["command"])
        if saved is not None and not (saved.step >= self.options.iterations and (folder / RESULT).exists()):
            from_first_rank(lambda: check_code(saved, start, allow))
        self.batches = iter(self.train_loader)
        self.recorder = Recorder(folder) if self.rank == 0 else None
        self.evaluation = Evaluation(self.evaluate, self.recorder)
        self.earlier = starts_before(folder, saved) if saved is not None and self.rank == 0 else []
        self.start = resumed_start(start, saved, self.earlier, self.detector, allow) if saved is not None else start
        self.checkpoints = Checkpoints(
            folder, config.to_dict(), self.classes, self.evaluation, data=data, start=to_plain(self.start)
        )
        tracer = [Profile(folder, profile)] if profile is not None else []
        optimizer = OPTIMIZERS.build(config.optimizer).build(self.detector)
        scale_learning_rate(optimizer, self.options.lr_factor(self.loader_options.batch_size))
        self.trainer = Trainer(
            self.detector,
            self.batches,
            optimizer,
            SCHEDULES.build(config.schedule),
            self.options,
            seed=config.seed,
            device=self.device,
            hooks=[
                *tracer,
                self.recorder or RankLog(),
                TimeLimit(),
                BeforeEvaluation(self.checkpoints),
                self.evaluation,
                self.checkpoints,
            ],
        )
        if saved is not None:
            self.checkpoints.restore(self.trainer, saved)
            log.info("resuming %s after step %d", saved.path, saved.step)

    def run(self) -> int:
        """Trains, then evaluates, draws and writes the result."""
        if self.trainer.step >= self.options.iterations and from_first_rank(lambda: is_complete(self.folder)):
            log.info("%s is finished: nothing to resume", self.folder)
            return 0
        if self.rank == 0:
            if not write_own(self.folder / CONFIG, self.config.to_yaml()):
                log.warning("%s was changed since detkit wrote it: it stays as it is", self.folder / CONFIG)
            write_json(self.folder / ENVIRONMENT, with_starts(self.environment, [*self.earlier, self.start]))
            log.info("%s", self.header())
            for sentence in self.start.changed:
                log.warning("resumed: %s", sentence)
            warn_of_slow_precision(self.options, self.device)
            parts = self.options.accumulate * self.world_size
            images = self.loader_options.batch_size // parts
            warn_of_the_split(self.detector, parts, images, draws_numbers=self.trainer.draws_numbers)
            warn_of_shared_images(self.train_set, self.val_set)
            warn_of_lost_objects(
                (self.train_set, self.transforms("train")), (self.val_set, self.transforms("val")), self.config.seed
            )
            warn_of_misfits(
                self.detector, self.train_set, self.transforms("train"), self.loader_options,
                seed=self.config.seed, config=self.config.name,
            )  # fmt: skip
        check_fits(self)
        try:
            with stop_on_signals(self.trainer), self.watchdog():
                self.trainer.run()
        except Exception:
            if self.rank == 0 and self.evaluation.failed_last:
                self.note_failed_evaluation()
            raise
        finally:
            self.batches.close()  # the loader processes end now, in good order, and leave no temporary folders
            if self.recorder is not None:
                self.recorder.close()
        if self.trainer.interrupted:
            log.warning(
                "%s: stopped after step %d of %d; %s is written, resume with --resume",
                self.trainer.stop, self.trainer.step, self.options.iterations, self.trainer.last_checkpoint,
            )  # fmt: skip
            return 128 + self.trainer.signal
        if self.trainer.stop is not None:
            log.info("%s", self.trainer.stop)
        if self.evaluation.result is None:
            if self.rank == 0:
                self.note_failed_evaluation()
            return FAILED_EVALUATION
        with gathered(self.trainer.model):
            if self.rank == 0:
                self.finish()
        return 0

    def transforms(self, split: str) -> list[Any]:
        """The transforms of `data.<split>`."""
        return build_transforms(self.config, split)

    def evaluate(self, model: Any) -> Any:
        """COCO figures of a model on the validation images."""
        return evaluate(
            model,
            self.val_set,
            self.trainer.progress.track(self.val_loader),
            self.config.options("evaluator"),
            progress=guard_of(sys.stderr).isatty(),
        )

    def watchdog(self) -> Watchdog:
        """What ends the run if this process, or one that it waits for, hangs."""
        return self.coordinator.watchdog(
            "training", self.trainer.progress, self.options.hang_timeout, setting="train.hang_timeout",
            log_file=log_path(self.folder, self.rank), worker_pids=worker_processes,
        )  # fmt: skip

    def load_weights(self, source: str) -> None:
        """`--init-from`: what fits, with a table of the rest."""
        saved = load_checkpoint(source)
        columns = CLASS_LOSSES.build(saved.config["losses"]["classification"]).num_columns(len(saved.classes))
        mine = self.detector.class_loss.num_columns(len(self.classes))
        changed = differences(saved.config, self.config, self.detector)
        weights = saved.ema or saved.model
        rows = init_from(self.detector, weights, saved.classes, self.classes, (columns, mine), changed)
        log.info("weights of %s, step %d\n%s", saved.path, saved.step, format_rows(rows))
        for note in changed.notes:
            log.warning("--init-from: %s", note)

    def header(self) -> str:
        """What is about to run, on what."""
        options, total = self.options, self.loader_options.batch_size
        each = total // (options.accumulate * self.world_size)
        count = sum(p.numel() for p in self.detector.parameters())
        learnt = sum(p.numel() for p in self.detector.parameters() if p.requires_grad)
        epochs = options.iterations * total / max(len(self.train_set), 1)
        env = self.environment
        lines = {
            "detkit": f"{env['versions']['detkit']} at {env['package']}, torch {env['versions']['torch']}",
            "run": str(self.folder),
            "device": f"{self.device}, {env['machine'].get('gpu', env['machine']['cpu'])}, "
            f"{torch.get_num_threads()} threads, {options.precision}"
            + (", deterministic" if options.deterministic else ""),
            "model": f"{count / 1e6:.2f} M parameters, {learnt / 1e6:.2f} M of them learnt",
            "batch": f"{total} images a step = {self.world_size} processes x {options.accumulate} "
            f"micro-batches x {each} images" + (f", {options.parallel}" if self.world_size > 1 else ""),
            "code": f"{digest(self.start.code)} ({len(self.start.code)} files)",
            "loss": f"{type(self.detector.class_loss).__name__} + {type(self.detector.box_loss).__name__}, "
            f"divided by {describe(self.detector.normalizer)}",
            "lr": self.describe_learning_rate(),
            "length": f"{options.iterations} steps, {epochs:.1f} passes over the data",
            "train": self.train_set.summary(),
            "val": self.val_set.summary(),
            **self.network,
            **self.same_data,
        }
        return format_lines(lines)

    def describe_learning_rate(self) -> str:
        """The first group's highest rate, and what it comes from."""
        options, total = self.options, self.loader_options.batch_size
        rate = self.trainer.optimizer.param_groups[0]["initial_lr"]
        if options.lr_batch_size is None:
            return f"{rate:g}, whatever the batch size (train.lr_scaling: none)"
        factor = options.lr_factor(total)
        root = "the root of " if options.lr_scaling == "sqrt" else ""
        rule = f"{root}{total}/{options.lr_batch_size} (train.lr_scaling: {options.lr_scaling})"
        return f"{rate:g} = {rate / factor:g} x {rule}"

    def finish(self) -> None:
        """result.json, and only then table, pictures, and what to do next."""
        trainer, result = self.trainer, self.evaluation.result
        assert result is not None
        content: dict[str, Any] = {**to_json(result), **self.facts()}
        write_json(self.folder / RESULT, content)
        log.info("%s", format_table(result))
        self.draw()
        log.info(
            "trained %d steps in %.0f s, %.1f images/s, a step in %.3g s (95 %% in %.3g s), waiting for data %.0f %%, "
            "peak memory %.0f MB\n\n%s",
            trainer.step, trainer.train_seconds, content["images_per_second"], content["step_seconds"]["p50"],
            content["step_seconds"]["p95"], 100 * content["data_share"], content["peak_memory_mb"],
            what_next(self.folder, self.options),
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """What result.json says besides the figures of the evaluation."""
        trainer = self.trainer
        return {
            "step": trainer.step,
            "best_ap": self.checkpoints.best_ap,
            "train_seconds": round(trainer.train_seconds, 2),
            "images_per_second": round(trainer.images_seen / max(trainer.train_seconds, 1e-9), 3),
            "peak_memory_mb": peak_memory_mb(self.device),
            **speed_of_run(self.folder / METRICS),
            **self.environment,
            "code": digest(self.start.code),
        }

    def draw(self) -> None:
        """Curves, and what the detector finds in some images. Where that fails, the run still has its result."""
        from detkit.visualize import picture_grid, plot_curves

        ledger = Ledger(self.folder)
        try:
            plot_curves(self.folder / METRICS, self.folder / CURVES, title=self.folder.name, ledger=ledger)
            rows = predicted_rows(self.trainer.model, self.val_loader, self.device)
            picture_grid(rows, self.classes, self.folder / PREDICTIONS, title=self.folder.name, ledger=ledger)
        except Exception as error:
            if lack_of_space(error) is not None:
                raise
            log.warning("%s or %s could not be drawn: %s: %s", CURVES, PREDICTIONS, type(error).__name__, error)

    def note_failed_evaluation(self) -> None:
        """result.json of a training that is done, whose evaluation failed; says how to complete it."""
        error, saved = self.evaluation.failed, step_path(self.folder, self.trainer.step)
        write_json(self.folder / RESULT, {EVALUATION_ERROR: error, **self.facts()})
        log.error(
            "the training is done and its weights are in %s, but the last evaluation failed: %s\nMend the cause, then "
            "complete the run by `detkit train %s --output %s --resume`, or measure it by `detkit eval %s`",
            saved, error, shlex.quote(str(self.folder / CONFIG)), shlex.quote(str(self.folder)),
            shlex.quote(str(self.folder)),
        )  # fmt: skip


def is_complete(folder: Path) -> bool:
    """Whether a run that has done all its steps has its result as well."""
    try:
        return EVALUATION_ERROR not in json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def scale_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiplies the rates that the schedule starts from."""
    for group in optimizer.param_groups:
        group["lr"] *= factor
        group["initial_lr"] *= factor


def format_lines(lines: Mapping[str, str]) -> str:
    """Names and what is to be said of them, one a line."""
    return "\n".join(f"{name:8} {text}" for name, text in lines.items())


def describe(normalizer: Normalizer) -> str:
    """Its name, and what it is in words if it says so."""
    name = type(normalizer).__name__
    return f"{name} ({normalizer.meaning})" if normalizer.meaning else name


def set_up_torch(options: TrainOptions, process: ProcessInfo | None = None) -> torch.device:
    """Threads, determinism, and the device of this process."""
    process = process or ProcessInfo()
    if options.threads is not None:
        most = max(64, 8 * usable_cores())
        if options.threads > most:
            raise ValueError(f"train.threads: {options.threads} threads on {usable_cores()} cores: at most {most}")
        torch.set_num_threads(options.threads)
    elif process.local_world_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        # srun may have bound the process to cores of its own already; usable_cores then counts just these.
        bound = usable_cores() < (os.cpu_count() or 1)
        torch.set_num_threads(max(1, usable_cores() // (1 if bound else process.local_world_size)))
    set_deterministic(options.deterministic, compiling=options.compile)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device: cuda, but torch sees no GPU; use train.device=cpu or auto")
    return device_of(process, options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available()))


def warn_of_slow_precision(options: TrainOptions, device: torch.device) -> None:
    """bf16 without the processor's own instructions is emulated."""
    if device.type != "cpu" or options.precision == "fp32":
        return
    able = torch.cpu.get_capabilities()
    native = ("avx512_bf16", "amx_bf16") if options.precision == "bf16" else ("avx512_fp16", "amx_fp16")
    if not any(able.get(name) for name in native) and able.get("architecture") == "x86_64":
        log.warning(
            "train.precision=%s: this CPU has neither %s instructions; training will be some 15 times slower "
            "than with fp32", options.precision, " nor ".join(native),
        )  # fmt: skip


@torch.inference_mode()
def predicted_rows(model: Any, loader: Any, device: torch.device) -> list[tuple[Any, Any, Detections]]:
    """The first images of a loader with their targets and what the model finds, in pixels of the batch."""
    rows: list[tuple[Any, Any, Detections]] = []
    model.eval()
    batch: Batch
    for batch in loader:
        found = model.detect(model(batch.images.to(device), batch.sizes), batch.sizes)
        for i, (height, width) in enumerate(batch.sizes.tolist()):
            rows.append((batch.images[i, :, :height, :width], batch.targets[i], found[i].to("cpu")))
        if len(rows) >= GRID_IMAGES:
            break
    return rows[:GRID_IMAGES]


def what_next(folder: Path, options: TrainOptions) -> str:
    """Words for the person at the terminal; commands can be pasted as they are."""
    place, longer = shlex.quote(str(folder)), shlex.quote(f"{folder}-longer")
    lines = [
        f"look at      {folder / PREDICTIONS} and {folder / CURVES}",
        f"evaluate     detkit eval {place}",
        f"predict      detkit predict {place} IMAGE_OR_FOLDER",
        f"longer, new  detkit train CONFIG train.iterations={2 * options.iterations} --init-from {place} "
        f"--output {longer}",
    ]
    if options.tensorboard:
        lines.append(f"curves live  tensorboard --logdir {shlex.quote(str(folder / TENSORBOARD))}")
    return "what to try next\n" + "\n".join(f"  {line}" for line in lines)

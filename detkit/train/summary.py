"""What a run reports: header, result.json, pictures, and what to try next."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch

from detkit.checkpoint import step_path
from detkit.config import Config
from detkit.detectors.dense import DenseDetector
from detkit.evaluate.coco import CocoResult
from detkit.evaluate.report import format_table, to_json
from detkit.fingerprint import digest
from detkit.runs.environment import peak_memory_mb
from detkit.runs.folder import CONFIG, CURVES, PREDICTIONS, RESULT, TENSORBOARD, write_json
from detkit.runs.run import EVALUATION_ERROR, Run
from detkit.train.assemble import Session
from detkit.train.observers import TENSORBOARD as TENSORBOARD_LOGGER
from detkit.train.observers import logger_nodes
from detkit.train.options import TrainOptions
from detkit.train.pictures import predicted_rows
from detkit.train.speed import speed_of_run
from detkit.utils.console import plural
from detkit.utils.errors import find_disk_full
from detkit.utils.outputs import Ledger
from detkit.utils.types import Tree
from detkit.visualize import picture_grid

log = logging.getLogger("detkit")

GRID_IMAGES = 8


def header(session: Session, network: Mapping[str, str]) -> str:
    """What is about to run, on what. network: lines about the ranks and their connection."""
    options, total, trainer = session.options, session.loader_options.batch_size, session.trainer
    detector, env = session.detector, session.environment
    count = sum(p.numel() for p in detector.parameters())
    trainable = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    epochs = options.iterations * total / max(len(session.train_set), 1)
    lines = {
        "detkit": f"{env['versions']['detkit']} at {env['package']}, torch {env['versions']['torch']}",
        "run": str(session.folder),
        "device": f"{trainer.device}, {env['machine'].get('gpu', env['machine']['cpu'])}, "
        f"{torch.get_num_threads()} threads, {options.precision}"
        + (", deterministic" if options.deterministic else ""),
        "model": f"{count / 1e6:.2f} M parameters ({trainable / 1e6:.2f} M trainable)",
        "batch": f"{plural(total, 'image')} per step ({plural(trainer.world_size, 'process', 'processes')} x "
        f"{plural(options.accumulate, 'micro-batch', 'micro-batches')} x {session.images_per_micro_batch})"
        + (f", {options.parallel}" if trainer.world_size > 1 else ""),
        "code": f"{digest(session.start.code)} ({len(session.start.code)} files)",
        "loss": describe_loss(detector),
        "lr": describe_learning_rate(options, total, trainer.optimizer),
        "length": f"{options.iterations} steps, {epochs:.1f} passes over the data",
        "train": session.train_set.summary(),
        "val": session.val_set.summary(),
        **network,
        **session.same_data,
    }
    return format_lines(lines)


def describe_loss(detector: DenseDetector) -> str:
    """The losses, and what they are divided by."""
    name, normalizer = type(detector.class_loss).__name__, detector.normalizer
    if detector.class_loss.joint:
        return f"{name}, its terms divided by {', '.join(detector.divisors)}"
    meaning = f" ({normalizer.meaning})" if normalizer.meaning else ""
    return f"{name} + {type(detector.box_loss).__name__}, normalised by {type(normalizer).__name__}{meaning}"


def format_lines(lines: Mapping[str, str]) -> str:
    """A table of a name and a text per line."""
    return "\n".join(f"{name:8} {text}" for name, text in lines.items())


def describe_learning_rate(options: TrainOptions, batch_size: int, optimizer: torch.optim.Optimizer) -> str:
    """The highest rate of the first group, and how it is computed."""
    rate = optimizer.param_groups[0]["initial_lr"]
    if options.lr_batch_size is None:
        return f"{rate:g} (not scaled with the batch size)"
    factor = options.lr_factor(batch_size)
    root = "the root of " if options.lr_scaling == "sqrt" else ""
    rule = f"{root}{batch_size}/{options.lr_batch_size} (train.lr_scaling: {options.lr_scaling})"
    return f"{rate:g} = {rate / factor:g} x {rule}"


def finish(session: Session, result: CocoResult) -> None:
    """Writes result.json, and only then prints the table, draws pictures, and says what to do next."""
    content: Tree = {**to_json(result), **run_facts(session)}
    write_json(session.folder / RESULT, content)
    log.info("%s", format_table(result))
    draw(session)
    log.info(
        "trained %d steps in %.0f s, %.1f images/s, %.3g s per step (p95 %.3g s), waiting for data %.0f %%, "
        "peak memory %.0f MB\n\n%s",
        session.trainer.step, session.trainer.train_seconds, content["images_per_second"],
        content["step_seconds"]["p50"], content["step_seconds"]["p95"], 100 * content["data_share"],
        content["peak_memory_mb"], what_next(session.folder, session.config),
    )  # fmt: skip


def run_facts(session: Session) -> Tree:
    """The keys of result.json besides the figures of the evaluation."""
    trainer = session.trainer
    return {
        "step": trainer.step,
        "best_ap": session.checkpoints.best_ap,
        "train_seconds": round(trainer.train_seconds, 2),
        "images_per_second": round(trainer.images_seen / max(trainer.train_seconds, 1e-9), 3),
        "peak_memory_mb": peak_memory_mb(trainer.device),
        **speed_of_run(Run(session.folder).metrics()),
        **session.environment,
        "code": digest(session.start.code),
    }


def note_failed_evaluation(session: Session) -> None:
    """Writes the result.json of a finished training whose evaluation failed; says how to complete it."""
    folder, error, run = session.folder, session.evaluation.failed, shlex.quote(str(session.folder))
    write_json(folder / RESULT, {EVALUATION_ERROR: error, **run_facts(session)})
    log.error(
        "the training is done and its weights are in %s, but the last evaluation failed: %s\nFix the cause, then "
        "complete the run by `detkit train %s --output %s --resume`, or measure it by `detkit eval %s`",
        step_path(folder, session.trainer.step), error, shlex.quote(str(folder / CONFIG)), run, run,
    )  # fmt: skip


def is_complete(folder: Path) -> bool:
    """Whether a run that has done all its steps has its result as well."""
    try:
        return EVALUATION_ERROR not in json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def draw(session: Session) -> None:
    """Draws curves, and detections on some images. Where that fails, the run still has its result."""
    folder = session.folder
    try:
        Run(folder).plot()
        rows = predicted_rows(session.trainer.model, session.val_loader, session.trainer.device, GRID_IMAGES)
        picture_grid(rows, session.classes, folder / PREDICTIONS, title=folder.name, ledger=Ledger(folder))
    except Exception as error:
        if find_disk_full(error) is not None:
            raise
        log.warning("%s or %s could not be drawn: %s: %s", CURVES, PREDICTIONS, type(error).__name__, error)


def what_next(folder: Path, config: Config) -> str:
    """Commands to try after a training, which can be pasted as they are."""
    run, longer = shlex.quote(str(folder)), shlex.quote(f"{folder}-longer")
    steps = 2 * config.options("train").iterations
    lines = [
        f"look at       {folder / PREDICTIONS} and {folder / CURVES}",
        f"evaluate      detkit eval {run}",
        f"predict       detkit predict {run} IMAGE_OR_FOLDER",
        f"train longer  detkit train CONFIG train.iterations={steps} --init-from {run} --output {longer}",
    ]
    if any(node["type"] == TENSORBOARD_LOGGER for node in logger_nodes(config)):
        lines.append(f"curves live   tensorboard --logdir {shlex.quote(str(folder / TENSORBOARD))}")
    return "what to try next\n" + "\n".join(f"  {line}" for line in lines)

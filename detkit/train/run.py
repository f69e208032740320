"""A training from start to result: `train` runs one, `check` stops before a model is built."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from detkit.analyze.anchor_coverage import warn_of_misfits
from detkit.checkpoint import as_full_disk, saved_steps
from detkit.config import Config
from detkit.data.audit import warn_of_lost_objects
from detkit.data.build import check_batch, warn_of_shared_images
from detkit.data.worker import check_workers, explain_worker_death, worker_processes
from detkit.distributed.comm import from_first_rank
from detkit.distributed.coordinator import COLLECTIVE_TIMEOUT, Coordinator
from detkit.distributed.group import process_group
from detkit.distributed.preflight import check_data, data_hashes, preflight, same_everywhere
from detkit.distributed.process_info import ProcessInfo
from detkit.hub import is_remote, local_path
from detkit.loggers.base import Status
from detkit.runs.folder import (
    CONFIG,
    ENVIRONMENT,
    check_folder,
    init_run_folder,
    lock_run_folder,
    write_json,
    write_own,
)
from detkit.runs.log import log_path, run_log
from detkit.runs.starts import with_starts
from detkit.train.assemble import Session, open_data_sets
from detkit.train.memory import as_out_of_memory, check_fits
from detkit.train.non_finite import NonFiniteLossError
from detkit.train.norm_statistics import warn_of_fresh_statistics
from detkit.train.parallel import warn_of_the_split
from detkit.train.run_hooks import stop_on_signals
from detkit.train.sharded import unsharded
from detkit.train.summary import finish, format_lines, header, is_complete, note_failed_evaluation
from detkit.train.torch_setup import set_up_torch, warn_of_slow_precision
from detkit.utils.console import print_line
from detkit.utils.exit_codes import ExitCode, stopped_by

log = logging.getLogger("detkit")


def train(
    config: Config,
    folder: str | Path,
    *,
    resume: bool = False,
    init_from: str | Path | None = None,
    overwrite: bool = False,
    coordinator: Coordinator | None = None,
    profile: int | None = None,
    allow: Sequence[str] = (),
    in_process: bool = False,
) -> int:
    """Runs a training from start to end in `folder`; returns the exit code of `detkit train`.

    coordinator: the processes of the run, of which this is one; alone without it. profile: steps to record
    a trace of. allow: what may have changed at a resume: `code`. in_process: whether the caller's program continues
    afterwards; signals are then left to it, no hang ends it, and every failure is raised.
    """
    if not isinstance(config, Config):
        raise ValueError(f"config: {config!r} is not a Config: train(load_config(FILE), FOLDER)")
    folder, coordinator = Path(folder), coordinator or Coordinator(ProcessInfo())
    init_from = None if init_from is None else str(init_from)
    check_loader(config, coordinator.process.world_size)
    if init_from and not resume:
        fetch_weights(init_from, coordinator)
    if overwrite and init_from and Path(init_from).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"--overwrite would delete {init_from} before it is read: choose another --output")
    device = set_up_torch(config.options("train"), coordinator.process)
    facts = same_everywhere(coordinator, config, device)
    with process_group(coordinator, device) as backend, ExitStack() as locks:
        network = preflight(coordinator, facts, device, backend)
        restarted = coordinator.was_started()
        resume, overwrite = after_restart(coordinator, folder, resume=resume, overwrite=overwrite)
        if restarted:  # another machine may be the first one now, and have compiled the native library for itself
            allow = [*allow, "native"]
        open_folder(coordinator, folder, locks, resume=resume, overwrite=overwrite, restarted=restarted)
        try:
            weights = None if resume else init_from
            session = Session(
                config, folder, resume=resume, init_weights=weights, coordinator=coordinator, device=device,
                profile=profile, allow=allow,
            )  # fmt: skip
            return run_session(session, network, in_process=in_process)
        except NonFiniteLossError as error:
            told_elsewhere = in_process or coordinator.process.is_worker  # by the launcher, once per machine
            log.error("%s", error, extra={"only_file": told_elsewhere})
            if told_elsewhere:
                raise
            return ExitCode.DIVERGED
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            known = (
                explain_worker_death(error) or as_full_disk(error, folder) or as_out_of_memory(error, config, device)
            )
            log.error("%s", known or error, extra={"only_file": True})
            if known is None:
                raise
            raise known from error


def check(config: Config, coordinator: Coordinator) -> int:
    """`--check`: everything that is looked at before a model is built, and nothing else."""
    check_loader(config, coordinator.process.world_size)
    device = set_up_torch(config.options("train"), coordinator.process)
    facts = same_everywhere(coordinator, config, device)
    with process_group(coordinator, device) as backend:
        lines = preflight(coordinator, facts, device, backend)
        lines |= check_data(coordinator, data_hashes(*open_data_sets(config, coordinator)))
        if coordinator.process.rank == 0:
            lines["ready"] = f"{coordinator.process.world_size} processes"
            print_line(format_lines(lines))
    return ExitCode.FINISHED


def fetch_weights(source: str, coordinator: Coordinator) -> None:
    """Fetches the weights of `--init-from` on every machine, before anything expensive begins."""
    if is_remote(source):
        local_path(source)
        seconds = COLLECTIVE_TIMEOUT.total_seconds()
        coordinator.all_gather("weights", True, seconds, "fetches the weights of --init-from")


def check_loader(config: Config, world_size: int) -> None:
    """Refuses a batch that can't be split evenly, and too many loader processes, before the processes connect."""
    check_batch(config, world_size)
    with config.locate_errors("data.loader.num_workers"):
        check_workers(config.options("data.loader").num_workers)


def after_restart(coordinator: Coordinator, folder: Path, *, resume: bool, overwrite: bool) -> tuple[bool, bool]:
    """`resume` and `overwrite` for this start: after a failure the run is resumed, and deletes no checkpoint.

    A restart before the first checkpoint begins again, over what little the run has written itself.
    """
    if not coordinator.was_started():
        return resume, overwrite
    resume |= coordinator.all_gather("checkpoints", bool(saved_steps(folder)))[0]
    return resume, not resume


def open_folder(
    coordinator: Coordinator, folder: Path, locks: ExitStack, *, resume: bool, overwrite: bool, restarted: bool
) -> None:
    """Locks and prepares the run folder on rank 0, and opens this rank's log; `locks` closes both."""

    def prepare() -> None:
        check_folder(folder, resume=resume, overwrite=overwrite)  # at once, not after a wait for the lock
        locks.enter_context(lock_run_folder(folder, restarted=restarted))
        init_run_folder(folder, resume=resume, overwrite=overwrite)

    try:
        coordinator.on_rank_zero(prepare)
        coordinator.mark_started()
        folder.mkdir(parents=True, exist_ok=True)  # the disk may be another machine's own
        locks.enter_context(run_log(folder, coordinator.process.rank))
    except OSError as error:
        raise as_full_disk(error, folder) or error from error


class EvaluationFailedError(RuntimeError):
    """A training is done and its weights are on disk, but its last evaluation failed."""


def run_session(session: Session, network: dict[str, str] | None = None, *, in_process: bool = False) -> int:
    """Trains, evaluates, draws and writes the result; returns the exit code.

    network: lines for the header about the ranks and their connection. in_process: see `train`.
    """
    trainer, evaluation = session.trainer, session.evaluation
    if trainer.step >= session.options.iterations and from_first_rank(lambda: is_complete(session.folder)):
        log.info("%s is finished: nothing to resume", session.folder)
        return ExitCode.FINISHED
    if trainer.rank == 0:
        write_start(session)
        log.info("%s", header(session, network or {}))
        warn(session)
    check_fits(session)
    status: Status = "failed"
    try:
        with nullcontext() if in_process else stop_on_signals(trainer), session.coordinator.watchdog(
            "training", trainer.progress, None if in_process else session.options.hang_timeout,
            setting="train.hang_timeout",
            log_file=log_path(session.folder, trainer.rank), worker_pids=worker_processes,
        ):  # fmt: skip
            trainer.run()
        status = "stopped" if trainer.interrupted else "finished"
    except Exception:
        if trainer.rank == 0 and evaluation.failed_last:
            note_failed_evaluation(session)
        raise
    finally:
        session.batches.close()  # ends the loader processes cleanly, so that they leave no temporary folders
        if session.recorder is not None:
            session.recorder.close(status)
    if trainer.interrupted:
        log.warning(
            "stopped by %s after step %d/%d; saved %s. Resume with --resume",
            trainer.stop, trainer.step, session.options.iterations, trainer.last_checkpoint,
        )  # fmt: skip
        return stopped_by(trainer.signal)
    if trainer.stop is not None:
        log.info("%s", trainer.stop)
    if evaluation.result is None:
        if trainer.rank == 0:
            note_failed_evaluation(session)
        if in_process:
            raise EvaluationFailedError(f"the last evaluation failed: {evaluation.failed}")
        return ExitCode.FAILED
    with unsharded(trainer.model):
        if trainer.rank == 0:
            finish(session, evaluation.result)
    return ExitCode.FINISHED


def write_start(session: Session) -> None:
    """Writes config.yaml, unless a person has changed it, and environment.json."""
    if not write_own(session.folder / CONFIG, session.config.to_yaml()):
        log.warning("%s was changed since detkit wrote it: it is left unchanged", session.folder / CONFIG)
    starts = [*session.earlier_starts, session.start]
    write_json(session.folder / ENVIRONMENT, with_starts(session.environment, starts))


def warn(session: Session) -> None:
    """Logs what may make the run slow, its result poor, or another one than the user thinks."""
    config, detector, options, trainer = session.config, session.detector, session.options, session.trainer
    train_set, transforms, seed = session.train_set, session.transforms("train"), session.config.seed
    for sentence in session.start.changed:
        log.warning("resumed: %s", sentence)
    warn_of_slow_precision(options, trainer.device)
    warn_of_fresh_statistics(detector, options.iterations - trainer.step)
    parts = options.accumulate * trainer.world_size
    warn_of_the_split(detector, parts, session.images_per_micro_batch, draws_numbers=trainer.draws_numbers)
    warn_of_shared_images(train_set, session.val_set)
    warn_of_lost_objects((train_set, transforms), (session.val_set, session.transforms("val")), seed)
    warn_of_misfits(detector, train_set, transforms, session.loader_options, seed=seed, config=config.name)

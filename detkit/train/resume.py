"""Finds the checkpoint that a run resumes from, and checks that config, data and code are the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from detkit.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from detkit.config import Config
from detkit.data.final import final_start
from detkit.detectors.dense import DenseDetector
from detkit.fingerprint import NATIVE
from detkit.registry import HOOKS, SCHEDULES
from detkit.runs.folder import ENVIRONMENT
from detkit.runs.settings import differing_settings, with_defaults
from detkit.runs.starts import Start, code_changes, fact_changes, from_plain, read_starts
from detkit.structures import ClassMap
from detkit.train.parallel import other_processes
from detkit.utils.console import indented_list
from detkit.utils.types import Value

log = logging.getLogger("detkit")

BAD_IMAGES = "data.images.bad_images"


def find_resumable(folder: Path, config: Config, classes: ClassMap, data: Mapping[str, str]) -> Checkpoint:
    """The newest intact checkpoint of the run, if it is a run of this config, these classes and this data.

    data: hashes of the data sets by name.
    """
    try:
        checkpoint = load_checkpoint(folder, prefer="newest")
    except CheckpointError as error:
        raise ValueError(f"--resume: {error}; start the run without --resume, or again with --overwrite") from error
    if checkpoint.optimizer is None:
        raise ValueError(f"--resume: {checkpoint.path} holds weights only: use it with --init-from")
    if checkpoint.classes.names != classes.names:
        raise ValueError(
            f"--resume: {checkpoint.path} was trained on the classes {', '.join(checkpoint.classes.names)}, "
            f"the data set has {', '.join(classes.names)}"
        )
    was = with_defaults(checkpoint.config)
    changed = [f"  {k}: {v} in the run, {data[k]} now" for k, v in checkpoint.data.items() if not same(v, data.get(k))]
    was, now = (values | {"hooks": changing_hooks(values)} for values in (was, config.to_dict()))
    differing = differing_settings(was, now)
    moved = {key: differing.pop(key) for key in config.paths() if key in differing}
    if from_plain(checkpoint.start).code:  # imported files are known by their content, see check_code
        differing = {key: values for key, values in differing.items() if key.partition(".")[0] != "imports"}
    if "skip" not in differing.get(BAD_IMAGES, ("skip",)):  # repair changes no image that the run has trained on
        del differing[BAD_IMAGES]
    old_total = differing.pop("train.iterations", (None, None))[0]
    lines = [f"  {key}: {old!r} in the run, {new!r} now" for key, (old, new) in sorted(differing.items())]
    if old_total is not None:
        lines += check_length(checkpoint, config, int(old_total))
    difference, way_out = "the config differs", "Use the old values"
    if changed and not lines:  # another config may well mean other data
        lines, difference, way_out = changed, "annotations have changed since", "Restore the original annotations"
    if lines:
        raise ValueError(
            f"--resume continues {checkpoint.path} exactly, but {difference}:\n"
            + "\n".join([*lines, f"{way_out}, or start a new run from its weights with --init-from."])
        )
    check_origin(checkpoint, folder)
    for key, (old, new) in moved.items():
        log.info("%s has moved from %s to %s; the annotations are the same", key, old, new)
    return checkpoint


def changing_hooks(values: Mapping[str, Value]) -> list[Value]:
    """The hooks of a config which change what a training comes to; a hook that is not known here counts as one."""
    known = HOOKS.names()
    return [
        node
        for node in values.get("hooks") or []
        if node["type"] not in known or getattr(HOOKS.get(node["type"]), "changes_training", True)
    ]


def same(old: str, new: str | None) -> bool:
    """Whether two hashes are of the same data. One without "+" is of an older run, and of training's boxes alone."""
    return new is None or old == new or ("+" not in old and new.startswith(f"{old}+"))


def check_origin(checkpoint: Checkpoint, folder: Path) -> None:
    """Raises ValueError unless one of the run's own starts wrote the checkpoint, where both are known."""
    try:
        starts = read_starts(folder)
    except ValueError:  # damaged: the starts are taken from the checkpoint, and that is said
        return
    mine, known = from_plain(checkpoint.start), [start for start in starts if start.time]
    if mine.time and known and not any((s.time, s.step, s.code) == (mine.time, mine.step, mine.code) for s in known):
        raise ValueError(
            f"--resume: another run wrote {checkpoint.path}, one that was started at {mine.time} by `{mine.command}`: "
            f"{folder / ENVIRONMENT} has no such start. Bring the run's own checkpoint back, or start a new run from "
            "these weights by --init-from."
        )


def check_code(checkpoint: Checkpoint, now: Start, allow: Sequence[str]) -> None:
    """Raises ValueError that names the files of code that changed since the checkpoint, unless `code` is allowed.

    allow: `code` lets another code pass, `native` another build of the native library.
    """
    before = from_plain(checkpoint.start)
    if not before.code:
        text = "%s does not say which code wrote it (an older detkit did): whether it has changed can't be compared"
        log.warning(text, checkpoint.path)
        return
    changed = code_changes(before, now)
    if "native" in allow:
        changed = [line for line in changed if not line.startswith(NATIVE)]
    if changed and "code" not in allow:
        raise ValueError(
            f"--resume: the code has changed since {checkpoint.path} was written:{indented_list(changed, 10)}\n"
            "Restore the old files; or add --allow code, which records the change in the run; or start a new run from "
            "its weights with --init-from."
        )


def check_length(checkpoint: Checkpoint, config: Config, old_total: int) -> list[str]:
    """Reasons against another `train.iterations`: done steps, that are too many or had another rate or transforms."""
    new_total = int(config.require("train.iterations"))
    change = f"  train.iterations: {old_total} in the run, {new_total} now"
    if new_total < checkpoint.step:
        return [f"{change}; {checkpoint.step} steps are done already"]
    schedule = SCHEDULES.build(config.schedule)
    for step in range(checkpoint.step):
        if schedule.factor(step, old_total) != schedule.factor(step, new_total):
            return [f"{change}; the schedule would have given step {step + 1} another learning rate"]
    old_start, new_start = (final_start(config, total) for total in (old_total, new_total))
    if old_start is not None and new_start is not None and old_start != new_start:
        first = max(min(old_start, new_start), 0)
        if first < checkpoint.step:
            return [f"{change}; step {first + 1} would have had other transforms, by data.train.final"]
    return []


def resumed_start(
    now: Start, saved: Checkpoint, earlier: Sequence[Start], detector: DenseDetector, allow: Sequence[str]
) -> Start:
    """This start, completed by the differences from the process that wrote the checkpoint and by what the user allowed.

    earlier: the starts of the run, which hold some facts where a checkpoint of an older detkit holds none.
    """
    before = from_plain(saved.start)
    if not before.facts and earlier:
        before = replace(before, facts=earlier[-1].facts)
    count: int = now.facts["processes"]
    processes = other_processes(detector, int(before.facts.get("processes", count)), count)
    changed = [*code_changes(before, now), *([processes] if processes else [])]
    if others := fact_changes(before, now):
        changed.append(f"{'; '.join(others)}: from here on the same to rounding, not bit for bit")
    return replace(now, step=saved.step, changed=tuple(changed), allowed=tuple(allow))

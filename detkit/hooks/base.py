"""The interface of hooks: what they are called for, and what of the trainer they may read and change."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol

import torch
from torch import Tensor
from typing_extensions import TypeVar

from detkit.detectors.dense import DenseDetector
from detkit.registry.source import raised_at
from detkit.structures import Batch, ClassMap, Detections, Targets
from detkit.utils.types import Tree

PLAIN_STATE = (int, float, str, bool, type(None))


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What a step did, on the host.

    step: steps done, this one included. loss: the sum of `terms`, each divided as its gradient was, over all
    micro-batches and processes. normalizer: the divisor, the first if there are several. gradient_norm: before
    clipping. images: of all processes.
    data_seconds: spent waiting for the loader. skipped: fp16 gradients overflowed
    and the weights stayed as they were.
    """

    step: int
    loss: float
    terms: dict[str, float]
    normalizer: float
    gradient_norm: float
    lr: float
    images: int
    data_seconds: float
    skipped: bool = False

    @property
    def classification(self) -> float:
        """The class term; 0 where a joint loss has none."""
        return self.terms.get("classification", 0.0)

    @property
    def box(self) -> float:
        """The box term; 0 where a joint loss has none."""
        return self.terms.get("box", 0.0)


class Training(Protocol):
    """What a hook sees of a running training: the trainer has more, which may change without notice.

    step: steps done. seed: of the run. rank, world_size: of this process. stop: the reason to end after the step in
    progress, None for none; a hook may set it, see also `stop_everywhere`. iterations, eval_every, log_every: as in
    `train` of the config. detector: the model in training. model: what is evaluated, the averaged weights if there are
    any. optimizer: its groups carry `initial_lr`; the schedule sets `lr` before every step. size_divisor: the sides of
    a batch are multiples of it.
    """

    stop: str | None

    @property
    def step(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def iterations(self) -> int: ...
    @property
    def eval_every(self) -> int: ...
    @property
    def log_every(self) -> int: ...
    @property
    def detector(self) -> DenseDetector: ...
    @property
    def model(self) -> DenseDetector: ...
    @property
    def optimizer(self) -> torch.optim.Optimizer: ...
    @property
    def size_divisor(self) -> int: ...
    @property
    def folder(self) -> Path:
        """The run folder."""

    @property
    def classes(self) -> ClassMap:
        """Names and ids of the classes."""

    @property
    def validation_images(self) -> int:
        """The number of validation images."""

    def log(self, values: Mapping[str, float]) -> None:
        """Records figures of the present step in metrics.jsonl and all loggers. Does nothing on ranks above 0."""

    def log_image(self, name: str, path: Path) -> None:
        """Gives a PNG to the loggers that take pictures. Does nothing on ranks above 0."""

    def stop_everywhere(self, reason: str) -> None:
        """Ends the training after this step. Every rank must call it in the same step."""

    def save_weights(self, name: str) -> Path:
        """Writes the present weights to `checkpoints/<name>.pt`. Every rank must call it in the same step."""

    def predictions(self, indices: Sequence[int]) -> list[tuple[Tensor, Targets, Detections]]:
        """Validation images (3, H, W) as the network sees them, their targets and detections, in pixels of the image.

        An empty list on ranks above 0. Every rank must call it in the same step.
        """


T = TypeVar("T", bound=Training, contravariant=True, default=Training)


class Hook(Generic[T]):
    """Something that happens around training. A subclass overrides what it needs; hooks run in order, on every rank.

    The constructor stores its arguments and does nothing else: it runs whenever the config is read. What a hook
    decides must be the same on all ranks, and its random draws a function of seed and step (`step_random`).

    changes_training: whether other weights may come out with the hook than without it. Where not, it may come and go
    at a resume. place: its key in the config, empty for hooks of detkit itself.
    """

    changes_training: ClassVar[bool] = True
    place: str = ""

    def before_train(self, trainer: T) -> None:
        """Once, before the first step; `trainer.step` is above 0 in a resumed run. A ValueError is a user's error."""

    def before_step(self, trainer: T) -> None:
        """Before every step, with the model in training mode and its learning rates set; `trainer.step` are done."""

    def transform_batch(self, trainer: T, batch: Batch) -> Batch:
        """A micro-batch on the device -> the one to train on. Must treat each image by itself.

        Then a step is the same however it is divided into micro-batches and processes.
        """
        return batch

    def after_backward(self, trainer: T) -> None:
        """When the gradients of a step are complete, summed over micro-batches and processes, not yet divided."""

    def after_step(self, trainer: T, report: StepReport) -> None:
        """After every step, when the weights have changed. May set `trainer.stop`."""

    def after_evaluation(self, trainer: T, figures: Mapping[str, float | None]) -> None:
        """After every evaluation, with its figures (`val/ap`, `val/ap50` ...), which are the same on all ranks.

        The evaluation of a step comes before `after_step` of that step, the last one before `after_train`. A run that
        was resumed after its last step evaluates that step again.
        """

    def after_train(self, trainer: T) -> None:
        """Once, after the last step, or after the one at which `trainer.stop` was set."""

    def state_dict(self) -> Tree:
        """What a resumed run needs: numbers, texts, tensors, and dicts and lists of them. Goes into checkpoints."""
        return {}

    def load_state_dict(self, state: Tree) -> None:
        """Takes up what `state_dict` gave, before `before_train`. Not called for a checkpoint without such a state."""


class HookError(RuntimeError):
    """A hook of the config that raised an error; the text names it and its line."""


def step_random(seed: int, step: int, *more: object) -> random.Random:
    """A generator that is a function of the run's seed, a step and `more`, the same on every rank."""
    return random.Random("/".join(map(str, (seed, step, *more))))


@contextlib.contextmanager
def named(hook: Hook[Any], moment: str, step: int) -> Iterator[None]:
    """While the context is active, an error of a hook of the config is raised with the hook's name.

    One in `before_train` stays the user's error that it is; any other becomes a HookError.
    """
    try:
        yield
    except HookError:
        raise
    except Exception as error:
        if not hook.place:
            raise
        who = f"{hook.place} ({type(hook).__name__})"
        if moment == "before_train" and isinstance(error, ValueError):
            raise ValueError(f"{who}: {error}") from error
        what = f"{type(error).__name__}: {error}{raised_at(type(hook), error)}"
        raise HookError(f"{who}: {moment} after step {step} raised {what}") from error


def hook_states(hooks: Sequence[Hook[Any]]) -> Tree:
    """The states of the hooks of the config, by `state_keys`; those without a state are left out.

    Raises HookError for one that a checkpoint can't hold.
    """
    states: Tree = {}
    for key, hook in state_keys(hooks).items():
        with named(hook, "state_dict", 0):
            if state := hook.state_dict():
                check_plain(state)
                states[key] = state
    return states


def load_hook_states(hooks: Sequence[Hook[Any]], states: Tree) -> None:
    """Gives each hook its state, where the checkpoint has one."""
    for key, hook in state_keys(hooks).items():
        if key in states:
            with named(hook, "load_state_dict", 0):
                hook.load_state_dict(states[key])


def state_keys(hooks: Sequence[Hook[Any]]) -> dict[str, Hook[Any]]:
    """Hooks of the config by type; the second of a type is `Type 2`, so that other types may come and go."""
    keys: dict[str, Hook[Any]] = {}
    for hook in hooks:
        if hook.place:
            name, number = type(hook).__name__, 1
            while (name if number == 1 else f"{name} {number}") in keys:
                number += 1
            keys[name if number == 1 else f"{name} {number}"] = hook
    return keys


def check_plain(value: Any, where: str = "state_dict()") -> None:
    """Raises ValueError that names the first item which a checkpoint can't hold."""
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            check_plain(item, f"{where}[{i}]")
    elif type(value) not in PLAIN_STATE and not isinstance(value, Tensor):
        raise ValueError(
            f"{where} is a {type(value).__name__}, which a checkpoint can't hold: give numbers, texts, tensors, "
            "and dicts and lists of them"
        )

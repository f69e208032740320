from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.hooks.base import Hook, HookError, StepReport, Training, state_keys
from detkit.hooks.early_stopping import EarlyStopping
from detkit.hooks.freeze import Freeze
from detkit.hooks.learning_rates import learning_rates
from detkit.hooks.multi_scale import MultiScale, scaled
from detkit.loggers.base import LoggedRun, Logger, Loggers, check_installed
from detkit.structures import Batch, Targets
from detkit.testing.toy_training import STEPS, ToyRun, toy_batch
from detkit.train.optim import SGD
from tests.refusals import Refuses


class Stumbles(Hook):
    def after_step(self, trainer: Training, report: StepReport) -> None:
        raise ZeroDivisionError("of mine")


class Refuses2(Hook):
    def before_train(self, trainer: Training) -> None:
        raise ValueError("parts: no such part")


def test_a_hook_that_raises_ends_the_training_and_is_named(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(HookError):
        ToyRun(Stumbles(), tmp_path).run()
    with refuses(ValueError):
        ToyRun(Refuses2(), tmp_path).run()


def test_early_stopping_counts_evaluations_without_a_better_figure(tmp_path: Path) -> None:
    """The figures of the toy's evaluations are 0.3, 0.2, 0.25, 0.1 after steps 2, 4, 6 and 8."""
    for patience, end in ((1, 4), (2, 6), (3, STEPS)):
        run = ToyRun(EarlyStopping(patience=patience), tmp_path).run()
        assert run.trainer.step == end
        assert (run.trainer.stop is None) == (end == STEPS)
    assert ToyRun(EarlyStopping(patience=1, from_step=4), tmp_path).run().trainer.step == STEPS
    assert ToyRun(EarlyStopping(patience=1, mode="min"), tmp_path).run().trainer.step == 6


def of(run: ToyRun, name: str) -> torch.Tensor:
    tensors = [
        t.flatten().double() for n, t in run.trainer.detector.state_dict().items() if f"{n}.".startswith(f"{name}.")
    ]
    return torch.cat(tensors).clone()


def test_frozen_parts_stay_as_they_are_and_the_others_learn(tmp_path: Path) -> None:
    first = ToyRun(None, tmp_path)
    run = ToyRun(Freeze(parts=["backbone", "neck.bias"], until=4), tmp_path)
    run.run(until=4)
    assert torch.equal(of(run, "backbone"), of(first, "backbone")), "weights, norms and their statistics"
    assert torch.equal(of(run, "neck.bias"), of(first, "neck.bias"))
    assert not torch.equal(of(run, "head"), of(first, "head"))
    frozen = {id(p) for n, p in run.trainer.detector.named_parameters() if n.startswith("backbone") or n == "neck.bias"}
    assert not any(id(p) in frozen for p in run.trainer.optimizer.state), "no momentum, no decay"
    before = of(run, "backbone")
    run.trainer.notify("after_step", run.trainer.train_step())
    assert not torch.equal(of(run, "backbone"), before)


def test_norms_of_a_frozen_part_may_go_on_counting(tmp_path: Path) -> None:
    first = ToyRun(None, tmp_path)
    run = ToyRun(Freeze(parts=["backbone"], frozen_norms=False), tmp_path).run(until=2)
    changed = [n for n, t in run.trainer.detector.backbone.state_dict().items()
               if not torch.equal(t, first.trainer.detector.backbone.state_dict()[n])]  # fmt: skip
    assert changed == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]


def test_dropping_gradients_as_several_processes_do_is_the_same_training(tmp_path: Path) -> None:
    alone = ToyRun(Freeze(parts=["backbone"], until=3), tmp_path).run()
    several = ToyRun(Freeze(parts=["backbone"], until=3), tmp_path)
    freeze = several.trainer.hooks[1]
    freeze.after_backward = lambda trainer: pretend(several, freeze)  # type: ignore[method-assign]
    freeze.apply = lambda trainer: [n.eval() for n in freeze.norms if freeze.is_active(trainer)]
    several.run()
    assert torch.equal(alone.weights(), several.weights())


def pretend(run: ToyRun, freeze: Any) -> None:
    assert all(p.requires_grad for p in freeze.parameters)
    Freeze.after_backward(freeze, run.trainer)


@pytest.mark.parametrize("parts", [["backbon"], ["backbone", "neck", "head"]])
def test_what_can_not_be_frozen_is_refused(refuses: Refuses, tmp_path: Path, parts: list[str]) -> None:
    with refuses(ValueError):
        ToyRun(Freeze(parts=parts), tmp_path).run()


def test_scaled_images_keep_their_objects_and_are_padded_anew() -> None:
    pixels = torch.zeros(2, 3, 32, 64, dtype=torch.uint8)
    pixels[0, :, 8:16, 8:24] = 200
    boxes = torch.tensor([[8.0, 8.0, 24.0, 16.0]])
    targets = [Targets(boxes, torch.tensor([1]), boxes + 2), Targets(boxes[:0], torch.tensor([]).long())]
    batch = Batch(
        pixels, torch.tensor([[30, 60], [20, 64]]), targets, torch.tensor([[9, 9], [9, 9]]), [1, 2], ["a", "b"]
    )
    half = scaled(batch, 0.5, 16)
    assert half.images.shape == (2, 3, 16, 32)
    assert half.sizes.tolist() == [[15, 30], [10, 32]]
    assert half.targets[0].boxes.tolist() == [[4.0, 4.0, 12.0, 8.0]]
    assert half.targets[0].ignore.tolist() == [[5.0, 5.0, 13.0, 9.0]]
    assert half.images[0, 0, 5:7, 5:11].min() > 150
    assert half.images[0, 0, 10:].max() == 0
    assert half.images[1].max() == 0
    larger = scaled(batch, 1.5, 32)
    assert larger.images.shape == (2, 3, 64, 96)
    assert larger.sizes.tolist() == [[45, 90], [30, 96]]


def test_the_factor_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    hook = MultiScale(factors=[0.5, 1.0, 2.0], every=2, until=6)
    seen: list[list[float]] = []
    for seed in (0, 0, 1):
        run = ToyRun(hook, tmp_path)
        run.trainer.seed = seed
        seen.append([])
        for step in range(STEPS):
            run.trainer.step = step
            seen[-1].append(hook.factor(run.trainer))
    assert seen[0] == seen[1] != seen[2]
    assert all(factors[::2] == factors[1::2] for factors in seen)
    assert all(factors[6:] == [1.0, 1.0] for factors in seen)
    assert len({tuple(factors) for factors in seen}) == 2
    assert toy_batch(0).images.shape[-1] == 16


def test_learning_rates_by_part(tmp_path: Path) -> None:
    detector = ToyRun(None, tmp_path).trainer.detector
    optimizer = SGD(lr=0.1, bias_lr_factor=2.0, backbone_lr_factor=0.1).build(detector)
    rates = learning_rates(detector, optimizer)
    assert {name: round(rate, 6) for name, rate in rates.items()} == {
        "lr/backbone": 0.01, "lr/backbone/2": 0.02, "lr/neck": 0.1, "lr/neck/2": 0.2, "lr/head": 0.1, "lr/head/2": 0.2,
    }  # fmt: skip


def test_the_second_hook_of_a_type_has_a_state_of_its_own() -> None:
    hooks = [EarlyStopping(), EarlyStopping(metric="val/ap50"), Freeze(parts=["neck"])]
    for hook in hooks:
        hook.place = "hooks"
    assert list(state_keys([*hooks, Stumbles()])) == ["EarlyStopping", "EarlyStopping 2", "Freeze"]


class Fails(Logger):
    def __init__(self) -> None:
        self.calls = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.calls += 1
        raise OSError("no route to host")


class Counts(Fails):
    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.calls += 1


class Needs(Logger):
    requires = {"no_such_package": "extra"}  # noqa: RUF012


def test_a_logger_that_fails_is_reported_once_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fails, counts = Fails(), Counts()
    loggers = Loggers([fails, counts])
    caplog.set_level(logging.WARNING, "detkit")
    loggers.start(LoggedRun(folder=tmp_path, step=0, iterations=9, config={}))
    for step in (1, 2, 3):
        loggers.log(step, {"train/loss": 1.0})
    loggers.finish("finished")
    assert (fails.calls, counts.calls) == (1, 3)
    (text,) = [record.getMessage() for record in caplog.records]
    assert text.startswith("the logger Fails failed in log and gets no more of this run: OSError: no route to host")


def test_a_missing_package_is_named_with_its_extra(refuses: Refuses) -> None:
    with refuses(ValueError):
        check_installed(Needs(), "config.yaml:3: loggers.0")


def test_a_logger_overwrites_nobodys_file(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "scalars.csv").write_text("mine")
    run = LoggedRun(folder=tmp_path, step=0, iterations=9, config={})
    with refuses(ValueError):
        run.claim(tmp_path / "scalars.csv")
    assert run.claim(tmp_path / "other.csv").name == "other.csv"
    (tmp_path / "other.csv").write_text("its own")
    run.claim(tmp_path / "other.csv")

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.checkpoint import load_checkpoint, read_checkpoint, saved_steps
from detkit.data.loader import SampleError
from detkit.evaluate.coco import CocoResult
from detkit.hooks.base import Hook, StepReport
from detkit.structures import ClassMap
from detkit.train.optim import AdamW
from detkit.train.run_hooks import BeforeEvaluation, Checkpoints, Evaluation, stop_on_signals
from detkit.train.schedule import Cosine
from detkit.train.trainer import Trainer
from tests.refusals import Refuses

MakeTrainer = Callable[..., Trainer]
CLASSES = ClassMap(("cat",), (1,))
SETTINGS: dict[str, Any] = {"optimizer": AdamW(lr=0.05), "schedule": Cosine(warmup_iterations=2)}


def checkpoints(folder: Path, evaluation: Evaluation | None = None) -> Checkpoints:
    return Checkpoints(folder, {"seed": 0}, CLASSES, evaluation)


def result(ap: float | None) -> CocoResult:
    return CocoResult({"ap": ap, "ap50": ap, "ap75": ap}, {}, {}, 1, 0)


def everything(trainer: Trainer) -> dict[str, Tensor]:
    state = dict(trainer.detector.state_dict())
    if trainer.ema:
        state |= {f"ema.{k}": v for k, v in trainer.ema.module.state_dict().items()}
    for n, moments in trainer.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{n}.{k}": v for k, v in moments.items()}
    return state


def test_a_damaged_later_checkpoint_does_not_push_out_a_good_one(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    settings = SETTINGS | {"checkpoint_every": 2, "keep_last": 1}
    whole = make_trainer(hooks=(checkpoints(tmp_path),), **settings | {"checkpoint_every": 1, "keep_last": 9})
    whole.run()
    folder = tmp_path / "checkpoints"
    for path in saved_steps(tmp_path)[:-1]:
        path.unlink()
    (folder / "step_00000003.pt").write_bytes(b"cut off")  # as by a disk that failed
    rest = make_trainer(start=1, hooks=(hook := checkpoints(tmp_path),), **settings)
    hook.restore(rest, load_checkpoint(tmp_path, prefer="newest"))
    hook.after_step(rest, rest.train_step())
    assert [p.name for p in saved_steps(tmp_path)] == ["step_00000003.pt", "step_00000002.pt"]
    assert load_checkpoint(tmp_path, prefer="newest").step == 2
    hook.after_step(rest, rest.train_step())
    hook.after_step(rest, rest.train_step())
    assert [p.name for p in saved_steps(tmp_path)] == ["step_00000004.pt"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, make_trainer: MakeTrainer, precision: str) -> None:
    settings = SETTINGS | {"ema_decay": 0.9, "accumulate": 2, "checkpoint_every": 3, "keep_last": 9}
    settings["precision"] = precision
    whole = make_trainer(hooks=(checkpoints(tmp_path),), **settings)
    whole.run()
    saved = read_checkpoint(tmp_path / "checkpoints" / "step_00000003.pt")
    rest = make_trainer(start=3, **settings)
    checkpoints(tmp_path).restore(rest, saved)
    assert rest.step == 3
    assert rest.images_seen == 12
    rest.run()
    want, have = everything(whole), everything(rest)
    assert want.keys() == have.keys()
    assert [k for k in want if not torch.equal(want[k], have[k])] == []
    assert rest.scaler.state_dict() == whole.scaler.state_dict()


def test_checkpoints_come_when_due_and_old_ones_go(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    make_trainer(iterations=7, checkpoint_every=2, keep_last=2, hooks=(checkpoints(tmp_path),)).run()
    assert [p.stem for p in saved_steps(tmp_path)] == ["step_00000007", "step_00000006"]
    newest = load_checkpoint(tmp_path)
    assert newest.step == 7
    assert newest.classes == CLASSES
    assert newest.config == {"seed": 0}


def test_the_best_weights_are_kept_and_the_averaged_ones_are_evaluated(
    refuses: Refuses, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    aps = iter([0.2, 0.5, None, 0.4])
    seen: list[Any] = []

    def evaluate(trainer: Trainer) -> CocoResult:
        seen.append(trainer.model)
        return result(next(aps))

    evaluation = Evaluation(evaluate, None)
    hook = checkpoints(tmp_path, evaluation)
    trainer = make_trainer(iterations=7, eval_every=2, ema_decay=0.9, hooks=(evaluation, hook))
    trainer.run()
    assert len(seen) == 4
    assert trainer.ema is not None
    assert all(model is trainer.ema.module for model in seen)
    best = read_checkpoint(tmp_path / "checkpoints" / "best.pt")
    assert (best.step, best.ap, best.best_ap) == (4, 0.5, 0.5)
    newest = load_checkpoint(tmp_path, prefer="newest")
    assert (newest.step, newest.ap, newest.best_ap) == (7, 0.4, 0.5)
    with refuses(ValueError):
        hook.restore(trainer, best)


def test_no_evaluation_twice_at_the_end(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    seen: list[Trainer] = []
    evaluation = Evaluation(lambda trainer: seen.append(trainer) or result(0.1), None)
    make_trainer(iterations=4, eval_every=2, hooks=(evaluation,)).run()
    assert len(seen) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(
    tmp_path: Path, make_trainer: MakeTrainer, number: signal.Signals
) -> None:
    class Kill(Hook[Trainer]):
        def after_step(self, trainer: Trainer, report: StepReport) -> None:
            if report.step == 3:
                os.kill(os.getpid(), number)

    def evaluate(trainer: Trainer) -> CocoResult:
        raise AssertionError("an interrupted run is not evaluated")

    evaluation = Evaluation(evaluate, None)
    before = signal.getsignal(number)
    trainer = make_trainer(iterations=50, hooks=(Kill(), evaluation, checkpoints(tmp_path, evaluation)))
    with stop_on_signals(trainer):
        trainer.run()
    assert trainer.interrupted
    assert trainer.signal == number
    assert trainer.step in (3, 4)
    assert load_checkpoint(tmp_path).step == trainer.step
    assert signal.getsignal(number) == before


def test_a_signal_during_the_last_evaluation_interrupts_the_run(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    def evaluate(trainer: Trainer) -> CocoResult:
        os.kill(os.getpid(), signal.SIGTERM)
        return result(0.1)

    evaluation = Evaluation(evaluate, None)
    trainer = make_trainer(iterations=2, hooks=(evaluation, checkpoints(tmp_path, evaluation)))
    with stop_on_signals(trainer):
        trainer.run()
    assert trainer.interrupted
    assert load_checkpoint(tmp_path, prefer="newest").step == 2


@pytest.mark.parametrize(("second", "later"), [(signal.SIGTERM, 6.0), (signal.SIGINT, 0.0)])
def test_the_same_sigterm_twice_is_one_and_a_second_request_ends_at_once(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, second: signal.Signals, later: float
) -> None:
    seen: list[int] = []
    now = [100.0]
    monkeypatch.setattr("detkit.train.run_hooks.time.monotonic", lambda: now[0])
    before = signal.signal(second, lambda number, _: seen.append(number))
    trainer = make_trainer(iterations=2)
    try:
        with stop_on_signals(trainer):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert (trainer.signal, seen) == (signal.SIGTERM, [])
            now[0] += later
            os.kill(os.getpid(), second)
            assert seen == [second]
    finally:
        signal.signal(second, before)


@pytest.mark.parametrize("error", [SampleError("image 2 (b.jpg): gone"), TypeError("a bug")], ids=["data", "bug"])
def test_the_weights_are_written_before_the_last_evaluation(
    tmp_path: Path, make_trainer: MakeTrainer, error: Exception
) -> None:
    there: list[bool] = []

    def evaluate(trainer: Trainer) -> CocoResult:
        there.append((tmp_path / "checkpoints/step_00000006.pt").exists())
        raise error

    evaluation = Evaluation(evaluate, None)
    hook = checkpoints(tmp_path, evaluation)
    trainer = make_trainer(hooks=(BeforeEvaluation(hook), evaluation, hook), eval_every=4, **SETTINGS)
    if isinstance(error, SampleError):
        trainer.run()
        assert there == [False, True], "the first failed and ended nothing"
        assert (evaluation.result, evaluation.failed, evaluation.failed_last) == (None, str(error), False)
    else:
        trainer.options = replace(trainer.options, eval_every=0)
        with pytest.raises(TypeError):
            trainer.run()
        assert there == [True]
        assert (evaluation.failed, evaluation.failed_last) == ("TypeError: a bug", True)
    assert load_checkpoint(tmp_path).step == 6


def test_the_last_checkpoint_knows_the_ap_of_its_weights(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    evaluation = Evaluation(lambda trainer: result(0.25), None)
    hook = checkpoints(tmp_path, evaluation)
    make_trainer(hooks=(BeforeEvaluation(hook), evaluation, hook), checkpoint_every=6, **SETTINGS).run()
    assert load_checkpoint(tmp_path / "checkpoints/step_00000006.pt").ap == 0.25

"""A sweep for every variant on held-out training data."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.cli import main
from detkit.compare.cell import CELL, hold_out
from detkit.compare.plan import make_plan
from detkit.compare.tune import RESULT, best, candidates, compared_loss, shortened, tune_variants
from detkit.data.datasets.shapes import ShapesDataset
from detkit.runs.folder import write_json
from tests.refusals import Refuses

CONFIG = "configs/quickstart/shapes.yaml"
FOCAL, BCE = "configs/losses/focal.yaml", "configs/losses/bce.yaml"


def test_nothing_to_tune_changes_nothing(tmp_path: Path) -> None:
    plan = make_plan(CONFIG, [FOCAL, BCE])
    assert tune_variants(plan, tmp_path, [], jobs=1, threads=1, launcher=None) is plan


def test_the_weight_is_that_of_the_loss_that_is_compared() -> None:
    assert compared_loss(make_plan(CONFIG, [FOCAL, BCE])) == "classification"
    assert compared_loss(make_plan(CONFIG, ["configs/losses/box_l1.yaml", "configs/losses/box_iou.yaml"])) == "box"


def test_every_variant_has_the_same_factors_on_its_own_values() -> None:
    plan = make_plan(CONFIG, [FOCAL, BCE])
    (name, overrides), *rest = candidates(plan, plan.variants[0], ["weight", "lr"])
    rate = plan.base.require("optimizer.lr")
    assert name == "weight_x0.5-lr_x0.5"
    assert overrides == ["losses.classification.weight=0.5", f"optimizer.lr={rate / 2:g}"]
    assert len(rest) == 8


@pytest.mark.parametrize(
    ("final", "short"),
    [(200, ["data.train.final.iterations=50"]), (3, ["data.train.final.iterations=1"]), (0.1, [])],
)
def test_the_last_steps_are_shortened_as_the_others(final: float, short: list[str]) -> None:
    plan = make_plan(CONFIG, [FOCAL, BCE], overrides=[f"data.train.final.iterations={final}"])
    overrides = shortened(plan.variants[0])
    assert [o for o in overrides if "final" in o] == short
    assert "train.iterations=375" in overrides


def test_the_best_is_chosen_kept_and_not_run_again(tmp_path: Path) -> None:
    plan, ran = make_plan(CONFIG, [FOCAL, BCE]), []

    def pretend(jobs: Any, *, at_once: Any, threads: Any, finished: Any, started: Any) -> None:
        for job in jobs:
            started(job)
            ran.append(job)
            job.folder.mkdir(parents=True, exist_ok=True)
            rate = next(a for a in job.arguments if a.startswith("optimizer.lr="))
            # Focal likes the lowest rate, cross-entropy the highest; one trial diverges and has no result.
            ap = float(rate.partition("=")[2]) * (-1 if "focal" in job.name else 1)
            if "lr_x1" in job.name:
                (job.folder / CELL).write_text("{}")
            else:
                write_json(job.folder / RESULT, {"ap": ap})
            finished(job, 3 if "lr_x1" in job.name else 0)

    rate = plan.base.require("optimizer.lr")
    chosen = tune_variants(plan, tmp_path, ["lr"], jobs=1, threads=1, launcher=pretend)
    assert [v.config.require("optimizer.lr") for v in chosen.variants] == pytest.approx([rate / 2, rate * 2])
    assert len(ran) == 6
    assert all("--trial" in job.arguments and "train.iterations=375" in job.arguments for job in ran)
    report = json.loads((tmp_path / "tuning.json").read_text())
    assert report["chosen"]["bce"]["name"] == "lr_x2"
    assert report["trials"]["bce"][1]["ap"] is None
    ran.clear()
    again = tune_variants(plan, tmp_path, ["lr"], jobs=1, threads=1, launcher=pretend)
    assert ran == []
    assert [v.config.hash() for v in again.variants] == [v.config.hash() for v in chosen.variants]
    # Another seed, or another config, is another trial.
    tune_variants(replace(plan, seeds=(7,)), tmp_path, ["lr"], jobs=1, threads=1, launcher=pretend)
    assert len(ran) == 6
    tune_variants(
        make_plan(CONFIG, [FOCAL, BCE], overrides=["train.clip_norm=5"]),
        tmp_path,
        ["lr"],
        jobs=1,
        threads=1,
        launcher=pretend,
    )
    assert len(ran) == 12


def test_no_result_at_all_is_an_error_that_says_where_to_look(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(ValueError):
        best("ghm", [{"name": "a", "ap": None}], tmp_path)


def test_the_held_out_images_are_not_trained_on_and_are_the_right_ones() -> None:
    whole = ShapesDataset(num_images=23, size=64)
    kept, held = hold_out(whole)
    assert len(held) == 4
    ids = [set(part.records.image_ids.tolist()) for part in (kept, held)]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == set(whole.records.image_ids.tolist())
    for i in range(len(held)):
        at = whole.records.image_ids.tolist().index(int(held.records.image_ids[i]))
        assert np.array_equal(np.asarray(held.checked_image(i)), np.asarray(whole.load_image(at)))
        assert np.array_equal(held.records.annotation(i).boxes, whole.records.annotation(at).boxes)


def test_a_word_that_cannot_be_tune_variants(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", CONFIG, FOCAL, "--tune", "wieght"]) == 2
    assert "wieght is not one of weight, lr" in capsys.readouterr().err

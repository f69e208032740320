"""Variants out of files and grids, and a plan that may grow but not change."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from detkit.compare.plan import (
    check_output,
    check_variants,
    make_plan,
    parse_grid,
    read_plan,
    save_plan,
    variant_file,
    variant_name,
)
from detkit.compare.run import describe
from detkit.utils.outputs import LEDGER
from tests.refusals import Refuses

CONFIG = "configs/quickstart/shapes.yaml"
FOCAL, BCE = "configs/losses/focal.yaml", "configs/losses/bce.yaml"


def names(*args: Any, **options: Any) -> Any:
    plan = make_plan(*args, **options)
    return [v.name for v in plan.variants], plan.baseline


def test_a_file_is_a_variant_and_the_first_the_baseline() -> None:
    assert names(CONFIG, [FOCAL, BCE]) == (["focal", "bce"], "focal")
    assert names(CONFIG, [FOCAL, BCE], baseline="bce") == (["focal", "bce"], "bce")
    assert names(CONFIG, [FOCAL, BCE], baseline="config") == (["config", "focal", "bce"], "config")


def test_a_single_variant_is_compared_with_the_config_itself() -> None:
    assert names(CONFIG, [BCE]) == (["config", "bce"], "config")


def test_grids_multiply_with_each_other_and_with_files() -> None:
    plan = make_plan(CONFIG, [], grids=["losses.classification.gamma=0.5,2", "optimizer.lr=0.001,0.002"])
    assert [v.name for v in plan.variants] == [
        "gamma0.5-lr0.001",
        "gamma0.5-lr0.002",
        "gamma2-lr0.001",
        "gamma2-lr0.002",
    ]
    assert plan.variants[1].config.require("losses.classification.gamma") == 0.5
    assert plan.variants[1].config.require("optimizer.lr") == 0.002
    files, _ = names(CONFIG, [FOCAL, BCE], grids=["optimizer.lr=0.001,0.002"])
    assert files == ["focal-lr0.001", "focal-lr0.002", "bce-lr0.001", "bce-lr0.002"]


def test_values_with_commas_inside_brackets_stay_whole() -> None:
    assert parse_grid("losses.box={type: L1Loss, weight: 2},{type: GIoULoss}") == [
        ("losses.box", "{type: L1Loss, weight: 2}"), ("losses.box", "{type: GIoULoss}"),
    ]  # fmt: skip
    assert parse_grid("data.loader.pad_to=[64,64],[96,96]")[1] == ("data.loader.pad_to", "[96,96]")
    assert variant_name(None, [("losses.box", "{type: GIoULoss}")]) == "box_type_GIoULoss_"


def test_overrides_hold_for_all() -> None:
    plan = make_plan(CONFIG, [FOCAL, BCE], overrides=["train.iterations=7", "schedule.warmup_iterations=0"])
    assert {v.config.require("train.iterations") for v in (*plan.variants, plan.variants[0])} == {7}
    assert plan.base.require("train.iterations") == 7


@pytest.mark.parametrize(
    "options",
    [
        {"files": []},
        {"files": [FOCAL, FOCAL]},
        {"files": [FOCAL, BCE], "baseline": "foacl"},
        {"files": [FOCAL, BCE], "seeds": [1, 1]},
        {"files": [FOCAL, BCE], "overrides": ["seed=3"]},
        {"files": [], "grids": ["gamma"]},
        {"files": [], "grids": ["losses.classification.gamma=1,1"]},
        {"files": [], "grids": ["losses.classification.gama=1,2"]},
        {"files": ["configs/losses/nothing.yaml", BCE]},
    ],
)
def test_what_is_wrong_is_said(refuses: Refuses, options: dict[str, Any]) -> None:
    files = options.pop("files")
    with refuses((ValueError, OSError)):
        make_plan(CONFIG, files, **options)


def test_seeds_come_first_so_that_a_bench_cut_short_compares_all(tmp_path: Path) -> None:
    plan = make_plan(CONFIG, [FOCAL, BCE], seeds=[0, 5])
    assert [cell.name for cell in plan.cells(tmp_path)] == [
        "focal, seed 0",
        "bce, seed 0",
        "focal, seed 5",
        "bce, seed 5",
    ]


def test_a_plan_is_read_back_and_its_configs_stand_alone(tmp_path: Path) -> None:
    plan = make_plan(CONFIG, [FOCAL, BCE], seeds=[3], title="T")
    save_plan(plan, tmp_path, "detkit compare")
    back = read_plan(tmp_path)
    assert (back.title, back.baseline, back.seeds) == ("T", "focal", (3,))
    assert [v.config.hash() for v in back.variants] == [v.config.hash() for v in plan.variants]
    assert yaml.safe_load(variant_file(tmp_path, "bce").read_text())["losses"]["classification"]["type"] == "BCELoss"


def test_a_plan_may_grow(tmp_path: Path) -> None:
    save_plan(make_plan(CONFIG, [FOCAL, BCE], seeds=[0]), tmp_path, "")
    save_plan(make_plan(CONFIG, [FOCAL, BCE, "configs/losses/ghm.yaml"], seeds=[0, 1]), tmp_path, "")
    assert len(read_plan(tmp_path).variants) == 3


def test_a_variant_that_changed_is_refused_with_its_keys_and_nothing_is_lost(refuses: Refuses, tmp_path: Path) -> None:
    save_plan(make_plan(CONFIG, [FOCAL, BCE], seeds=[0]), tmp_path, "")
    before = (tmp_path / "plan.json").read_text()
    with refuses(ValueError):
        # No name in common: its runs would be compared with none of theirs.
        save_plan(
            make_plan(
                CONFIG,
                ["configs/losses/ghm.yaml", BCE],
                overrides=["train.iterations=9", "schedule.warmup_iterations=0"],
            ),
            tmp_path,
            "",
        )
    with refuses(ValueError):
        save_plan(
            make_plan(CONFIG, [FOCAL, BCE], overrides=["train.iterations=9", "schedule.warmup_iterations=0"]),
            tmp_path,
            "",
        )
    assert (tmp_path / "plan.json").read_text() == before
    # Left out for a while, then there again: its runs are still those of its old config.
    save_plan(make_plan(CONFIG, [BCE, "configs/losses/ghm.yaml"], seeds=[0]), tmp_path, "")
    other = tmp_path / "focal.yaml"
    other.write_text("losses:\n  classification:\n    type: SigmoidFocalLoss\n    prior: 0.2\n")
    with refuses(ValueError):
        save_plan(make_plan(CONFIG, [other, BCE]), tmp_path, "")


def test_a_dry_run_refuses_what_the_runs_refuse(refuses: Refuses, tmp_path: Path) -> None:
    save_plan(make_plan(CONFIG, [FOCAL, BCE]), tmp_path, "")
    with refuses(ValueError):
        describe(
            make_plan(CONFIG, [FOCAL, BCE], overrides=["train.iterations=9", "schedule.warmup_iterations=0"]),
            tmp_path,
            jobs=1,
            tune=["lr"],
        )


def test_names_in_any_script_stay_apart() -> None:
    assert variant_name("\u0444\u043e\u043a\u0430\u043b.yaml", []) != variant_name("\u043b\u043e\u0436\u044c.yaml", [])


def test_a_folder_without_a_bench_and_a_broken_plan(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(FileNotFoundError):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with refuses(ValueError):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps({"schema": 99}))
    with refuses(ValueError):
        read_plan(tmp_path)


def test_one_variant_is_no_comparison(refuses: Refuses) -> None:
    with refuses(ValueError):
        check_variants([])


def test_a_bench_is_not_written_over_files_that_detkit_did_not_write(refuses: Refuses, tmp_path: Path) -> None:
    plan = make_plan(CONFIG, [], grids=["losses.classification.gamma=1,2"], seeds=[0])
    for name in ("plan.json", "variants/gamma1.yaml", "results.json"):
        folder = tmp_path / name.replace("/", "-")
        (folder / "variants").mkdir(parents=True)
        (folder / name).write_text("mine")
        with refuses(ValueError):
            check_output(plan, folder, "results.json")
        assert (folder / name).read_text() == "mine"
    save_plan(plan, tmp_path / "bench", "detkit compare")
    check_output(plan, tmp_path / "bench", "results.json")
    (tmp_path / "bench/variants/gamma1.yaml").write_text("# mine")
    with refuses(ValueError):
        check_output(plan, tmp_path / "bench")


def test_a_bench_from_before_there_were_ledgers_is_known(tmp_path: Path) -> None:
    plan = make_plan(CONFIG, [], grids=["losses.classification.gamma=1,2"], seeds=[0])
    save_plan(plan, tmp_path, "detkit compare")
    for folder in (tmp_path, tmp_path / "variants"):
        (folder / LEDGER).unlink()
    check_output(plan, tmp_path)

"""A bench end to end, on runs that are really made (two steps) and on runs that are made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from detkit.cli import main
from detkit.compare.cell import run_cell
from detkit.compare.cell_folder import CELL, DETECTIONS, DIAGNOSIS, MATCHES, START, ended_status
from detkit.compare.launchers import CONSOLE
from detkit.compare.plan import make_plan, read_plan, save_plan
from detkit.compare.report import write_reports
from detkit.compare.results import collect_results, trained_classes
from detkit.compare.samples import SAMPLES
from detkit.config import load_config
from detkit.runs.folder import RESULT
from tests.compare.made_up import (
    BCE,
    CONFIG,
    FOCAL,
    SHORT,
    WEIGHTS,
    change,
    copied,
    failed,
    made_up,
    sign,
    verdicts,
)
from tests.compare.simulate import Skill
from tests.refusals import Refuses


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up(tmp_path_factory.mktemp("bench"), skill={"bce": Skill(recall=0.2)})


def test_results_hold_what_the_reports_need(bench: Path, tmp_path: Path) -> None:
    results = collect_results([bench])
    assert verdicts(results) == {"focal": None, "bce": "worse"}
    assert results["complete"]
    assert results["withheld"] == []
    assert len(results["samples"]) == SAMPLES
    first = results["variants"][0]
    assert first["summary"]["ap"]["mean"] == pytest.approx(np.mean([c["metrics"]["ap"] for c in first["cells"]]))
    names = [path.name for path in write_reports(results, tmp_path)]
    assert names == ["results.json", "report.html", "report.md", "table.tex"]


def test_a_run_that_is_missing_withholds_and_is_named(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    (folder / "cells/bce/seed_1" / CELL).unlink()
    results = collect_results([folder])
    assert verdicts(results)["bce"] is None
    assert results["withheld"] == ["bce: seed 1 is missing"]
    (folder / "cells/bce/seed_1" / CONSOLE).write_text("Traceback\nKeyError: 'x'\n")
    results = collect_results([folder])
    assert results["withheld"] == ["bce: seed 1 failed"]
    assert "KeyError" in results["variants"][1]["cells"][1]["error"]
    assert not results["complete"]


def test_a_diverged_run_is_a_result(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    change(folder / "cells/bce/seed_2", CELL, status="diverged", error="the loss is not finite at step 3")
    results = collect_results([folder])
    assert verdicts(results)["bce"] == "diverged"
    assert results["complete"]


def test_a_baseline_that_diverged_compares_with_nothing(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    change(folder / "cells/focal/seed_2", CELL, status="diverged", error="the loss is not finite at step 3")
    results = collect_results([folder])
    assert verdicts(results)["bce"] is None
    assert results["withheld"] == ["the baseline diverged (focal, seed 2): there is nothing to compare with"]


@pytest.mark.parametrize(
    ("what", "check"),
    [
        ({"seed": 5}, "seeds"),
        ({"order": "other"}, "order of images"),
        ({"images": "other"}, "images and augmentation"),
        ({"data": ["d1", "other"]}, "data"),
        ({"weights": WEIGHTS | {"backbone.stem.weight": [[3], "b"]}}, "initial weights"),
    ],
)
def test_what_was_not_equal_is_shown_and_said_at_the_top(
    bench: Path, tmp_path: Path, what: dict[str, Any], check: str
) -> None:
    folder = copied(bench, tmp_path)
    change(folder / "cells/bce/seed_1", START, **what)
    results = collect_results([folder])
    (found,) = failed(results)
    assert found["name"] == check
    assert "bce, seed 1" in found["detail"]
    assert results["withheld"][0].startswith(f"not fair: {check}")
    assert verdicts(results)["bce"] is None


def test_data_that_has_moved_is_known_by_its_hash(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    path = folder / "cells/focal/seed_1/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"]["train"]["dataset"] = {"type": "VocDataset", "root": "where/it/was", "split": "train"}
    path.write_text(yaml.safe_dump(config))
    sign(path.parent)
    assert collect_results([folder])["withheld"] == []


@pytest.mark.parametrize(("gamma", "said"), [(1.0, "losses.classification"), (None, "config.yaml")])
def test_a_run_made_with_another_config_than_its_variant_is_caught(
    bench: Path, tmp_path: Path, gamma: float | None, said: str
) -> None:
    folder = copied(bench, tmp_path)
    path = folder / "cells/focal/seed_1/config.yaml"
    if gamma is None:
        path.unlink()
    else:
        content = yaml.safe_load(path.read_text())
        content["losses"]["classification"]["gamma"] = gamma
        path.write_text(yaml.safe_dump(content))
    sign(path.parent)
    results = collect_results([folder])
    (found,) = failed(results)
    assert found["name"] == "config"
    assert said in found["detail"]
    assert verdicts(results)["bce"] is None


def test_the_bias_that_a_loss_sets_may_differ(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    change(folder / "cells/bce/seed_1", START, weights=WEIGHTS | {"head.class_out.bias": [[9], "y"]})
    (check,) = [c for c in collect_results([folder])["fairness"]["checks"] if c["name"] == "initial weights"]
    assert check["ok"]
    assert "head.class_out.bias" in check["detail"]


def test_another_normaliser_is_flagged(tmp_path: Path) -> None:
    other = tmp_path / "per_image.yaml"
    other.write_text("losses: {normalizer: {type: PerImagePositiveCount}}\n")
    folder = made_up(tmp_path / "bench", variants=[FOCAL, other], seeds=[0])
    fair = collect_results([folder])["fairness"]
    assert any("normalisers differ" in flag for flag in fair["flags"])
    assert "losses.normalizer" not in fair["equal"]
    assert {"backbone", "data", "assigner"} < set(fair["equal"])


def test_other_settings_than_the_loss_are_flagged(tmp_path: Path) -> None:
    other = tmp_path / "atss.yaml"
    other.write_text("assigner: {type: ATSSAssigner}\n")
    fair = collect_results([made_up(tmp_path / "bench", variants=[FOCAL, other], seeds=[0])])["fairness"]
    assert any("Settings of assigner differ" in flag for flag in fair["flags"])
    assert "assigner.type" in [entry["key"] for entry in fair["differs"]]


class TestSeveralBenches:
    def test_more_seeds_and_more_variants_are_put_together(self, tmp_path: Path) -> None:
        first = made_up(tmp_path / "a", seeds=[0, 1])
        second = made_up(tmp_path / "b", seeds=[2])
        third = made_up(tmp_path / "c", variants=["configs/losses/ghm.yaml", BCE], seeds=[0, 1, 2])
        results = collect_results([first, second, third])
        assert results["seeds"] == [0, 1, 2]
        assert [v["name"] for v in results["variants"]] == ["focal", "bce", "ghm"]
        assert results["complete"]
        assert main(["compare", "report", str(first), str(second), "--output", str(tmp_path / "all")]) == 0
        assert (tmp_path / "all/report.html").exists()

    def test_a_run_that_one_bench_lacks_is_taken_from_the_other(self, tmp_path: Path) -> None:
        first, second = made_up(tmp_path / "a"), made_up(tmp_path / "b")
        (first / "cells/bce/seed_1" / CELL).unlink()
        assert collect_results([first, second])["complete"]

    def test_a_hole_is_shown_as_one(self, tmp_path: Path) -> None:
        first = made_up(tmp_path / "a", seeds=[0, 1])
        second = made_up(tmp_path / "b", variants=[FOCAL, "configs/losses/ghm.yaml"], seeds=[0])
        assert collect_results([first, second])["withheld"] == ["ghm: seed 1 is missing"]

    @pytest.mark.parametrize("what", ["code", "config", "data"])
    def test_what_differs_is_refused_unless_it_is_allowed(
        self, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = made_up(tmp_path / "a", seeds=[0])
        second = made_up(
            tmp_path / "b", seeds=[1], code="another" if what == "code" else "f",
            overrides=["optimizer.lr=0.5"] if what == "config" else [],
        )  # fmt: skip
        if what == "data":
            for variant in ("focal", "bce"):
                change(second / f"cells/{variant}/seed_1", START, data=["new", "d2"])
        words = ["compare", "report", str(first), str(second), "--output", str(tmp_path / "all")]
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"--allow {what}" in said
        wanted = {
            "code": "detkit/losses/focal.py differs: one version in focal, seed 1, bce, seed 1",
            "config": "optimizer.lr: ",
            "data": "new/d2: focal, seed 1",
        }
        assert wanted[what] in said
        assert main([*words, "--allow", what]) == (
            1 if what == "config" else 0
        )  # variants of either config lack a seed
        if what != "config":
            assert f"{what} differs: " in capsys.readouterr().out

    def test_other_validation_images_can_not_be_compared_image_by_image(
        self, refuses: Refuses, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first, second = made_up(tmp_path / "a", seeds=[0]), made_up(tmp_path / "b", seeds=[1])
        for variant in ("focal", "bce"):
            change(second / f"cells/{variant}/seed_1", START, data=["d1", "new"])
        with refuses(ValueError):
            collect_results([first, second], allow=["data"])

    def test_validation_annotations_that_differ_in_an_area_alone_withhold_the_verdict(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first, second = made_up(tmp_path / "a", seeds=[0]), made_up(tmp_path / "b", seeds=[1])
        for variant in ("focal", "bce"):
            for name in (START, CELL):
                change(second / f"cells/{variant}/seed_1", name, validation="another area")
        words = ["compare", "report", str(first), str(second), "--output", str(tmp_path / "all")]
        assert main(words) == 1
        assert "No verdict: not fair: data (focal, seed 1: validation annotations and images" in capsys.readouterr().out
        assert main([*words, "--allow", "data"]) == 0

    def test_a_run_that_came_out_differently_in_two_benches_is_said(self, tmp_path: Path) -> None:
        first, second = made_up(tmp_path / "a"), made_up(tmp_path / "b")
        change(second / "cells/bce/seed_1", RESULT, ap=0.1234)
        (flag,) = collect_results([first, second])["fairness"]["flags"]
        assert flag.startswith("bce, seed 1: AP ")
        assert "0.1234 in " in flag

    def test_three_configs_under_one_name_are_three_variants(self, tmp_path: Path) -> None:
        for i in (1, 2, 3):
            made_up(tmp_path / f"{i}/same", overrides=[f"optimizer.lr=0.{i}"])
        found = collect_results([tmp_path / f"{i}/same" for i in (1, 2, 3)], allow=["config"])
        assert [v["name"] for v in found["variants"]][::2] == ["focal", "focal@same", "focal@same'"]

    def test_a_word_that_cannot_be_allowed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["compare", "report", str(tmp_path), "--allow", "everything"]) == 2
        assert "everything is not one of data, code, config" in capsys.readouterr().err


def test_real_runs_start_alike_and_another_seed_is_caught(tmp_path: Path) -> None:
    plan = make_plan(CONFIG, [FOCAL, "configs/losses/softmax_mining.yaml"], seeds=[0], overrides=SHORT)
    save_plan(plan, tmp_path, "")
    for cell in plan.cells(tmp_path):
        assert run_cell(load_config(tmp_path / f"variants/{cell.variant}.yaml", ["seed=0"]), cell.folder) == 0
    results = collect_results([tmp_path])
    assert all(check["ok"] for check in results["fairness"]["checks"]), results["fairness"]["checks"]
    assert results["variants"][1]["diagnosis"]["num_images"] == 12
    step0 = [v["cells"][0]["step0"] for v in results["variants"]]
    assert step0[0]["grad_norm_box"] == pytest.approx(step0[1]["grad_norm_box"], rel=1e-4)
    assert step0[0]["foreground_probability"] == pytest.approx(0.01, abs=0.002)
    # A bug is planted: the second variant is trained with another seed.
    cell = list(plan.cells(tmp_path))[1]
    (cell.folder / START).unlink()
    assert run_cell(load_config(tmp_path / f"variants/{cell.variant}.yaml", ["seed=1"]), cell.folder) == 0
    names = [check["name"] for check in failed(collect_results([tmp_path]))]
    assert names == ["seeds", "initial weights", "order of images", "images and augmentation"]
    assert not (cell.folder / DIAGNOSIS).read_text().startswith("null")


def test_matches_that_another_version_kept_otherwise_are_made_anew(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    path = folder / "cells/bce/seed_1" / MATCHES
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays.files if not name.endswith("/base")}
    np.savez(path, **kept)
    sign(path.parent)
    before, after = (collect_results([f])["variants"][1]["summary"] for f in (bench, folder))
    assert after == before


@pytest.mark.parametrize("name", [START, RESULT, CELL, DETECTIONS])
@pytest.mark.parametrize("lost", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_damaged_run_withholds_the_verdict_and_is_made_again(
    bench: Path, tmp_path: Path, name: Any, lost: bool
) -> None:
    folder = copied(bench, tmp_path)
    path = folder / "cells/bce/seed_1" / name
    content = path.read_bytes()
    path.unlink() if lost else path.write_bytes(content[: len(content) // 2])
    results = collect_results([folder])
    assert verdicts(results)["bce"] is None
    assert len(results["withheld"]) == 1
    cells = {(c.variant, c.seed): ended_status(c.folder) for c in read_plan(folder).cells(folder)}
    assert [key for key, value in cells.items() if value is None] == [("bce", 1)]
    if not (name == CELL and lost):
        assert name in results["variants"][1]["cells"][1]["error"]


def test_a_damaged_diagnosis_does_not_end_the_report(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    (folder / "cells/bce/seed_1" / DIAGNOSIS).write_text('{"share": ')
    assert collect_results([folder])["withheld"] == ["bce: seed 1 failed"]


@pytest.mark.parametrize("content", [None, pytest.param(b"", marks=pytest.mark.slow), b"PK cut off"])
def test_damaged_matches_are_made_anew(bench: Path, tmp_path: Path, content: bytes | None) -> None:
    folder = copied(bench, tmp_path)
    path = folder / "cells/bce/seed_1" / MATCHES
    path.unlink() if content is None else path.write_bytes(content)
    assert collect_results([folder])["variants"] == collect_results([bench])["variants"]
    assert path.stat().st_size > 100


def test_the_classes_of_a_bench_are_those_its_runs_were_trained_on() -> None:
    old: dict[str, list[str]] = {"data": []}
    new = {"data": [], "classes": ["dog", "cat"]}
    assert trained_classes([old]) is None
    classes = trained_classes([old, new])
    assert classes is not None
    assert classes.names == ("dog", "cat")

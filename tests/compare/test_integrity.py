"""Somebody edits, copies or swaps what a bench left, and the report says so: with the file and the run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from detkit.cli import main
from detkit.compare.cell_folder import CELL, DETECTIONS, DIAGNOSIS, HASHED_FILES, MATCHES, START
from detkit.compare.hashes import images_hash, validation_hash
from detkit.compare.integrity import FILES, check_figures, file_hashes
from detkit.compare.results import collect_results
from detkit.data.datasets.coco import CocoDataset
from detkit.data.datasets.shapes import ShapesDataset
from detkit.runs.folder import CONFIG, ENVIRONMENT, METRICS, RESULT
from tests.compare.made_up import BCE, FOCAL, change, checks, copied, failed, made_up, sign, verdicts
from tests.compare.simulate import Skill
from tests.refusals import Refuses

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up(tmp_path_factory.mktemp("bench"), seeds=[0, 1], skill={"bce": Skill(recall=0.1)})


def refused(folder: Path, name: str, *words: str) -> None:
    """The verdict is withheld by this check alone."""
    results = collect_results([folder])
    assert [check["name"] for check in failed(results)] == [name], failed(results)
    assert verdicts(results)["bce"] is None
    (reason,) = results["withheld"]
    assert all(word in reason for word in words), reason


def test_a_withheld_verdict_is_in_no_form_of_the_report(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(bench, tmp_path)
    change(folder / "cells/bce/seed_1", RESULT, signed=False, ap50=0.99)
    assert main(["compare", "report", str(folder)]) == 1
    assert "No verdict: not fair: files (bce, seed 1: result.json was changed" in capsys.readouterr().out
    for form in ("report.html", "report.md"):
        assert "is worse than" not in (folder / form).read_text()
    assert "textbf" not in (folder / "table.tex").read_text()
    assert "not fair: files" in (folder / "table.tex").read_text()


def test_an_untouched_bench_gets_its_verdict_and_says_it(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(bench, tmp_path)
    assert main(["compare", "report", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "bce is worse than focal: AP " in out
    assert checks(collect_results([folder]))["files"]["detail"] == "every file is unchanged since its run ended"


def edit_json(key: Any, value: Any) -> Any:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


def edit_config(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["train"]["log_every"] = 7  # a key that changes nothing, so that no other check sees it
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def edit_arrays(path: Any) -> None:
    with np.load(path) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    np.savez(path, **content, note=np.zeros(1))


EDITS = {
    CONFIG: edit_config,
    ENVIRONMENT: edit_json("git", "other"),
    START: edit_json("train", "other"),
    RESULT: edit_json("ap50", 0.99),
    METRICS: lambda path: path.write_text(path.read_text().replace("1.0", "0.1")),
    DETECTIONS: edit_arrays,
    MATCHES: edit_arrays,
    DIAGNOSIS: lambda path: path.write_text('{"easy_below": 0.1}'),
}


@pytest.mark.parametrize("name", HASHED_FILES)
def test_a_file_that_was_edited_afterwards_is_named(bench: Path, tmp_path: Path, name: str) -> None:
    folder = copied(bench, tmp_path)
    run = folder / "cells/bce/seed_1"
    EDITS[name](run / name)
    refused(folder, "files", "bce, seed 1", name, "was changed after the run ended", str(run))


def test_files_that_are_lost_are_named_too(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    (folder / "cells/bce/seed_1" / METRICS).unlink()
    refused(folder, "files", f"bce, seed 1: {METRICS} was changed")


def test_a_diverged_run_is_watched_as_well(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    change(folder / "cells/bce/seed_1", CELL, status="diverged", error="the loss is not finite")
    change(folder / "cells/bce/seed_1", START, signed=False, train="other")
    assert checks(collect_results([folder]))["files"]["ok"] is False


def test_an_ap_that_its_detections_do_not_give_is_a_contradiction_even_if_it_was_forged_well(
    bench: Path, tmp_path: Path
) -> None:
    folder = copied(bench, tmp_path)
    change(folder / "cells/bce/seed_1", RESULT, ap=0.9)
    refused(folder, "figures", "bce, seed 1", RESULT, "says AP 90.0000, its detections give ")


def test_on_a_gpu_the_last_digits_may_differ(bench: Path) -> None:
    run = ("focal", 0)
    folder = bench / "cells/focal/seed_0"
    written = json.loads((folder / RESULT).read_text())["ap"]
    for device, ok in (("cpu", False), ("NVIDIA X", True)):
        assert check_figures({run: folder}, {run: written + 5e-4}, {run: device})["ok"] is ok
    assert not check_figures({run: folder}, {run: written + 0.01}, {run: "NVIDIA X"})["ok"]
    assert not check_figures({run: folder}, {run: None}, {run: "cpu"})["ok"]


def test_a_seed_that_is_a_copy_of_another_is_caught_by_its_seed_and_by_its_detections(
    bench: Path, tmp_path: Path
) -> None:
    folder = copied(bench, tmp_path)
    runs = folder / "cells/bce"
    shutil.rmtree(runs / "seed_1")
    shutil.copytree(runs / "seed_0", runs / "seed_1")
    results = collect_results([folder])
    assert {"seeds", "distinct runs"} <= {check["name"] for check in failed(results)}
    assert "bce, seed 1: ran with 0" in checks(results)["seeds"]["detail"]
    detail = checks(results)["distinct runs"]["detail"]
    assert "bce, seed 0 and bce, seed 1 have the same detections, bit for bit" in detail
    assert verdicts(results)["bce"] is None


def test_a_copy_that_was_given_another_seed_is_still_a_copy(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    for name in (DETECTIONS, MATCHES, RESULT):
        shutil.copy(folder / "cells/bce/seed_0" / name, folder / "cells/bce/seed_1" / name)
    sign(folder / "cells/bce/seed_1")
    refused(folder, "distinct runs", "bce, seed 0 and bce, seed 1")


def test_swapped_folders_of_two_variants_are_caught_by_their_configs(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    cells = folder / "cells"
    (cells / "bce").rename(cells / "other")
    (cells / "focal").rename(cells / "bce")
    (cells / "other").rename(cells / "focal")
    refused(folder, "config", "focal, seed 0: ", "bce, seed 0: ", "losses.classification.type")


def test_variants_that_find_the_same_are_flagged(tmp_path: Path) -> None:
    folder = made_up(tmp_path, seeds=[0, 1], random_of=lambda cell: [cell.seed])
    results = collect_results([folder])
    assert results["withheld"] == []
    sentence = "focal and bce, seed 0, have the same detections, bit for bit: their difference has no effect."
    assert sentence in results["fairness"]["flags"]


def test_a_run_that_is_shorter_than_its_config_is_shown(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    change(folder / "cells/bce/seed_1", RESULT, step=1)
    results = collect_results([folder])
    check = checks(results)["length"]
    assert (check["ok"], check["withholds"], check["detail"]) == (False, False, "bce, seed 1: 1 of 2 steps")
    assert verdicts(results)["bce"] == "worse"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data", ["d1", "edited"], "validation annotations: edited where "),
        ("data", ["edited", "d2"], "training annotations: edited where "),
        ("training_images", "other", "training images at the start: other where "),
        ("validation", "other", "validation annotations and images at the start: other where "),
    ],
)
def test_data_that_changed_between_seeds_is_caught_though_variants_agree(
    bench: Path, tmp_path: Path, key: Any, value: Any, said: str
) -> None:
    folder = copied(bench, tmp_path)
    for variant in ("focal", "bce"):
        change(folder / f"cells/{variant}/seed_1", START, **{key: value})
        if key in ("validation", "training_images"):
            change(folder / f"cells/{variant}/seed_1", CELL, **{key: value})
    refused(folder, "data", "focal, seed 1: ", "bce, seed 1: ", said)


@pytest.mark.parametrize(
    ("key", "what"), [("validation", "validation annotations and images"), ("training_images", "training images")]
)
def test_images_that_changed_while_a_run_went_on_are_caught(bench: Path, tmp_path: Path, key: str, what: str) -> None:
    folder = copied(bench, tmp_path)
    change(folder / "cells/bce/seed_1", CELL, **dict[str, Any]({key: "other"}))
    refused(folder, "data", f"bce, seed 1: {what} changed during the run: v at the start, other at the end")


def test_hashes_that_were_taken_out_do_not_make_a_run_an_older_one(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    path = folder / "cells/bce/seed_1" / CELL
    content = json.loads(path.read_text())
    del content[FILES]
    path.write_text(json.dumps(content))
    refused(folder, "files", "bce, seed 1: cell.json was changed after the run ended")


@pytest.mark.parametrize("edit", [{"status": "diverged", "error": "the loss is not finite"}, {"cost": {}}])
def test_an_edited_end_of_a_run_is_named(bench: Path, tmp_path: Path, edit: dict[str, Any]) -> None:
    folder = copied(bench, tmp_path)
    change(folder / "cells/bce/seed_1", CELL, signed=False, **edit)
    refused(folder, "files", "bce, seed 1: cell.json was changed after the run ended")


def test_runs_that_the_report_leaves_out_are_named(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    change(folder, "plan.json", signed=False, seeds=[0, 2])
    flags = collect_results([folder])["fairness"]["flags"]
    assert "Finished runs that this report leaves out: bce, seed 1, focal, seed 1." in flags


def test_annotations_that_changed_after_all_runs_are_said(refuses: Refuses, bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    for run in folder.glob("cells/*/*"):
        change(run, START, truth="then")
    results = collect_results([folder])
    assert any("validation annotations have changed since the runs" in flag for flag in results["fairness"]["flags"])
    (folder / "cells/bce/seed_1" / MATCHES).write_bytes(b"")
    with refuses(ValueError):
        collect_results([folder])


def test_matches_that_detkit_makes_again_are_not_taken_for_an_edit(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    (folder / "cells/bce/seed_1" / MATCHES).write_bytes(b"PK cut off")
    for _ in range(2):
        assert failed(collect_results([folder])) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seeds", [0, 0, 1], "seeds: "),
        ("baseline", "nobody", "'nobody' is not one of focal, bce"),
        ("variants", {}, "variants: "),
    ],
)
def test_a_plan_that_was_edited_into_nonsense_is_refused(
    bench: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    key: Any,
    value: Any,
    said: str,
) -> None:
    folder = copied(bench, tmp_path)
    change(folder, "plan.json", signed=False, **{key: value})
    assert main(["compare", "report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "plan.json: " in error
    assert said in error


def test_a_plan_whose_variant_was_edited_does_not_fit_its_runs(bench: Path, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    plan = json.loads((folder / "plan.json").read_text())
    plan["variants"]["bce"]["losses"]["classification"]["prior"] = 0.3
    (folder / "plan.json").write_text(json.dumps(plan))
    refused(folder, "config", "bce, seed 0: losses.classification.prior")


def test_a_bench_of_an_older_detkit_is_read_and_does_not_pretend(tmp_path: Path) -> None:
    folder = made_up(tmp_path, old="1234+changes", seeds=[0, 1], skill={"bce": Skill(recall=0.1)})
    results = collect_results([folder])
    assert verdicts(results)["bce"] == "worse"
    found = checks(results)
    assert {name: found[name]["ok"] for name in ("files", "code")} == {"files": None, "code": None}
    assert "wrote no hashes" in found["files"]["detail"]
    assert found["code"]["detail"].startswith("not known file by file")
    assert "1234+changes" in found["code"]["detail"]
    assert results["machine"] == {"threads": "2", "cpu": "an old CPU"}
    assert main(["compare", "report", str(folder)]) == 0
    assert "| code | not known | not known file by file" in (folder / "report.md").read_text()


def test_hashes_cover_every_file_that_is_there(bench: Path) -> None:
    folder = bench / "cells/focal/seed_0"
    noted = json.loads((folder / CELL).read_text())[FILES]
    assert noted.items() > file_hashes(folder).items()
    assert noted.keys() == {path.name for path in folder.iterdir()}


def test_the_validation_hash_sees_pixels_and_annotations(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 32}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
    }

    def hashes() -> Any:
        (tmp_path / "a.json").write_text(json.dumps(content))
        dataset = CocoDataset(annotations=str(tmp_path / "a.json"), images=str(tmp_path))
        return validation_hash(dataset), images_hash(dataset), images_hash(dataset, read_whole=0)

    before = hashes()
    assert hashes() == before
    content["annotations"][0]["area"] = 80
    area = hashes()
    assert area[0] != before[0]
    assert area[1:] == before[1:]
    Image.new("RGB", (32, 32), (254, 0, 0)).save(tmp_path / "a.png")
    pixels = hashes()
    assert all(now != then for now, then in zip(pixels, area, strict=True))
    made = [ShapesDataset(num_images=2, size=64, split="val", seed=seed) for seed in (0, 0, 1)]
    first, again, other = map(validation_hash, made)
    assert first == again != other


def test_two_variants_of_one_run_each_are_read(tmp_path: Path) -> None:
    assert failed(collect_results([made_up(tmp_path, variants=[FOCAL, BCE], seeds=[5])])) == []

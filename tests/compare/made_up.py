"""Made-up benches: runs that were never made, with every file that a run leaves."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detkit.compare.cell_folder import CELL, DETECTIONS, MATCHES, START
from detkit.compare.hashes import truth_hash
from detkit.compare.integrity import with_hashes
from detkit.compare.plan import make_plan, save_plan
from detkit.data.datasets.shapes import ShapesDataset
from detkit.evaluate.coco import CocoEvaluator, ground_truth_from
from detkit.evaluate.matches import match, save_matches
from detkit.evaluate.report import to_json
from detkit.runs.folder import ENVIRONMENT, METRICS, RESULT
from detkit.runs.starts import Start, read_starts, with_starts
from tests.compare.simulate import Skill, train

CONFIG = "configs/quickstart/shapes.yaml"
FOCAL, BCE = "configs/losses/focal.yaml", "configs/losses/bce.yaml"
SHORT = [
    "data.val.dataset.num_images=12", "data.train.dataset.num_images=8", "data.val.dataset.size=96",
    "data.train.dataset.size=96", "train.iterations=2", "schedule.warmup_iterations=1", "train.eval_every=0",
    "data.loader.num_workers=0",
    "data.loader.batch_size=2", "neck.channels=16", "head.num_convs=1", "train.tensorboard=false",
]  # fmt: skip
WEIGHTS = {"head.class_out.bias": [[9], "x"], "backbone.stem.weight": [[3], "a"]}


CODE = {"detkit/losses/focal.py": "f", "detkit/_C": "n"}
FACTS = {
    "threads": 1, "processes": 1, "cpu": "a CPU", "capability": "AVX2", "device": "cpu", "deterministic": True,
    "detkit": "0.1.0", "torch": "2.11.0", "torchvision": "0.26", "numpy": "2.4", "pillow": "13",
}  # fmt: skip


def made_up(
    folder: Path,
    *,
    variants: list[Path | str] | tuple[str, str] = (FOCAL, BCE),
    seeds: list[int] | tuple[int, int, int] = (0, 1, 2),
    overrides: list[Any] | tuple[Any, ...] = (),
    skill: dict[str, Skill] | None = None,
    code: str = "f",
    old: str | None = None,
    random_of: Callable[..., Any] | None = None,
) -> Path:
    """A bench whose runs were never made: each with a start, a result, detections and matches.

    code: hash of focal.py. old: as an older detkit left it, of this revision.
    """
    plan = make_plan(CONFIG, list(variants), seeds=seeds, overrides=[*SHORT, *overrides])
    save_plan(plan, folder, "detkit compare ...")
    dataset = ShapesDataset(num_images=12, size=96, split="val")
    truth, classes = ground_truth_from(dataset), len(dataset.classes)
    for cell in plan.cells(folder):
        random = np.random.default_rng(random_of(cell) if random_of else [cell.seed, len(cell.variant)])
        found = train(random, truth, (skill or {}).get(cell.variant, Skill()), 0.02, classes)
        evaluator = CocoEvaluator(dataset.classes, truth)
        evaluator.merge([found])
        cell.folder.mkdir(parents=True)
        start = {"seed": cell.seed, "weights": WEIGHTS, "order": f"o{cell.seed}", "images": f"i{cell.seed}",
                 "data": ["d1", "d2"], "step0": {"ratio": 1.0}, "train": "t", "val": "v",
                 "training_images": "v", "validation": "v", "truth": truth_hash(truth)}  # fmt: skip
        done = {"status": "finished", "error": None, "cost": {"seconds_per_step": 0.1, "peak_memory_mb": 500.0}}
        line = {"step": 1, "loss": 1.0, "loss_classification": 0.5, "loss_box": 0.5}
        if old is None:
            environment = with_starts(
                {"git": "abc"}, [Start(code={**CODE, "detkit/losses/focal.py": code}, facts=FACTS)]
            )
            done |= {"validation": "v", "training_images": "v"}
        else:
            environment = {"git": old, "machine": {"threads": 2, "cpu": "an old CPU"}, "versions": {"torch": "2.10"}}
            start = {key: start[key] for key in start if key not in ("training_images", "validation", "truth")}
        result = to_json(evaluator.compute()) | {"step": 2}
        files = {START: start, RESULT: result, ENVIRONMENT: environment, CELL: done, METRICS: line}
        for name, content in files.items():
            (cell.folder / name).write_text(json.dumps(content) + "\n")
        config = {v.name: v.config for v in plan.variants}[cell.variant].to_dict() | {"seed": cell.seed}
        (cell.folder / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config))))
        np.savez(cell.folder / DETECTIONS, **found._asdict())
        save_matches(cell.folder / MATCHES, match(truth, found, classes, plan.base.options("evaluator")))
        if old is None:
            sign(cell.folder)
    return folder


def sign(folder: Path) -> None:
    """What a run does last."""
    content = json.loads((folder / CELL).read_text())
    (folder / CELL).write_text(json.dumps(with_hashes(content, folder)))


def verdicts(results: dict[str, Any]) -> dict[str, Any]:
    return {v["name"]: (v["versus_baseline"] or {}).get("ap", {}).get("verdict") for v in results["variants"]}


def change(folder: Path, name: str, *, signed: bool = True, **what: Any) -> None:
    """As if the run itself had written something else; not signed: as if somebody had edited the file later."""
    path = folder / name
    content = json.loads(path.read_text()) | what
    path.write_text(json.dumps(content))
    if signed:
        sign(folder)


def restart(folder: Any, *, code: Any = None, facts: Any = None) -> None:
    """As if the run had been resumed with another code, or elsewhere."""
    path = folder / ENVIRONMENT
    (first,) = read_starts(folder)
    second = replace(first, step=1, code={**first.code, **(code or {})}, facts={**first.facts, **(facts or {})})
    path.write_text(json.dumps(with_starts({"git": "abc"}, [first, second])))
    sign(folder)


def checks(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in results["fairness"]["checks"]}


def failed(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [check for check in results["fairness"]["checks"] if check["ok"] is False]


def copied(bench: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bench, tmp_path / "copy")

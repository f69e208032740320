"""What somebody with a wheel and an empty folder does first, run there word by word."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

TINY = (
    "train.iterations=2",
    "train.eval_every=0",
    "schedule.warmup_iterations=0",
    "data.loader.batch_size=2",
    "data.loader.num_workers=0",
    "data.train.dataset.num_images=4",
    "data.val.dataset.num_images=2",
)
OWN = "_base_: retinanet_r18_fpn\ndata: {train: {dataset: {root: voc}}}\n"
"""The file own.yaml."""
PROBE = "import detkit; print(detkit.__file__)"


@dataclass(frozen=True)
class Step:
    """A command of detkit, a text that its output must have, and its exit code."""

    words: tuple[str, ...]
    says: str
    code: int = 0


STEPS = (
    Step(("list", "configs"), "AP: 0.675, benchmarks/results/shapes_resnet18.json"),
    Step(("list", "configs", "--json"), '"name": "ssd300_vgg16"'),
    Step(("config", "check", "quickstart", "train.iterations=100"), "quickstart: ok"),
    Step(("config", "check", "quickstart", "train.iterations=10"), "warmup_iterations: 50 is more than", 1),
    Step(("config", "check", "ssd300_vgg16", "--overlay", "balanced_bce_alpha0.99"), "ssd300_vgg16: ok"),
    Step(("config", "show", "quickstart"), "type: ShapesDataset"),
    Step(("config", "show", "own.yaml", "--origin"), "detkit:configs/retinanet/r18_fpn_small.yaml:"),
    Step(("config", "show", "quickstrat"), "did you mean quickstart?", 2),
    Step(("data", "check", "retinanet_r50_fpn"), "DETKIT_DATASETS is not set", 2),
    Step(("train", "quickstart", *TINY, "--output", "x"), "run      x\n"),
    Step(("train", "quickstart", *TINY, "--overlay", "bce_mining"), "runs/quickstart-bce_mining"),
    Step(("eval", "x"), "AP50"),
    Step(("new", "backbone", "my_net"), "detkit train projects/my_net/config.yaml"),
    Step(("train", "projects/my_net/config.yaml", *TINY), "runs/my_net"),
    Step(("compare", "quickstart", "focal", "bce", "--seeds", "1", "--dry-run", *TINY), "runs/compare-quickstart"),
)


def package_file(python: Path, folder: Path, env: dict[str, str]) -> Path:
    """The file of the detkit that is imported there."""
    done = subprocess.run([python, "-c", PROBE], cwd=folder, env=env, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def problems(python: Path, folder: Path, env: dict[str, str]) -> list[str]:
    """Runs all steps in an empty folder; a line for each that does not do what it must."""
    (folder / "own.yaml").write_text(OWN, encoding="utf-8")
    found = []
    for step in STEPS:
        command = [str(python), "-m", "detkit", *step.words]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, errors="replace")
        output = done.stdout + done.stderr
        if done.returncode != step.code or step.says not in output:
            tail = "\n    ".join(output.splitlines()[-12:])
            said = f"exit code {done.returncode}, must be {step.code} with {step.says!r}"
            found.append(f"detkit {' '.join(step.words)}: {said}:\n    {tail}")
    return found

"""Writes down the numbers that a change of structure must not move, or compares them with an earlier run.

    python tools/hold_numbers.py before.json                  # on the old code
    python tools/hold_numbers.py after.json --against before.json

Only the command line is used, so that the same script runs on code of another layout. Numbers are equal to the last
digit on one machine with one set of libraries only. Exit code 1 if a number differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ROOT / "configs/quickstart/shapes.yaml"
GOLDEN_RUN = ROOT / "tests/golden/run_0_1_0.zip"
SHORT = ["train.iterations=60", "train.eval_every=0", "data.val.dataset.num_images=20", "train.tensorboard=false"]
KEPT = {
    "step": "step", "train/loss": "loss", "train/loss/classification": "loss_classification",
    "train/loss/box": "loss_box", "lr": "lr", "train/gradient_norm": "gradient_norm",
    "train/normalizer": "normalizer", "train/images": "images",
}  # fmt: skip
"""Name in metrics.jsonl -> name in the file of numbers, which is older."""


def detkit(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command with one thread; an error ends this script with what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "detkit", *words], env=environment(), capture_output=True, text=True, **more
    )
    if done.returncode:
        sys.exit(f"detkit {' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def environment() -> dict[str, str]:
    """This process's variables, with one thread and this checkout first on the path."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def steps(run: Path) -> list[dict[str, Any]]:
    """The training steps of metrics.jsonl, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{KEPT[key]: line[key] for key in KEPT if key in line} for line in lines if "train/loss" in line]


def weights(run: Path) -> str:
    """SHA-256 of the model, the averaged weights and the optimizer of the newest checkpoint."""
    import torch

    newest = max((run / "checkpoints").glob("step_*.pt"))
    content = torch.load(newest, map_location="cpu", weights_only=True)
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                digest.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list):
            for item in value:
                add(item)
        else:
            digest.update(repr(value).encode())

    for key in ("model", "ema", "optimizer"):
        add(content[key])
    return digest.hexdigest()


def figures(run: Path) -> dict[str, Any]:
    """The COCO figures of result.json."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return {k: v for k, v in result.items() if k.startswith(("ap", "ar")) or k == "per_class"}


def train(folder: Path, *more: str) -> dict[str, Any]:
    """60 steps of the quickstart."""
    detkit("train", str(SHAPES), "--output", str(folder), *SHORT, *more)
    return {"steps": steps(folder), "weights": weights(folder), "figures": figures(folder)}


def killed_and_resumed(folder: Path) -> dict[str, Any]:
    """The same steps with a kill -9 after the checkpoint of step 20."""
    words = ["train", str(SHAPES), "--output", str(folder), *SHORT, "train.checkpoint_every=20"]
    process = subprocess.Popen(
        [sys.executable, "-m", "detkit", *words], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    while not (folder / "checkpoints/step_00000020.pt").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    detkit(*words, "--resume")
    return {"steps": steps(folder)[-20:], "weights": weights(folder), "figures": figures(folder)}


def stored_run(folder: Path) -> dict[str, Any]:
    """A run of detkit 0.1.0: its COCO table, and three steps more."""
    with zipfile.ZipFile(GOLDEN_RUN) as archive:
        archive.extractall(folder)
    run = folder / "run_0_1_0"
    table = detkit("eval", str(run)).stdout.splitlines()
    detkit("train", str(run / "config.yaml"), "--output", str(run), "--resume", "train.iterations=803")
    return {"table": [line for line in table if "second" not in line], "steps": steps(run)[-3:],
            "figures": figures(run)}  # fmt: skip


def bench(folder: Path) -> dict[str, Any]:
    """Two losses x 2 seeds x 6 steps, then the report again from the recorded cells."""
    losses = [str(ROOT / f"configs/losses/{name}.yaml") for name in ("focal", "softmax_mining")]
    detkit("compare", str(SHAPES), *losses, "--seeds", "2", "--output", str(folder), *SHORT,
           "train.iterations=6", "schedule.warmup_iterations=2",
           "data.train.dataset.num_images=60")  # fmt: skip
    kept: dict[str, Any] = {}
    for name in ("first", "again"):
        if name == "again":
            subprocess.run([sys.executable, "-m", "detkit", "compare", "report", str(folder)], env=environment(),
                           capture_output=True, check=False)  # fmt: skip
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        kept[name] = [without_costs(variant) for variant in results["variants"]]
    kept["cells"] = {
        str(file.parent.relative_to(folder)): figures(file.parent) for file in sorted(folder.rglob("result.json"))
    }
    return kept


def without_costs(value: Any) -> Any:
    """A tree without what depends on the machine's speed."""
    if isinstance(value, dict):
        return {
            k: without_costs(v) for k, v in value.items() if not any(word in k for word in ("second", "cost", "mem"))
        }
    return [without_costs(item) for item in value] if isinstance(value, list) else value


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Paths at which two trees differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}/{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{path}/{i}")]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def main() -> int:
    """Measures, writes, compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="JSON file of an earlier run to compare with")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        found = {
            "train": train(base / "one"),
            "two processes": train(base / "two", "--procs", "2"),
            "killed and resumed": killed_and_resumed(base / "killed"),
            "stored run": stored_run(base / "stored"),
            "bench": bench(base / "bench"),
        }
    args.output.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if found["killed and resumed"]["weights"] != found["train"]["weights"]:
        print("the killed run does not end with the weights of the undisturbed one")
        return 1
    if args.against is None:
        print(f"{args.output} is written")
        return 0
    moved = differences(json.loads(args.against.read_text(encoding="utf-8")), json.loads(args.output.read_text()))
    print("\n".join(moved) or "no number moved")
    return int(bool(moved))


if __name__ == "__main__":
    sys.exit(main())

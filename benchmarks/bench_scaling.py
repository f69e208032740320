"""What several processes bring and what a failure costs: `detkit train` runs of the quickstart's detector on shapes.

Each process has one thread, loads its own images and has the same number of them in a step, however many processes
there are. Efficiency of 2 processes: their images/s over twice those of 1. "apart" are two runs of 1 process at the
same time that know nothing of each other: what the machine itself loses when both cores are busy. Further: seconds
from the command to the first step done, seconds that writing a checkpoint takes, and seconds from `kill -9` of a
worker until the run is beyond the step it had reached. Rounds alternate; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import json_output, machine_line
from detkit.utils.outputs import write_marked_json

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs/quickstart/shapes.yaml"
WARM_UP = 5


def start(folder: Path, procs: int, args: argparse.Namespace, *more: str) -> subprocess.Popen[bytes]:
    """A run of `procs` processes in the background."""
    options = [
        f"data.train.dataset.size={args.size}", f"data.val.dataset.size={args.size}", "data.val.dataset.num_images=2",
        f"data.loader.batch_size={args.images * procs}", "data.loader.num_workers=0", "train.threads=1",
        "train.device=cpu", "train.tensorboard=false", f"train.iterations={args.steps}",
        "schedule.warmup_iterations=0", "train.eval_every=0",
        "train.checkpoint_every=0", *more,
    ]  # fmt: skip
    command = [sys.executable, "-m", "detkit.cli", "train", str(CONFIG), *options, "--output", str(folder)]
    command += ["--procs", str(procs)] if procs > 1 else []
    output = (folder.parent / f"{folder.name}.txt").open("wb")
    return subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Waits for the end of a run that must end well."""
    if process.wait() != 0:
        raise RuntimeError((folder.parent / f"{folder.name}.txt").read_text(encoding="utf-8"))


def last_step(folder: Path) -> int:
    """The newest step in metrics.jsonl; 0 before the first."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    steps = [json.loads(line)["step"] for line in lines[-3:] if line.endswith("\n")]
    return max(steps, default=0)


def seconds_to_step(process: subprocess.Popen[bytes], folder: Path, step: int, since: float) -> float:
    """Waits until the run has done a step; seconds after `since`."""
    while last_step(folder) < step:
        if process.poll() is not None and last_step(folder) < step:
            raise RuntimeError((folder.parent / f"{folder.name}.txt").read_text(encoding="utf-8"))
        time.sleep(0.01)
    return time.perf_counter() - since


def images_per_second(folder: Path) -> float:
    """Over all steps but the first."""
    rows = [
        row
        for row in map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        if "train/loss" in row
    ]
    rows = rows[WARM_UP:]
    return float(sum(row["train/images"] for row in rows) / sum(row["time/step"] for row in rows))


def one_round(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Speed of 1, 2 and 2 separate processes, and seconds to the first step."""
    found = {}
    for procs in (1, 2):
        run = folder / f"procs{procs}"
        begun = time.perf_counter()
        process = start(run, procs, args)
        found[f"first_step_s_{procs}"] = seconds_to_step(process, run, 1, begun)
        finish(process, run)
        found[f"images_per_s_{procs}"] = images_per_second(run)
    apart = [folder / f"apart{i}" for i in range(2)]
    for process, run in [(start(run, 1, args), run) for run in apart]:
        finish(process, run)
    found["images_per_s_apart"] = sum(images_per_second(run) for run in apart)
    return found


def checkpoint_cost(run: Path, rounds: int) -> dict[str, float]:
    """Seconds to write a checkpoint of a run, safely on disk, and its size."""
    from detkit.checkpoint import load_checkpoint, save_checkpoint

    checkpoint, seconds, path = load_checkpoint(run, prefer="newest"), [], run / "again.pt"
    for _ in range(rounds):
        begun = time.perf_counter()
        save_checkpoint(path, checkpoint)
        seconds.append(time.perf_counter() - begun)
    return {"checkpoint_s": statistics.median(seconds), "checkpoint_mib": path.stat().st_size / 2**20}


def children(process: int) -> list[int]:
    """Processes that a process has started."""
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()]


def kill_cost(folder: Path, args: argparse.Namespace) -> float:
    """Seconds from the kill of a worker of two until the run has done one step more than before it."""
    run, every = folder / "killed", max(2, args.steps // 4)
    process = start(run, 2, args, f"train.checkpoint_every={every}")
    seconds_to_step(process, run, every + every // 2, 0.0)
    begun, reached = time.perf_counter(), last_step(run)
    os.kill(max(children(process.pid)), signal.SIGKILL)
    # The restart cuts the file back to the checkpoint before it grows again.
    while last_step(run) >= reached:
        if process.poll() is not None:
            raise RuntimeError(f"the killed run never went back\n{(folder / 'killed.txt').read_text(encoding='utf-8')}")
        reached = max(reached, last_step(run))
        time.sleep(0.01)
    seconds = seconds_to_step(process, run, reached + 1, begun)
    finish(process, run)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="pixels of the square images")
    parser.add_argument("--images", type=int, default=8, help="images of a step for each process")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=json_output, help="write the figures here, too")
    args = parser.parse_args()
    print(machine_line())
    print(f"{args.images} images of {args.size} px for each process and step, {args.steps} steps, {args.rounds} rounds")
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="detkit_bench_") as place:
        for number in range(args.rounds):
            folder = Path(place) / str(number)
            folder.mkdir()
            row = one_round(folder, args) | checkpoint_cost(folder / "procs2", 5)
            row["kill_s"] = kill_cost(folder, args)
            row["efficiency"] = row["images_per_s_2"] / (2 * row["images_per_s_1"])
            row["efficiency_apart"] = row["images_per_s_apart"] / (2 * row["images_per_s_1"])
            rounds.append(row)
            print("  ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
            shutil.rmtree(folder)
    median: dict[str, Any] = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    print(
        f"1 process   {median['images_per_s_1']:7.1f} images/s, first step after {median['first_step_s_1']:.1f} s\n"
        f"2 processes {median['images_per_s_2']:7.1f} images/s, first step after {median['first_step_s_2']:.1f} s, "
        f"efficiency {median['efficiency']:.2f}\n"
        f"2 apart     {median['images_per_s_apart']:7.1f} images/s, efficiency {median['efficiency_apart']:.2f}\n"
        f"a checkpoint of {median['checkpoint_mib']:.0f} MiB takes {median['checkpoint_s']:.2f} s; "
        f"a killed worker costs {median['kill_s']:.1f} s"
    )
    if args.json:
        write_marked_json(args.json, {"machine": machine_line(), "median": median, "rounds": rounds})


if __name__ == "__main__":
    main()

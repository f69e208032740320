"""Everything that only a GPU can show, by one command on a bare machine with torch and a GPU.

    python -m tools.gpu_day --output gpu_day                      # every stage, at most nine minutes each
    python -m tools.gpu_day --output gpu_day --stages build tests nms
    python -m tools.gpu_day --output gpu_day --device cpu --tiny  # the same commands at a tiny size, as a rehearsal
    python -m tools.gpu_day --list

A stage is one command. Its output goes to OUTPUT/<stage>.log, its figures to OUTPUT/<stage>.json where it has
some; the stages that ran go into OUTPUT/gpu_day.json and into the table that is printed last. A stage that fails or
runs out of time doesn't stop the next one. Exit code 1 if any stage failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common import machine_line

ROOT = Path(__file__).resolve().parents[1]
MODULE = (sys.executable, "-m")
# A device that is synchronised with costs more than a step this small: figures of a rehearsal mean nothing.
TINY_STEP = ("--depths", "18", "--sizes", "64", "--batch", "1", "--rounds", "1")
TINY_INFER = ("--depths", "18", "--size", "64", "--rounds", "1")
TINY_RUN = (
    "train.iterations=2",
    "schedule.warmup_iterations=0",
    "data.train.dataset.num_images=8",
    "data.val.dataset.num_images=2",
)


@dataclass(frozen=True)
class Options:
    """What a stage's command depends on."""

    device: str
    tiny: bool
    output: Path
    bccd: Path | None

    def json(self, name: str) -> list[str]:
        return ["--json", str(self.output / f"{name}.json")]


@dataclass(frozen=True)
class Stage:
    """One command. `command` gives None where this machine lacks what it needs, which `needs` says."""

    about: str
    command: Callable[[Options], list[str] | None]
    needs: str = ""
    seconds: int = 540


def build(_: Options) -> list[str]:
    return [*MODULE, "detkit", "doctor", "--build"]


def tests(options: Options) -> list[str]:
    more = ["--collect-only"] if options.device == "cpu" else []
    return [*MODULE, "pytest", "-m", "gpu", "-p", "no:cacheprovider", *more]


def suite(options: Options) -> list[str]:
    """The tests that need no GPU must pass where there is one."""
    what = ["tests/ops/test_sigmoid_focal.py", "-n", "0"] if options.tiny else ["-n", "auto", "--dist", "worksteal"]
    return [*MODULE, "pytest", *what, "-p", "no:cacheprovider"]


def sanitize(options: Options) -> list[str] | None:
    return [sys.executable, "tools/sanitize.py", "--gpu"] if options.device == "cuda" else None


def nms(options: Options) -> list[str]:
    size = ["--sizes", "100", "--seconds", "0.01"] if options.tiny else ["--seconds", "0.3"]
    return [*MODULE, "benchmarks.bench_nms", "--device", options.device, *size, *options.json("nms")]


def focal(dtype: str) -> Callable[[Options], list[str]]:
    def command(options: Options) -> list[str]:
        size = ["--sizes", "64", "--turns", "1"] if options.tiny else ["--sizes", "320", "640", "1024"]
        given = ["--device", options.device, "--dtype", dtype, *options.json(f"focal_{dtype}")]
        return [*MODULE, "benchmarks.bench_loss", *size, *given]

    return command


def step(precision: str) -> Callable[[Options], list[str]]:
    def command(options: Options) -> list[str]:
        sizes = ("--depths", "18", "50", "--sizes", "640", "800x1333", "--batch", "4", "--rounds", "10")
        given = ["--device", options.device, "--precision", precision, *options.json(f"step_{precision}")]
        return [*MODULE, "benchmarks.bench_step", *(TINY_STEP if options.tiny else sizes), *given]

    return command


def infer(precision: str) -> Callable[[Options], list[str]]:
    def command(options: Options) -> list[str]:
        size = ("--depths", "50", "--size", "800x1333", "--rounds", "20")
        given = ["--device", options.device, "--precision", precision, *options.json(f"infer_{precision}")]
        return [*MODULE, "benchmarks.bench_infer", *(TINY_INFER if options.tiny else size), *given]

    return command


def quickstart(*more: str, name: str) -> Callable[[Options], list[str]]:
    def command(options: Options) -> list[str]:
        output = str(options.output / "runs" / name)
        given = [f"train.device={options.device}", *(TINY_RUN if options.tiny else ())]
        return [*MODULE, "detkit", "train", "quickstart", "--output", output, "--overwrite", *more, *given]

    return command


def bccd(options: Options) -> list[str] | None:
    if options.bccd is None:
        return None
    output = str(options.output / "runs" / "bccd")
    given = [f"data.root={options.bccd}", f"train.device={options.device}", "data.loader.num_workers=4"]
    config = "retinanet/r18_fpn_small"
    return [*MODULE, "detkit", "train", config, "--output", output, "--overwrite", *given]


STAGES: dict[str, Stage] = {
    "build": Stage("compile both native libraries apart and load them", build),
    "tests": Stage("the tests marked gpu", tests),
    "nms": Stage("NMS beside torchvision's CUDA kernel", nms),
    "focal_float32": Stage("fused focal loss beside torchvision's and fvcore's", focal("float32")),
    "focal_bfloat16": Stage("the same in bfloat16", focal("bfloat16")),
    "step_fp32": Stage("training step beside torchvision's, R18 and R50", step("fp32")),
    "step_tf32": Stage("the same with TF32", step("tf32")),
    "step_bf16": Stage("the same under bf16 autocast", step("bf16")),
    "infer_fp32": Stage("inference beside torchvision's, R50 800x1333", infer("fp32")),
    "infer_tf32": Stage("the same with TF32", infer("tf32")),
    "infer_bf16": Stage("the same under bf16 autocast", infer("bf16")),
    "quickstart": Stage("train the quickstart", quickstart(name="quickstart")),
    "ddp": Stage("the same through one process of DistributedDataParallel", quickstart("--procs", "1", name="ddp")),
    "bccd": Stage("train a small RetinaNet on BCCD", bccd, needs="--bccd FOLDER"),
    "sanitize": Stage("compute-sanitizer over the tests marked gpu", sanitize, needs="a GPU"),
    "suite": Stage("the whole suite where a GPU is seen", suite),
}


def run(name: str, stage: Stage, options: Options) -> dict[str, Any]:
    """Runs one stage: its status, seconds, the last line it printed, and the figures it wrote."""
    command = stage.command(options)
    if command is None:
        return {"stage": name, "status": "skipped", "seconds": 0.0, "said": f"needs {stage.needs}"}
    log = options.output / f"{name}.log"
    begin = time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        try:
            done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, timeout=stage.seconds)
            status = "passed" if done.returncode == 0 else f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            status = f"over {stage.seconds} s"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    result = {"stage": name, "status": status, "seconds": round(time.perf_counter() - begin, 1), "said": said}
    figures = options.output / f"{name}.json"
    trained = options.output / "runs" / name / "result.json"
    for path in (figures, trained):
        if path.exists():
            result["figures"] = json.loads(path.read_text(encoding="utf-8"))
    return result


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for logs and figures; must be new or empty")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES), metavar="STAGE")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: shows that every command works")
    parser.add_argument("--bccd", type=Path, metavar="FOLDER", help="the BCCD data set, for the stage bccd")
    parser.add_argument("--list", action="store_true", help="list the stages and stop")
    args = parser.parse_args(words)
    if args.list:
        for name, stage in STAGES.items():
            print(f"{name:16} {stage.about}{f' (needs {stage.needs})' if stage.needs else ''}")
        raise SystemExit(0)
    if args.output is None:
        parser.error("--output FOLDER is needed")
    if args.output.exists() and any(args.output.iterdir()):
        parser.error(f"--output {args.output}: is not empty; name a new folder")
    if args.bccd is not None and not args.bccd.is_dir():
        parser.error(f"--bccd {args.bccd}: no such folder")
    return args


def main(words: list[str] | None = None) -> int:
    args = parse(words)
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; --device cpu --tiny rehearses the commands without one")
    args.output.mkdir(parents=True, exist_ok=True)
    options = Options(args.device, args.tiny, args.output.resolve(), args.bccd and args.bccd.resolve())
    print(machine_line(), flush=True)
    done = []
    for name in args.stages:
        done.append(run(name, STAGES[name], options))
        print("{stage:16} {status:14} {seconds:>7.1f} s   {said:.140}".format(**done[-1]), flush=True)
        record = {"date": date.today().isoformat(), "machine": machine_line(), "tiny": args.tiny, "stages": done}
        (args.output / "gpu_day.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(any(stage["status"] not in ("passed", "skipped") for stage in done))


if __name__ == "__main__":
    raise SystemExit(main())

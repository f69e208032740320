"""Trains every detector of the family alike, a few minutes each: same body, optimiser and images, one run of one seed.

    python -m benchmarks.bench_family shapes --jobs 2 --output benchmarks/results/family_shapes.json
    DETKIT_FRUIT=path/to/fruit python -m benchmarks.bench_family fruit --jobs 2 \\
        --weights mobilenet_v2-b0353104.pth --output benchmarks/results/family_fruit.json

Detectors keep their anchors, head, assigner, coder and losses; benchmarks/family has what is replaced. A run that is
finished is not repeated. Prints the table that docs/detectors.md shows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common import json_output, machine_line
from detkit.utils.outputs import write_marked_json

ROOT = Path(__file__).parents[1]
FPN = ["neck.channels=64"]
SSD = ["neck.channels=[256,256,128]", "neck.strides=[2,2,2]", "anchors.steps=null"]
QUICK_NORMS = ["neck.norm_momentum=0.1", "head.norm_momentum=0.1"]  # the published 0.01 is for 300 epochs
C5 = ["neck.channels=256", "neck.inner_channels=64", "backbone.out_features=[c5]"]
SSDLITE = ["backbone.out_features=[c4,c5]"]
FAMILY = {  # name: config, and what makes it as narrow as the others
    "retinanet": ("configs/retinanet/retinanet_mmdet.yaml", FPN),
    "ssd": ("configs/ssd/ssd300_mmdet.yaml", SSD),
    "ssdlite": ("configs/base/ssdlite.yaml", SSDLITE),
    "fcos_plain": ("configs/fcos/fcos_plain.yaml", FPN),
    "fcos": ("configs/fcos/fcos.yaml", FPN),
    "atss": ("configs/atss/atss.yaml", FPN),
    "paa": ("configs/paa/paa.yaml", FPN),
    "gfl": ("configs/gfl/gfl.yaml", FPN),
    "gflv2": ("configs/gfl/gflv2.yaml", FPN),
    "rtmdet": ("configs/rtmdet/rtmdet_tiny.yaml", FPN),
    "ddod": ("configs/ddod/ddod.yaml", FPN),
    "vfnet": ("configs/vfnet/vfnet.yaml", FPN),
    "tood": ("configs/tood/tood.yaml", FPN),
    "yolof": ("configs/yolof/yolof.yaml", C5),
    "yolox": ("configs/yolox/yolox_tiny.yaml", FPN),
    "efficientdet": ("configs/efficientdet/efficientdet_d0.yaml", [*FPN, *QUICK_NORMS]),
    "fsaf": ("configs/fsaf/fsaf.yaml", FPN),
    "foveabox": ("configs/foveabox/foveabox.yaml", FPN),
    "freeanchor": ("projects/freeanchor/r50_fpn.yaml", FPN),
    "autoassign": ("projects/autoassign/r50_fpn.yaml", FPN),
}
CLASSES = {"shapes": 7, "fruit": 3}


def command(name: str, data: str, weights: str | None) -> list[str]:
    config, narrow = FAMILY[name]
    words = ["train", config, "--overlay", f"benchmarks/family/{data}.yaml", *narrow]
    if name == "autoassign":
        words.append(f"losses.classification.classes={CLASSES[data]}")
    return [*words, *([f"backbone.weights={weights}"] if weights else [])]


def train(name: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """The result of one run, which is trained unless it is finished; None, after a message, if it fails."""
    output = args.runs / f"{args.data}-{name}"
    words = command(name, args.data, args.weights)
    if not (output / "result.json").is_file():
        threads = str(max(1, (os.cpu_count() or 1) // args.jobs))
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.with_suffix(".log").open("w", encoding="utf-8") as log:
            done = subprocess.run(
                [sys.executable, "-m", "detkit", *words, "--output", str(output), "--overwrite"],
                cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": threads}, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        if done.returncode:
            print(
                f"error: {name}: detkit {' '.join(words)} ended with {done.returncode}; see {log.name}", file=sys.stderr
            )
            return None
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    row = {key: result[key] for key in ("ap", "ap50", "ap75", "train_seconds") if key in result}
    print(f"{name:13} AP {row['ap']:.3f}  AP50 {row['ap50']:.3f}", file=sys.stderr, flush=True)
    public = command(name, args.data, args.weights and Path(args.weights).name)  # without this machine's folders
    return {"name": name, "command": " ".join(["detkit", *public]), **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(CLASSES))
    parser.add_argument("--only", nargs="+", choices=sorted(FAMILY), default=list(FAMILY), help="these detectors")
    parser.add_argument("--weights", help="file of ImageNet's MobileNetV2; else torchvision downloads it")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the cores")
    parser.add_argument("--runs", type=Path, default=Path("runs/family"), help="folder of the runs")
    parser.add_argument("--output", type=json_output, help="JSON file to write")
    args = parser.parse_args()
    args.runs = args.runs.absolute()
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = [row for row in pool.map(lambda name: train(name, args), args.only) if row is not None]
    print("| detector | AP | AP50 | AP75 |\n|---|---|---|---|")
    for row in rows:
        print("| {name} | {ap:.3f} | {ap50:.3f} | {ap75:.3f} |".format(**row))
    if args.output:
        record = {"date": date.today().isoformat(), "machine": machine_line(), "jobs": args.jobs, "rows": rows}
        write_marked_json(args.output, record)
    if len(rows) < len(args.only):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

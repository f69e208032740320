"""Condenses a finished run into one small JSON file that can be committed.

    python -m benchmarks.record_run runs/r18_fpn_small benchmarks/results/bccd_cpu.json

Keeps the figures of result.json without this machine's paths, and the validation figures against minutes of
training.
"""

from __future__ import annotations

import argparse
import json
import shlex
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common import json_output, machine_line
from detkit.runs.metrics import read_metrics
from detkit.utils.outputs import write_marked_json

CURVE = ("ap", "ap50", "ap75")


def curve(metrics: Path) -> list[dict[str, float]]:
    """Training minutes and figures of every evaluation in a metrics.jsonl."""
    points = []
    steps, evaluations = read_metrics(metrics)
    seconds = {entry["step"]: entry["time/train"] for entry in steps}
    for entry in evaluations:
        figures = {name: round(entry[f"val/{name}"], 4) for name in CURVE}
        points.append({"step": entry["step"], "minutes": round(seconds[entry["step"]] / 60, 2), **figures})
    return points


def public_command(command: str) -> str:
    """A recorded command line with the program's and the output's folders taken off."""
    words = shlex.split(command)
    return shlex.join(["detkit", *words[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of detkit train")
    parser.add_argument("output", type=json_output, help="JSON file to write")
    args = parser.parse_args()
    result: dict[str, Any] = json.loads((args.run / "result.json").read_text(encoding="utf-8"))
    record = {
        "date": date.today().isoformat(),
        "machine": machine_line(),
        "command": public_command(result.pop("command")),
        "ap_against_minutes": curve(args.run / "metrics.jsonl"),
        **{key: value for key, value in result.items() if key not in ("package", "machine", "seconds")},
    }
    write_marked_json(args.output, record)
    minutes = result["train_seconds"] / 60
    print(f"{args.output}: AP {result['ap']:.3f}, AP50 {result['ap50']:.3f} after {minutes:.1f} minutes")


if __name__ == "__main__":
    main()

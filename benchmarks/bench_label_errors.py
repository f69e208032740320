"""Precision of `detkit data check --with`: how many of the first suspects are label errors that were planted.

Plants errors in a training split in VOC layout: a fraction of its boxes is dropped or gets another class, half of each.
Then trains on the faulty labels, once on all images and cross-fitted (each half of the images is judged by a training
on the other half), ranks the suspects, and counts how many of the first ones are planted. Errors that the data set had
before count as wrong, so the precision is a lower bound.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import json_output, machine_line
from detkit.analyze.label_errors import Suspect, find_label_errors
from detkit.boxes import pairwise_iou
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.coco import CocoDataset
from detkit.data.datasets.voc import VocDataset
from detkit.predict.predictor import Predictor
from detkit.show.suspects import LOWEST_SCORE, detect
from detkit.structures import Detections
from detkit.utils.outputs import write_marked_json

FIRST = (20, 50, 100)
"""Numbers of suspects whose precision is printed."""


@dataclass(frozen=True)
class Planted:
    """An error that was planted: kind (dropped or swapped), image (its index), box (xyxy pixels)."""

    kind: str
    image: int
    box: tuple[float, float, float, float]


def plant(dataset: DetectionDataset, fraction: float, seed: int, file: Path) -> list[Planted]:
    """Writes the labels of a data set as COCO JSON with errors in a fraction of its boxes; returns the errors."""
    records, draw = dataset.records, random.Random(seed)
    rows = [(i, k) for i in range(len(records)) for k in range(len(records.annotation(i).labels))]
    chosen = draw.sample(rows, round(fraction * len(rows)))
    kinds = {row: "dropped" if n % 2 else "swapped" for n, row in enumerate(chosen)}
    planted: list[Planted] = []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(len(records)):
        height, width = dataset.image_size(i)
        images.append({"id": i + 1, "file_name": records.file_name(i), "width": width, "height": height})
        a = records.annotation(i)
        for k, (box, label) in enumerate(zip(a.boxes.tolist(), a.labels.tolist(), strict=True)):
            kind = kinds.get((i, k))
            if kind is not None:
                planted.append(Planted(kind, i, (box[0], box[1], box[2], box[3])))
            if kind == "swapped":
                label = draw.choice([other for other in range(len(dataset.classes)) if other != label])
            if kind != "dropped":
                annotations.append(entry(len(annotations) + 1, i + 1, label + 1, box, bool(a.is_ignore[k])))
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(dataset.classes.names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content), encoding="utf-8")
    return planted


def entry(number: int, image: int, category: int, box: list[float], is_crowd: bool) -> dict[str, Any]:
    """An annotation of a COCO file."""
    x1, y1, x2, y2 = box
    bbox = [x1, y1, x2 - x1, y2 - y1]
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3],
        "iscrowd": int(is_crowd),
    }  # fmt: skip


def halves(file: Path) -> list[Path]:
    """The COCO file as two, of the images with even and with odd ids."""
    content, parts = json.loads(file.read_text(encoding="utf-8")), []
    for half in (0, 1):
        part = {
            **content,
            "images": [entry for entry in content["images"] if entry["id"] % 2 == half],
            "annotations": [entry for entry in content["annotations"] if entry["image_id"] % 2 == half],
        }
        parts.append(file.with_name(f"{file.stem}_half{half}.json"))
        parts[-1].write_text(json.dumps(part), encoding="utf-8")
    return parts


def train(config: str, file: Path, images: Path, overrides: Sequence[str]) -> Path:
    """A run on the labels of a file, unless it is there already; returns its folder."""
    run = file.with_suffix("")
    if not (run / "result.json").is_file():
        dataset = f"data.train.dataset={{type: CocoDataset, annotations: {file}, images: {images}}}"
        words = ["train", config, dataset, *overrides, "--output", str(run), "--overwrite"]
        subprocess.run([sys.executable, "-m", "detkit", *words], check=True)
    return run


def detections(dataset: DetectionDataset, run: Path, images: Sequence[int]) -> dict[int, Detections]:
    """What a run detects in some images."""
    predictor = Predictor.from_checkpoint(run, overrides=[f"postprocess.score_threshold={LOWEST_SCORE}"])
    return dict(zip(images, detect(dataset, images, predictor), strict=True))


def hits(suspects: Sequence[Suspect], planted: Sequence[Planted]) -> list[bool]:
    """Whether each suspect is a planted error, of its kind and at its place; each error counts once."""
    kinds, left, result = {"missing": "dropped", "swapped": "swapped", "not found": "swapped"}, list(planted), []
    for suspect in suspects:
        matching = [p for p in left if p.image == suspect.image and p.kind == kinds[suspect.kind]]
        overlap = [float(pairwise_iou(torch.tensor([suspect.box]), torch.tensor([p.box]))) for p in matching]
        is_hit = max(overlap, default=0.0) >= 0.5
        if is_hit:
            left.remove(matching[overlap.index(max(overlap))])
        result.append(is_hit)
    return result


def measure(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Precisions with the errors of one seed."""
    file, images = Path(args.folder) / f"seed{seed}.json", Path(args.data) / "JPEGImages"
    planted = plant(VocDataset(root=args.data, split="train"), args.fraction, seed, file)
    dataset = CocoDataset(annotations=str(file), images=str(images))
    everything = range(len(dataset))
    full = detections(dataset, train(args.config, file, images, args.overrides), everything)
    parts = halves(file)
    crossed: dict[int, Detections] = {}
    for half, part in enumerate(parts):
        others = [i for i in everything if dataset.records.image_ids[i] % 2 != half]
        crossed |= detections(dataset, train(args.config, part, images, args.overrides), others)
    result: dict[str, Any] = {"seed": seed, "planted": len(planted)}
    for name, found in (("one run", full), ("cross-fitted", crossed)):
        right = hits(find_label_errors(dataset, found), planted)
        result[name] = {f"precision at {n}": sum(right[:n]) / n for n in FIRST}
        print(f"seed {seed}, {name}: {result[name]}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config with transforms and network for the data")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--data", required=True, help="folder in VOC layout with a split train")
    parser.add_argument("--folder", required=True, help="where faulty labels and runs go")
    parser.add_argument("--fraction", type=float, default=0.05, help="of the boxes that get an error (default 0.05)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--json", type=json_output, help="write the figures to this file")
    args = parser.parse_intermixed_args()
    print(machine_line())
    Path(args.folder).mkdir(parents=True, exist_ok=True)
    results = [measure(args, seed) for seed in args.seeds]
    if args.json is not None:
        write_marked_json(args.json, {"machine": machine_line(), "config": args.config, "results": results})


if __name__ == "__main__":
    main()

"""Images per second of one core: detkit's loading against a plain Pillow loop and torchvision.io, in one run.

Every row decodes the same JPEG files, resizes them alike and gives a uint8 tensor. The rows take turns, round by
round, and the median of the rounds counts, in CPU seconds of this process: on a busy machine, elapsed time
measures the neighbours. detkit's rows also read boxes, check sizes and seed the generators.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import json_output, machine_line
from detkit.utils.outputs import write_marked_json

Row = Callable[[int], Any]


def write_photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of 640x480 pixels with the detail of photographs: noise of several scales."""
    from PIL import Image

    paths = []
    for i in range(count):
        picture = Image.effect_noise((40 + i % 7, 30), 80).resize((640, 480), Image.Resampling.BICUBIC)
        fine = Image.effect_noise((640, 480), 25)
        merged = Image.merge("RGB", [Image.blend(picture, fine, share) for share in (0.1, 0.2, 0.3)])
        paths.append(folder / f"{i}.jpg")
        merged.save(paths[-1], quality=90)
    return paths


def write_annotations(folder: Path, paths: list[Path]) -> Path:
    """A COCO file with 5 boxes in every image."""
    from PIL import Image

    images, annotations = [], []
    for i, path in enumerate(paths):
        with Image.open(path) as opened:
            width, height = opened.size
        images.append({"id": i + 1, "file_name": path.name, "width": width, "height": height})
        annotations += [
            {"id": 5 * i + j, "image_id": i + 1, "category_id": 1, "bbox": [j, j, width // 2, height // 2]}
            for j in range(5)
        ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    path = folder / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def pillow_row(paths: list[Path], side: int) -> Row:
    from PIL import Image
    from torchvision.transforms.v2 import functional

    def row(i: int) -> Any:
        with Image.open(paths[i]) as opened:
            image = opened.convert("RGB")
        return functional.pil_to_tensor(
            image.resize(scaled(image.width, image.height, side), Image.Resampling.BILINEAR)
        )

    return row


def torchvision_row(paths: list[Path], side: int) -> Row:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    from torchvision.transforms.v2 import functional

    def row(i: int) -> Any:
        image = decode_jpeg(read_file(str(paths[i])), mode=ImageReadMode.RGB)
        width, height = scaled(image.shape[2], image.shape[1], side)
        return functional.resize(image, [height, width], antialias=True)

    return row


def scaled(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) with a shorter side of `side`."""
    factor = side / min(width, height)
    return max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5))


def detkit_row(annotations: Path, folder: str, side: int, **options: Any) -> Row:
    from detkit.data.datasets.coco import CocoDataset
    from detkit.data.datasets.images import ImageOptions
    from detkit.data.loader import Samples
    from detkit.registry import TRANSFORMS

    dataset = CocoDataset(annotations=str(annotations), images=folder)
    dataset.image_options = ImageOptions(**options)
    chain = [TRANSFORMS.build({"type": "ResizeShortestEdge", "short": side})]
    samples = Samples(dataset, chain, 0, cached=True)
    return lambda i: samples[0, i].image  # type: ignore[union-attr]


def measure(rows: dict[str, Row], count: int, rounds: int) -> dict[str, float]:
    """Images per CPU second: the median over rounds, after one that is not counted and fills the caches."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds + 1):
        for name, row in rows.items():
            start = time.process_time()
            for i in range(count):
                row(i)
            seconds[name].append(time.process_time() - start)
    return {name: count / statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of JPEG files (default: made up, 640x480)")
    parser.add_argument("--count", type=int, default=100, help="files that are read (default 100)")
    parser.add_argument("--sides", type=int, nargs="+", default=[320, 160], help="shorter sides (default 320 160)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=json_output, help="write the figures here, too")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    print(machine_line())
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        given = sorted(Path(args.images).resolve().glob("*.jpg"))[: args.count] if args.images else []
        paths = given or write_photographs(Path(folder), args.count)
        annotations = write_annotations(Path(folder), paths)
        for side in args.sides:
            rows = {
                "Pillow": pillow_row(paths, side),
                "torchvision.io": torchvision_row(paths, side),
                "detkit": detkit_row(annotations, str(paths[0].parent), side),
                "detkit, scaled_decoding": detkit_row(annotations, str(paths[0].parent), side, scaled_decoding=True),
                "detkit, cache: memory": detkit_row(annotations, str(paths[0].parent), side, cache="memory"),
            }
            results[side] = measure(rows, len(paths), args.rounds)
            print(f"shorter side {side}:")
            for name, rate in results[side].items():
                print(f"  {name:26s}{rate:7.0f} images/s per core  {rate / results[side]['Pillow']:5.2f} x Pillow")
    if args.json:
        write_marked_json(args.json, {"machine": machine_line(), "images": len(paths), "rates": results})


if __name__ == "__main__":
    main()

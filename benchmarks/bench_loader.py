"""Memory of loader workers, epoch by epoch, over a large annotation file.

Writes a COCO file of many small images and runs the training loader over it. Of every
worker: USS ("own": pages that no other process has), PSS (shared pages divided by their users) and RSS.
Annotations are flat arrays, so forked workers share their pages and own memory must not grow with the epochs.
Linux only: read from /proc/PID/smaps_rollup.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import json_output, machine_line
from detkit.utils.outputs import write_marked_json


def write_annotations(folder: Path, images: int, boxes: int = 7) -> Path:
    """A COCO file of `images` images with `boxes` boxes each; returns its path."""
    from PIL import Image

    (folder / "images").mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    Image.effect_noise((16, 16), 64).convert("RGB").save(picture, "png")
    for i in range(1, images + 1):
        (folder / f"images/{i}.png").write_bytes(picture.getvalue())
    content = {
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(80)],
        "images": [{"id": i, "file_name": f"{i}.png", "width": 16, "height": 16} for i in range(1, images + 1)],
        "annotations": [
            {"id": i * boxes + j, "image_id": i, "category_id": 1 + (i + j) % 80, "bbox": [j % 8, 2, 4, 5 + j % 6],
             "area": 20, "iscrowd": 0}
            for i in range(1, images + 1) for j in range(boxes)
        ],
    }  # fmt: skip
    path = folder / "annotations.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def memory_of(process: int) -> dict[str, float]:
    """MiB of a process: own (USS), pss and rss."""
    sizes: dict[str, float] = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) / 2**10
    return {
        "own_mib": round(sizes["Private_Clean"] + sizes["Private_Dirty"], 1),
        "pss_mib": round(sizes["Pss"], 1),
        "rss_mib": round(sizes["Rss"], 1),
    }


def measure(folder: Path, *, images: int, workers: int, epochs: int, batch: int = 64,
            steps: int | None = None) -> list[dict[str, Any]]:  # fmt: skip
    """Figures of all workers after their first batches ("epoch" 0) and after each epoch, or each `steps` batches."""
    from detkit.data.datasets.coco import CocoDataset
    from detkit.data.loader import LoaderOptions, build_train_loader
    from detkit.data.worker import worker_processes
    from detkit.registry import TRANSFORMS

    dataset = CocoDataset(annotations=str(write_annotations(folder, images)), images=str(folder / "images"))
    before = set(worker_processes())
    loader = build_train_loader(
        dataset, [TRANSFORMS.build({"type": "RandomHorizontalFlip"})],
        LoaderOptions(batch_size=batch, num_workers=workers, size_divisor=16), seed=0,
    )  # fmt: skip
    batches, rows, start = iter(loader), [], time.perf_counter()
    for _ in range(2 * workers):
        next(batches)
    steps = steps or -(-images // batch)
    for epoch in range(epochs + 1):
        for _ in range(steps if epoch else 0):
            next(batches)
        # Let the workers finish what they fetch ahead.
        time.sleep(1)
        each = [memory_of(process) for process in sorted(set(worker_processes()) - before)]
        rows.append(
            {"epoch": epoch, "seconds": round(time.perf_counter() - start, 1)}
            | {name: [figures[name] for figures in each] for name in each[0]}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=json_output, help="write the figures here, too")
    args = parser.parse_args()
    print(machine_line())
    print(f"{args.images} images with 7 boxes each, {args.workers} workers; MiB of each worker")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), images=args.images, workers=args.workers, epochs=args.epochs)
    for row in rows:
        print(f"epoch {row['epoch']} after {row['seconds']:6.1f} s  own {row['own_mib']}  pss {row['pss_mib']}")
    if args.json:
        write_marked_json(args.json, {"machine": machine_line(), "rows": rows})


if __name__ == "__main__":
    main()

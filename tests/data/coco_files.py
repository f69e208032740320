"""Small COCO files for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image


def write_coco(
    folder: Path, name: str, categories: dict[int, str], boxes: list[tuple[int, int]], images: int = 2, **more: Any
) -> dict[str, Any]:
    """A file of `categories` with a box of each (image id, category id); gives CocoDataset's arguments.

    more: `box` gives all boxes, as x, y, width, height; `size` the sides of the images.
    """
    width, height = more.get("size", (60, 40))
    for i in range(1, images + 1):
        if not (folder / f"{i}.png").exists():
            Image.new("RGB", (width, height)).save(folder / f"{i}.png")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": height, "width": width} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": n} for i, n in categories.items()],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "bbox": more.get("box", [k, 5, 10, 10])}
            for k, (i, c) in enumerate(boxes, start=1)
        ],
    }
    (folder / name).write_text(json.dumps(content))
    return {"annotations": str(folder / name), "images": str(folder)}

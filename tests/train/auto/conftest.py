"""A small set in the flat layout of LabelImg, and ImageNet weights of random numbers in a cache of its own."""

from pathlib import Path

import pytest
import torch
from PIL import Image


def add_image(
    folder: Path, name: str, boxes: list[tuple[str, int, int, int, int]], size: tuple[int, int] = (96, 64)
) -> None:
    """An image of (width, height) and the XML beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(folder / f"{name}.jpg")
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        f"</bndbox></object>"
        for label, x1, y1, x2, y2 in boxes
    )
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    text = f"<annotation><filename>{name}.jpg</filename>{stated}{objects}</annotation>"
    (folder / f"{name}.xml").write_text(text)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images to train on and two to test with."""
    root = tmp_path / "photos"
    for split, count in (("train", 4), ("test", 2)):
        for i in range(count):
            boxes = [("cat", 8, 8, 48, 48), ("dog", 50, 10, 90, 50 + i)]
            add_image(root / split, f"{split}{i}", boxes)
    return root


@pytest.fixture
def cached_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file named as torchvision's, in the folder that DETKIT_CACHE names."""
    from torchvision.models import mobilenet_v2

    file = tmp_path / "cache" / "mobilenet_v2-b0353104.pth"
    file.parent.mkdir()
    torch.save(mobilenet_v2().state_dict(), file)
    monkeypatch.setenv("DETKIT_CACHE", str(file.parent))
    return file

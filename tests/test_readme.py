"""The README, done word for word: files written, commands run in order, on tiny data and for two steps."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import detkit
from detkit.cli import main
from detkit.data.datasets.shapes import ShapesDataset
from detkit.registry import BACKBONES

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHORT = [
    "train.iterations=2",
    "schedule.warmup_iterations=0",
    "train.eval_every=0",
    "data.loader.batch_size=2",
    "data.loader.num_workers=0",
]
SHORT_SHAPES = ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
NOT_OURS = ("make ", "pip ")
WITH_DETKIT = {**os.environ, "PYTHONPATH": str(Path(detkit.__file__).parents[1])}


def write_voc(root: Any, dataset: Any) -> None:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for i in range(len(dataset)):
        image, a = dataset.load_image(i), dataset.records.annotation(i)
        image.save(root / f"JPEGImages/{i}.jpg")
        items = "".join(
            f"<object><name>{dataset.classes.names[k]}</name><bndbox><xmin>{b[0] + 1}</xmin><ymin>{b[1] + 1}</ymin>"
            f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
            for b, k in zip(a.boxes.tolist(), a.labels.tolist(), strict=True)
        )
        size = f"<size><width>{image.width}</width><height>{image.height}</height></size>"
        (root / f"Annotations/{i}.xml").write_text(f"<annotation>{size}{items}</annotation>")
    for split in ("train", "val"):
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{i}\n" for i in range(len(dataset))))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What the README takes for granted: a VOC folder, COCO files, photos. There is no checkout."""
    data = ShapesDataset(num_images=4, size=64)
    write_voc(tmp_path / "path/to/voc", data)
    for split in ("train", "val"):
        data.write_coco(tmp_path / split, tmp_path / f"{split}.json")
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        data.load_image(0).save(tmp_path / f"photos/{name}.jpg")
    monkeypatch.chdir(tmp_path)
    with BACKBONES.temporary():
        yield tmp_path


def commands(text: Any) -> Any:
    """Shell lines, continued ones joined, without comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.split("  #")[0].strip() for line in joined.splitlines() if line.strip()]


def run(command: Any) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "pytest":
        done = subprocess.run([sys.executable, "-m", *words], env=WITH_DETKIT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        return
    assert words[0] == "detkit", f"no test knows how to run {command!r}"
    if words[1] == "train":
        # A run's own config.yaml has the short settings already.
        own = words[2].startswith("runs/")
        on_shapes = words[2].endswith("shapes.yaml") or words[2] in ("quickstart", "projects/my_net/config.yaml")
        words += ([] if own else SHORT) + (SHORT_SHAPES if on_shapes else [])
    if words[1] == "anchors":
        words.append("data.train.dataset.num_images=40")
    if words[1] == "compare" and words[2] != "report":
        words = [w for w in words if w not in ("--seeds", "3")] + ["--seeds", "1", *SHORT, *SHORT_SHAPES]
    assert main(words[1:]) == 0, command


@pytest.mark.timeout(900)
def test_every_word_of_the_readme_works(folder: Any) -> None:
    ran = []
    for language, text in BLOCK.findall((ROOT / "README.md").read_text()):
        first = text.partition("\n")[0]
        if first.startswith("# ") and first.endswith((".py", ".yaml")):
            Path(first[2:]).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(text, "README.md", "exec"), {})
            ran.append(first)
        elif language == "sh":
            for command in commands(text):
                if not command.startswith(NOT_OURS):
                    run(command)
                    ran.append(command)
    assert len(ran) >= 12
    assert (folder / "runs/compare-shapes/report.html").exists()
    for run_folder in ("mine", "coco", "my_net", "gamma0", "smooth_l1"):
        assert (folder / "runs" / run_folder / "result.json").exists()

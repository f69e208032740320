"""README and guides, done word for word: files written, commands run in order, on tiny data and for two steps.

A block of `sh` or `python` runs, a block whose first line names a file is written to it, and `text` is only read by
tools/check_docs.py. The README and the first pages run in every suite, the others are slow.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest

import detkit
from detkit.cli import main
from detkit.data.datasets.shapes import ShapesDataset
from detkit.registry import REGISTRIES

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
IN_PYTHON = '"train.iterations": 2, ' + ", ".join(
    f'"{key}": {value}' for key, value in (word.split("=") for word in SHORT[1:] + SHORT_SHAPES)
)
NOT_OURS = ("make ", "pip ")
PROGRAMS = {"pytest": ["-m", "pytest"], "python": [], "torchrun": ["-m", "torch.distributed.run"]}
WITH_DETKIT = {**os.environ, "PYTHONPATH": str(Path(detkit.__file__).parents[1])}
AT_ONCE = ("README.md", "docs/index.md", "docs/own-data.md")
"""Pages that run in the fast suite."""
ELSEWHERE = {"docs/python.md": "tests/test_python_page.py", "docs/hooks.md": "tests/hooks/test_docs.py"}
"""Pages whose blocks another test runs, in one namespace or with data of its own."""
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("projects/*/README.md"))]
    if path.relative_to(ROOT).as_posix() not in ELSEWHERE
    and re.search(r"^```(sh|python)", path.read_text(encoding="utf-8"), re.MULTILINE)
]


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
    for split, rest in (("train", (0, 1)), ("val", (2,))):
        lines = [f"{i}\n" for i in range(len(dataset)) if i % 3 in rest]
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(lines))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What the pages take for granted: the checkout's configs and projects, a VOC folder, COCO files, photos."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "projects").mkdir()
    for name in ("autoassign", "freeanchor", "repvgg"):
        (tmp_path / "projects" / name).symlink_to(ROOT / "projects" / name)
    data = ShapesDataset(num_images=12, size=64)
    write_voc(tmp_path / "path/to/voc", data)
    splits: list[Literal["train", "val"]] = ["train", "val"]
    for split in splits:
        drawn = ShapesDataset(num_images=12, size=64, split=split)
        drawn.write_coco(tmp_path / split, tmp_path / f"{split}.json")
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        data.load_image(0).save(tmp_path / f"photos/{name}.jpg")
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        for registry in REGISTRIES:
            stack.enter_context(registry.temporary())
        yield tmp_path


def commands(text: Any) -> Any:
    """Shell lines, continued ones joined, without comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.split("  #")[0].strip() for line in joined.splitlines() if line.strip()]


def run(command: Any) -> None:
    words = shlex.split(command, comments=True)
    if "train" in words[:8]:
        words = shortened(words)
    if words[0] in PROGRAMS:
        line = [sys.executable, *PROGRAMS[words[0]], *words[1:]]
        done = subprocess.run(line, env=WITH_DETKIT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return
    assert words[0] == "detkit", f"no test knows how to run {command!r}"
    if words[1] == "compare" and words[2] != "report":
        words = [w for w in words if w not in ("--seeds", "3")] + ["--seeds", "1", *SHORT, *SHORT_SHAPES]
    assert main(words[1:]) == 0, command


def shortened(words: list[str]) -> list[str]:
    """A training of two steps; the config.yaml of a run has the short settings already."""
    line = " ".join(words)
    if "runs/coco/config.yaml" in line:
        return words
    own_data = any(name in line for name in ("voc", "coco", "own.yaml"))
    return words + SHORT + ([] if own_data else SHORT_SHAPES)


def run_page(page: str) -> list[str]:
    ran = []
    whole = (ROOT / page).read_text(encoding="utf-8")
    if "runs/first" in whole and not re.search(r'output[ =]"?runs/first', whole):
        run("detkit train quickstart --output runs/first")  # of docs/index.md
    for language, text in BLOCK.findall(whole):
        first = text.partition("\n")[0]
        if first.startswith("# ") and first.endswith((".py", ".yaml")):
            Path(first[2:]).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(re.sub(r'"train.iterations": \d+', IN_PYTHON, text), page, "exec"), {"__name__": page})
            ran.append(first)
        elif language == "sh":
            for command in commands(text):
                if not command.startswith(NOT_OURS):
                    run(command)
                    ran.append(command)
    return ran


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[] if page in AT_ONCE else pytest.mark.slow) for page in PAGES]
)
def test_every_word_of_a_page_works(page: str, folder: Path) -> None:
    ran = run_page(page)
    assert ran

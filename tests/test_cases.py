"""Small inputs on which detkit 0.1.0 did the wrong thing (../shared/cases), each run as its script does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "01": (["would overwrite .*, which is an input", r"\.png: OK"], ["FAILED"]),
    "02": (
        [
            "20 of 21 objects never reach the network: 20 by ResizeShortestEdge",
            "40 objects can't reach the network",
            "fractions",
        ],
        ["every image can be used"],
    ),
    "03": ([r"dog +0 +n/a", "every object can be used"], ["error"]),
    "04": (["fish 2, lobster trap 0", "dog 2"], ["error"]),
    "05": (["exit code 2", "# my notes", "mine", "events"], []),
    "06": ([r"a\.xml: not a VOC annotation: root <annotations>"], ["without objects", "IndexError"]),
    "07": (["listed under several ids", r"a\.png \(ids 1, 2\)", "same_file: merge"], ["every image"]),
    "08": ([r"b\.jfif: \d+ detections", r"c\.jpe: \d+", r"d\.avif: \d+", r"e\.HEIC", "every object can be used"], []),
    "09": (["exit code 0\n(?:.*\n)*?.*result.json", r"figures\.json"], ["exit code 1", "UnicodeEncodeError"]),
    "10": (
        [r"a\.png: \d+ detections", r"\\xdf", "exit code 0", r"images\.json", r"train\.txt", "(?i)latin|1252"],
        [],
    ),
    "11": (["cat 1, dog 1", "2 images, 2 objects"], ["error"]),
    "12": (["cat 2"], ["error"]),
    "14": (["0.400"], ["1.000 against"]),
    "15": (["'categories' is empty", "exit code 2"], ["Traceback"]),
    "18": (["cat 2"], ["error"]),
    "20": ([r"calls, \{\}"], ["KeyError", "RuntimeError"]),
    "21": (["annotation ids? (?:is|are) missing or used twice"], ["error"]),
    "24": (["2 images, 2 objects"], ["error"]),
    "26": (
        [
            "differs in upper and lower case",
            r"another Unicode form: decomposed \(NFD\) on disk",
            "that of the same name in the folder of the images is used",
            r"backslash\.json: .*cat 1",
        ],
        [],
    ),
    "27": (["182.2 megapixels", "max_megapixels=183"], ["decompression bomb"]),
    "28": ([r"out\.pt: .* 2 classes"], ["error", "Traceback"]),
}
"""Case -> (what its output must match, what it must not)."""


MOVED = {"detkit.detectors.predictor": "detkit.predict.predictor"}
"""Modules that a case imports from where they once were."""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_case_does_what_its_row_says(case: str, shared_dir: Path, tmp_path: Path) -> None:
    original = shared_dir / "cases" / f"case_{case}"
    if not original.is_dir():
        pytest.skip(f"{original} is not there")
    folder = Path(shutil.copytree(original, tmp_path / "case"))
    for script in folder.rglob("*.py"):
        text = script.read_text(encoding="utf-8")
        for old, new in MOVED.items():
            text = text.replace(old, new)
        script.write_text(text, encoding="utf-8")
    environment = os.environ | {
        "DETKIT": f"{sys.executable} -m detkit",
        "PY": sys.executable,
        "BASE": str(ROOT / "configs/quickstart/shapes.yaml"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", str(folder / "run.sh")], env=environment, capture_output=True, encoding="utf-8", errors="replace"
    )
    said = done.stdout + done.stderr
    needed, forbidden = CASES[case]
    for pattern in needed:
        assert re.search(pattern, said), f"{pattern!r} is not in:\n{said}"
    for pattern in forbidden:
        assert not re.search(pattern, said), f"{pattern!r} is in:\n{said}"

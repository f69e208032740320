"""`detkit data check --with RUN` lists and draws the likeliest label errors."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from detkit.analyze.label_errors import Suspect
from detkit.cli import main
from detkit.data.datasets.coco import CocoDataset
from detkit.data.doctor.subject import Subject
from detkit.show.suspects import case


def test_a_box_number_counts_unusable_boxes_of_the_file(folder: Any) -> None:
    folder.write("train", [[[8, 8, 0, 30], [8, 8, 40, 30]]])
    dataset = CocoDataset(annotations=str(folder.root / "train.json"), images=str(folder.root / "train"))
    (split,) = Subject.of("x", {"train": dataset}, cached=False)
    found = case(split, Suspect("not found", 0, (8, 8, 48, 38), 0, 0, None, 0.0, 0.5))
    assert (found.box, found.text) == (2, "cat that the detector does not find [8, 8, 48, 38], weight 0.50")
    assert [mark.suspect for mark in found.pictures[0].marks] == [False, True]
    added = case(split, Suspect("missing", 0, (1, 2, 3, 4), None, None, 0, 0.8, 0.9))
    assert (added.box, added.text) == (0, "cat without a box (score 0.80) [1, 2, 3, 4], weight 0.90")
    assert added.pictures[0].marks[-1].box == (1, 2, 3, 4)


def test_the_command(folder: Any, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, page = tmp_path / "c.json", tmp_path / "c.html"
    words = ["data", "check", str(folder.config), "--with", str(trained), "--suspects", "2"]
    main([*words, "--json", str(figures), "--html", str(page)])
    assert "suspected label errors: " in capsys.readouterr().out
    found = [f for f in json.loads(figures.read_text())["findings"] if f["kind"].startswith("label-")]
    assert Counter(c["split"] for f in found for c in f["cases"]) == {"train": 2, "val": 2}
    sections = page.read_text().split('<section id="label-')[1:]
    assert len(sections) == len(found)
    assert sum(section.count("<img ") for section in sections) == 4
    assert all("&lt;b&gt;cat" in section and "<b>" not in section for section in sections)
    assert main([*words[:-1], "0"]) == 2
    assert "--suspects: 0 must be at least 1" in capsys.readouterr().err

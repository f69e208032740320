"""Two formats of the same images in one folder are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detkit.data.doctor.checkup import examine
from detkit.data.doctor.findings import describe
from detkit.data.doctor.subject import Subject
from detkit.data.reading import read_source
from tests.data.doctor.planted import HEIGHT, WIDTH, noise

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
HEAD = "filename,width,height,class,xmin,ymin,xmax,ymax"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images with XML beside them, and CSV files of the TensorFlow tutorials that agree with them."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        rows = [HEAD]
        for i in range(3):
            name, box = f"{split}{i}.jpg", ("king", 5 + i, 6, 40, 50)
            noise(random).save(tmp_path / split / name)
            size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
            xml = f"<annotation><filename>{name}</filename>{size}{OBJECT.format(*box)}</annotation>"
            (tmp_path / split / f"{split}{i}.xml").write_text(xml)
            rows.append(f"{name},{WIDTH},{HEIGHT},{','.join(map(str, box))}")
        (tmp_path / f"{split}_labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def disagreements(folder: Path) -> list[str]:
    subject = Subject.of(str(folder), read_source(folder).choose([]).splits)
    cases = {kind.name: cases for kind, cases in examine(subject, folder).cases.items()}
    return [describe(case) for case in cases.get("formats-disagree", [])]


def test_formats_that_agree(folder: Path) -> None:
    assert disagreements(folder) == []


def test_another_class_another_box_and_a_missing_row(folder: Path) -> None:
    table = folder / "train_labels.csv"
    lines = table.read_text().splitlines()
    lines[1] = lines[1].replace("king", "queen")
    lines[2] = lines[2].replace(",40,50", ",48,50")
    table.write_text("\n".join(lines[:3]) + "\n")
    found = disagreements(folder)
    assert len(found) == 3
    assert any("train0.jpg" in text and "queen" in text and "king" in text for text in found)
    assert any("train1.jpg" in text and "up to 8 pixels away" in text for text in found)
    assert any("train2.jpg" in text for text in found)

"""Names in scripts that the usual font lacks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.structures import ClassMap, Detections
from detkit.visualize import draw_detections, fonts, picture_grid
from tests.visualize.test_draw import GREY

CAT, DOG, BIRD = "猫", "狗", "𓅜"
FOUND = Detections(torch.tensor([[40.0, 50, 140, 120]]), torch.tensor([0.9]), torch.tensor([0]))


def write_font(path: Path, characters: str) -> str:
    """A font with a square for each character."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pen_class = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen
    names = [".notdef", *(f"u{ord(c):x}" for c in characters)]
    pen = pen_class(None)
    for k, point in enumerate(((100, 0), (100, 700), (800, 700), (800, 0))):
        (pen.lineTo if k else pen.moveTo)(point)
    pen.closePath()
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"u{ord(c):x}" for c in characters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(str(path))
    return str(path)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No font is remembered from another test, or by one of another room."""
    caches = (fonts.find_font, fonts.warn_once, fonts.font_file)
    for function in caches:
        function.cache_clear()
    yield
    for function in caches:
        function.cache_clear()


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fonts of the system: one of another script, one that is broken, and one with Latin and CJK letters."""
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    files = [
        write_font(tmp_path / "bird.ttf", BIRD),
        str(broken),
        write_font(tmp_path / "cjk.ttf", CAT + "犬0123456789."),
    ]
    monkeypatch.setattr(fonts, "system_fonts", lambda: tuple(files))
    return files


def drawn(name: str) -> np.ndarray:
    return np.asarray(draw_detections(GREY, FOUND, ClassMap((name, "dog"), (1, 2))))


def test_a_font_that_has_the_letters_is_found(system: list[str], caplog: pytest.LogCaptureFixture) -> None:
    assert fonts.find_font(20, f"{CAT} 0.90").path == system[2]
    assert fonts.find_font(20, BIRD).path == system[0]
    assert fonts.find_font(20, "größe кот γάτα") == fonts.find_font(20, "größe кот γάτα")
    assert Path(str(fonts.find_font(20, "größe кот γάτα").path)).name == "DejaVuSans.ttf"
    assert (drawn(CAT) != drawn("class 0")).any()
    assert not caplog.records


def test_a_name_that_no_font_has_is_drawn_as_a_number_and_said_once(
    system: list[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.WARNING, "detkit"):
        assert (drawn(DOG) == drawn("class 0")).all()
        drawn(DOG)
        drawn("鳥")
        picture_grid([(GREY, FOUND, FOUND)], ClassMap((DOG, "鳥"), (1, 2)), tmp_path / "grid.png")  # type: ignore[list-item]
    (record,) = caplog.records
    assert DOG in record.getMessage()
    assert "drawn by their number" in record.getMessage()


def test_marks_joiners_and_spaces_need_no_glyph() -> None:
    assert fonts.letters("a\u0301 \u200d\ufe0f\u00a0b") == {"a", "b"}


def test_latin_names_look_for_no_font_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "system_fonts", lambda: pytest.fail("the system's fonts were asked for"))
    drawn("Straßenschild")
    assert Image.fromarray(drawn("cat")).size == (240, 200)


def test_the_fonts_of_the_system_are_files() -> None:
    assert all(Path(file).is_file() for file in fonts.system_fonts())

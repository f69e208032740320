"""The report as its reader meets it, the page in a real browser."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detkit.compare.report import write_reports
from detkit.compare.report.html import to_html
from detkit.compare.report.latex import to_latex
from detkit.compare.report.markdown import to_markdown
from detkit.compare.report.words import conclusions, finite, points, probability, signed
from detkit.utils.outputs import LEDGER
from tests.compare.fake_results import results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_reports(results(), folder)
    return folder


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("dialog", lambda dialog: (page.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "request", lambda request: page.said.append(request.url) if request.url.startswith(("http", "ws")) else None
    )
    page.goto(f"file://{folder}/report.html")
    yield page
    page.close()


def column(page: Any, number: int) -> list[str]:
    return [cell.inner_text() for cell in page.query_selector_all(f"#variants tbody tr td:nth-child({number})")]


def test_the_page_says_nothing_on_the_console_and_asks_no_one(page: Any) -> None:
    assert page.title() == "Class losses on shapes & <b>bold</b> @json@"
    assert len(page.query_selector_all("figure svg")) >= 12
    assert page.said == []


def test_a_variant_named_like_a_script_is_text(page: Any) -> None:
    assert "<script>alert(1)</script>" in column(page, 1)
    assert "<script>alert(1)</script>" in page.inner_text("ul.verdicts")
    assert page.said == []


def test_a_heading_sorts_and_says_so_with_the_keyboard_too(page: Any) -> None:
    head = page.locator("#variants th", has_text="AP").nth(0)
    before = column(page, 2)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 2) == sorted(before, reverse=True)
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 2) == sorted(before)


def test_what_is_missing_sorts_behind(page: Any) -> None:
    head = page.locator("#variants th", has_text="vs baseline")
    for _ in range(2):
        head.locator("button").click()
        assert [text.startswith("\u2212") for text in column(page, 4)] == [True, True, False, False, False]


def test_a_variant_can_be_switched_off_everywhere(page: Any) -> None:
    drawn = len(page.query_selector_all("#curves path[stroke='#d1600f']"))
    assert drawn == 3  # no AP50 was recorded
    page.locator("#controls label", has_text="bce").first.locator("input").uncheck()
    assert "bce" not in column(page, 1)
    assert len(page.query_selector_all("#curves path[stroke='#d1600f']")) == 0
    assert len(page.query_selector_all("#samples figure")) == 5
    page.locator("#controls label", has_text="bce").first.locator("input").check()
    assert len(page.query_selector_all("#curves path[stroke='#d1600f']")) == drawn


def test_the_metric_of_the_differences_can_be_chosen(page: Any) -> None:
    assert "AP, difference to focal in points" in page.text_content("#forest")
    page.select_option("#metric", "per_class:star")
    assert "AP of star, difference to focal in points" in page.text_content("#forest")


def test_the_pointer_shows_values(page: Any) -> None:
    page.locator("#curves svg").first.hover()
    tip = page.locator("#curves .tip").first
    assert tip.is_visible()
    assert re.search(r"focal: \d+(\.\d+)? \(", tip.inner_text())


@pytest.mark.parametrize("width", [320, 400, 768])
def test_a_narrow_screen_needs_no_sideways_scrolling(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "document.querySelector('.scroll').scrollWidth > document.querySelector('.scroll').clientWidth"
    )


def test_print_opens_what_is_folded_and_drops_the_controls(page: Any) -> None:
    assert page.pdf().startswith(b"%PDF")
    assert page.evaluate("[...document.querySelectorAll('details')].every((d) => d.open)")
    page.emulate_media(media="print")
    assert not page.locator("#controls").is_visible()
    assert page.locator("#variants").is_visible()


def test_results_json_holds_null_for_what_is_not_finite(tmp_path: Path) -> None:
    content = results()
    content["variants"][0]["cells"][0]["curve"]["loss"][3] = math.nan
    content["variants"][0]["cells"][0]["cost"]["seconds_per_step"] = math.inf
    written = write_reports(content, tmp_path)
    assert [path.name for path in written] == ["results.json", "report.html", "report.md", "table.tex"]
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {LEDGER, *(path.name for path in written)}
    read = json.loads(written[0].read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["variants"][0]["cells"][0]["curve"]["loss"][3] is None
    assert "NaN" not in written[1].read_text()


def test_no_value_can_end_the_script_or_fill_a_slot() -> None:
    text = to_html(finite(results()))
    data = re.search(r'<script type="application/json" id="results">(.*?)</script>', text, re.S)
    assert data is not None
    assert json.loads(data[1])["variants"][4]["name"] == "<script>alert(1)</script>"
    assert text.count("<script>") == 1
    assert "&lt;b&gt;bold&lt;/b&gt; @json@" in text


def test_the_conclusions_in_words() -> None:
    found = conclusions(results())
    assert [kind for kind, _ in found] == ["withheld", "worse", "even", "diverged", "withheld"]
    assert (
        found[1][1]
        == "bce is worse than focal: AP \u22122.1 points (95 % interval \u22123.1 to \u22121.2, p 0.001 after Holm)"
    )
    assert "this budget would have shown 1.3 points" in found[2][1]


def test_markdown_has_a_row_a_variant_and_escapes() -> None:
    text = to_markdown(results())
    rows = [line for line in text.splitlines() if line.startswith("| bce\\_mining |")]
    assert len(rows) == 2  # no diagnosis was made of it
    assert "<script>" not in text
    assert "| ghm | 24.5 | 24.8 | diverged |" in text


def test_latex_escapes_and_marks_what_was_shown() -> None:
    text = to_latex(results())
    assert r"bce\_mining" in text
    assert r"\textbf{$-2.1$}" in text
    assert r"\textbf{$-4.2$}" not in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {7}


def test_figures() -> None:
    assert (points(0.3612), points(None)) == ("36.1", "n/a")
    assert (signed(0.0124), signed(-0.0124)) == ("+1.2", "\u22121.2")
    assert (probability(0.0004), probability(0.0312), probability(None)) == ("< 0.001", "0.031", "n/a")

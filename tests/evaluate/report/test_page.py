"""The report as its reader meets it: the page in a real browser, and the Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detkit.evaluate.report import check_report_folder, write_report
from detkit.evaluate.report.html import to_html
from detkit.evaluate.report.markdown import to_markdown
from detkit.utils.types import Tree
from tests.evaluate.report.made import Found, Made
from tests.refusals import Refuses

A, B = (4.0, 4.0, 34.0, 34.0), (50.0, 10.0, 80.0, 40.0)
NAMES = ("<script>alert(1)</script>", "リンゴ @json@", "кот|*_")


def some(root: Path, names: tuple[str, ...] = NAMES) -> tuple[Made, list[Found]]:
    """Four images with objects of the first two and the last class; one class is taken for another."""
    last = len(names) - 1
    images = [[(A, 0), (B, min(1, last))], [(A, last)], [(B, 0)], []]
    made = Made(root, names, images, [{"city": "<b>東京</b>"}, {"city": "Köln"}, {"city": "Köln"}, {}])
    found: list[Found] = [
        [(A, 0.9, 0), (B, 0.8, 0)], [(A, 0.7, last), (B, 0.65, min(1, last))], [(A, 0.6, 0)], [(B, 0.3, last)],
    ]  # fmt: skip
    return made, found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Tree]]:
    """Reports of odd cases: name -> folder and content."""
    root = tmp_path_factory.mktemp("pages")
    made, found = some(root / "odd")
    one, found_of_one = some(root / "one", ("cat",))
    many, found_of_many = some(root / "many", tuple(f"a class with a long name, number {k}" for k in range(80)))
    contents = {
        "odd": made.find(found, ["city", "objects"], voc=True),
        "one": one.find(found_of_one),
        "many": many.find(found_of_many),
        "nothing found": made.find([[], [], [], []]),
        "no objects": Made(root / "empty", ("cat",), [[], []]).find([[(A, 0.9, 0)], []]),
    }
    for name, content in contents.items():
        write_report(content, root / "out" / name)
    return {name: (root / "out" / name, content) for name, content in contents.items()}


@pytest.fixture
def visit(browser: Any, pages: dict[str, tuple[Path, Tree]]) -> Iterator[Any]:
    opened = []

    def go(name: str, width: int = 1280) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: (page.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith(("file", "data")) else page.said.append(r.url))
        page.goto((pages[name][0] / "report.html").as_uri())
        opened.append(page)
        return page

    yield go
    for page in opened:
        page.close()


CASES = ["odd", "one", "many", "nothing found", "no objects"]


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", CASES)
def test_a_page_fits_its_screen_and_says_nothing(visit: Any, name: str, width: int) -> None:
    page = visit(name, width)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert len(page.query_selector_all("#figures figure")) == 5
    assert page.said == []


def test_names_are_text(visit: Any) -> None:
    page = visit("odd")
    cells = [cell.inner_text() for cell in page.query_selector_all("#classes td.name")]
    assert cells == ["all classes", *NAMES]
    assert "weakest: リンゴ @json@ with" in page.inner_text("ul.verdicts")
    assert "<b>東京</b>" in page.inner_text("#slices")
    assert page.query_selector("#confusion").text_content().count("リンゴ @json@") >= 2
    assert page.said == []


def test_figures_are_those_of_the_content(visit: Any, pages: dict[str, tuple[Path, Tree]]) -> None:
    page, content = visit("odd"), pages["odd"][1]
    head = [cell.inner_text() for cell in page.query_selector_all("#classes th")]
    row = dict(
        zip(
            head,
            (cell.inner_text() for cell in page.query_selector_all("#classes tbody tr:first-child td")),
            strict=True,
        )
    )
    figures = content["rows"][0]["metrics"]
    assert row["AP"] == f"{100 * figures['ap']:.1f}"
    assert row["VOC07"] == f"{100 * figures['ap_voc07']:.1f}"
    assert row["objects"] == "4"
    assert len(page.query_selector_all("#confusion rect.cell")) == 1 + len(content["confusion"]["counts"])
    assert len(page.query_selector_all("#worst image")) == 2 * len(content["worst"]) > 0
    assert len(page.query_selector_all("#confident image")) == 2 * len(content["confident"]) > 0


def test_a_heading_sorts_the_classes_and_leaves_all_of_them_first(visit: Any) -> None:
    page = visit("odd")
    head = page.locator("#classes th", has_text="AP").first

    def values() -> list[str]:
        return [cell.inner_text() for cell in page.query_selector_all("#classes tbody td:nth-child(3)")]

    before = values()
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == [before[0], *sorted(before[1:], key=float, reverse=True)]
    page.keyboard.press("Enter")
    assert values() == [before[0], *sorted(before[1:], key=float)]


def test_a_class_can_be_chosen(visit: Any) -> None:
    page = visit("many")
    assert len(page.query_selector_all("#curves figure")) == 5
    page.select_option("#class", "80")
    assert len(page.query_selector_all("#curves figure")) == 4
    assert "number 79" in page.inner_text("#curves .legend >> nth=0")
    assert page.said == []


def test_it_prints(visit: Any) -> None:
    page = visit("odd")
    assert page.pdf().startswith(b"%PDF")
    assert page.evaluate("[...document.querySelectorAll('details')].every((d) => d.open)")
    page.emulate_media(media="print")
    assert not page.locator(".picker").is_visible()
    assert page.locator("#classes").is_visible()


def test_sections_without_content_are_left_out(visit: Any) -> None:
    page = visit("no objects")
    assert page.query_selector("#slices-section") is None
    assert page.query_selector("#worst-section") is not None  # a false alarm is a mistake
    page = visit("nothing found")
    assert page.query_selector("#confident-section") is None


def test_no_value_can_end_the_script_or_fill_a_slot(pages: dict[str, tuple[Path, Tree]]) -> None:
    content = pages["odd"][1]
    text = to_html(content)
    data = re.search(r'<script type="application/json" id="results">(.*?)</script>', text, re.S)
    assert data is not None
    assert json.loads(data[1]) == content
    assert text.count("<script>") == 1
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org/2000/svg", "", text)


def test_markdown_escapes_and_has_every_part(pages: dict[str, tuple[Path, Tree]]) -> None:
    text = (pages["odd"][0] / "report.md").read_text(encoding="utf-8")
    assert text == to_markdown(pages["odd"][1])
    assert "<script>" not in text
    assert "| кот\\|\\*\\_ | 1 |" in text
    heads = re.findall("^## (.*)$", text, re.M)
    assert heads == [
        "Average precision", "By IoU", "By size", "Thresholds", "Confusion", "Errors", "Calibration",
        "Counts of an image", "By city", "By objects", "Pictures", "Method",
    ]  # fmt: skip
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):  # every row of a table has its cells
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


@pytest.mark.parametrize("name", ["many", "nothing found", "no objects"])
def test_markdown_of_odd_cases(pages: dict[str, tuple[Path, Tree]], name: str) -> None:
    text = to_markdown(pages[name][1])
    assert "None" not in text
    assert "nan" not in text.replace("banana", "")


def test_pictures_stop_at_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, found = some(tmp_path)
    monkeypatch.setattr("detkit.evaluate.report.pictures.MOST_BYTES", 1)
    content = made.find(found)
    assert len(content["worst"]) == 1
    assert content["confident"] == []


def test_only_its_own_files_are_replaced(tmp_path: Path, pages: dict[str, tuple[Path, Tree]], refuses: Refuses) -> None:
    content = pages["one"][1]
    for _ in range(2):
        check_report_folder("--report", tmp_path / "out")
        write_report(content, tmp_path / "out")
    (tmp_path / "out" / "report.md").write_text("mine")
    with refuses(ValueError):
        check_report_folder("--report", tmp_path / "out")

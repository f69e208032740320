"""The documentation site: links that follow the pages, and a build that loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import site

LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']?(https?:)?//""")


def moved(link: str, source: str, page: str) -> str:
    return site.LINK.sub(lambda match: site.moved(match, source, page), link)


@pytest.mark.parametrize(
    ("link", "source", "page", "expected"),
    [
        ("[a](exact.md#x)", "docs/data.md", "data.md", "[a](exact.md#x)"),
        ("[a](../EXPERIMENTS.md)", "docs/style.md", "style.md", "[a](project/experiments.md)"),
        ("[a](docs/data.md)", "ARCHITECTURE.md", "project/architecture.md", "[a](../data.md)"),
        ("[a](CHANGELOG.md)", "CONTRIBUTING.md", "project/contributing.md", "[a](changelog.md)"),
        ("[a](../data.md)", "docs/notebooks/1_quickstart.ipynb", "notebooks/1_quickstart.md", "[a](../data.md)"),
        ("[a](notebooks/1_quickstart.ipynb)", "docs/index.md", "index.md", "[a](notebooks/1_quickstart.md)"),
        ("[the *file*](../LICENSE)", "docs/data.md", "data.md", "the *file*"),
        ("[a](https://example.org)", "docs/data.md", "data.md", "[a](https://example.org)"),
        ("[a](#here)", "docs/data.md", "data.md", "[a](#here)"),
    ],
)
def test_links_lead_to_pages_of_the_site(link: str, source: str, page: str, expected: str) -> None:
    assert moved(link, source, page) == expected


def test_a_folder_in_the_navigation_becomes_its_pages() -> None:
    nav = site.expanded([{"Start": "index.md"}, {"Notebooks": "notebooks/"}, {"More": ["project/", "style.md"]}])
    assert nav[0] == {"Start": "index.md"}
    assert nav[1]["Notebooks"] == [
        "notebooks/1_quickstart.md",
        "notebooks/2_own_parts.md",
        "notebooks/3_compare_losses.md",
    ]
    assert nav[2]["More"] == [*sorted(site.OUTSIDE), "style.md"]


def test_a_notebook_page_has_its_cells_and_the_file() -> None:
    text = site.content("docs/notebooks/1_quickstart.ipynb")
    assert text.startswith("# Quickstart")
    assert '<a href="1_quickstart.ipynb" download>' in text
    assert "```python\nfrom IPython.display import Image" in text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=site.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 25
    assert [page.name for page in pages if LOADED.search(page.read_text(encoding="utf-8"))] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css"))
    assert not re.search(r"url\(['\"]?(https?:)?//", styles)

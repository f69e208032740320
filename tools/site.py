"""Hooks of mkdocs.yml: pages that live outside docs/, notebooks, folders in the navigation, links between them.

`make docs` builds the site. Pages of the repository's root are shown as they are, a notebook as its cells, and a
link to a file that the site does not have becomes its name.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "project/changelog.md": "CHANGELOG.md",
    "project/architecture.md": "ARCHITECTURE.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/experiments.md": "EXPERIMENTS.md",
    "project/autoassign.md": "projects/autoassign/README.md",
    "project/freeanchor.md": "projects/freeanchor/README.md",
    "project/repvgg.md": "projects/repvgg/README.md",
}
"""Page of the site: file of the repository."""
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCED = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def sources() -> dict[str, str]:
    """Page of the site -> path in the repository, of those that mkdocs does not find in docs/."""
    notebooks = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
    return OUTSIDE | {f"notebooks/{path.stem}.md": f"docs/notebooks/{path.name}" for path in notebooks}


def notebook_page(path: Path) -> str:
    """The cells of a notebook as Markdown, with a link to the file."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    shown = [
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell, text in zip(cells, texts, strict=True)
    ]
    title, *rest = shown
    return "\n\n".join([title, f'<a href="{path.name}" download>Download the notebook</a>', *rest]) + "\n"


def content(source: str) -> str:
    """The Markdown of a page that is not in docs/."""
    path = ROOT / source
    return notebook_page(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replaces the folders in the navigation by their pages."""
    config.nav = [expanded(entry) for entry in config.nav or []]
    return config


def expanded(entry: Any) -> Any:
    """A navigation entry with its folders replaced, at any depth."""
    if isinstance(entry, dict):
        return {title: expanded(value) for title, value in entry.items()}
    if isinstance(entry, list):
        return [page for value in entry for page in (pages_of(value) if is_folder(value) else [expanded(value)])]
    return pages_of(entry) if is_folder(entry) else entry


def is_folder(entry: Any) -> bool:
    return isinstance(entry, str) and entry.endswith("/")


def pages_of(folder: str) -> list[str]:
    """The pages of a folder of docs/, its index first."""
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs" / folder).glob("*.md")}
    pages = written | {page for page in sources() if page.startswith(folder)}
    return sorted(pages, key=lambda page: (not page.endswith("/index.md"), page))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not in docs/."""
    from mkdocs.structure.files import File

    for page, source in sources().items():
        files.append(File.generated(config, page, content=content(source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lets relative links lead to pages of the site; a link that leads out of it becomes its text."""
    site = page.file.src_uri
    source = sources().get(site, f"docs/{site}")
    parts = FENCED.split(markdown)
    return "".join(text if i % 2 else LINK.sub(lambda m: moved(m, source, site), text) for i, text in enumerate(parts))


def moved(link: re.Match[str], source: str, site: str) -> str:
    """A link of a file of the repository, as its page of the site needs it."""
    text, target = link.groups()
    if re.match(r"[a-z]+:|#", target):
        return link.group()
    name, hash_, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
    pages = {where: page for page, where in sources().items()}
    found = pages.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if found is None:
        return text
    return f"[{text}]({posixpath.relpath(found, posixpath.dirname(site) or '.')}{hash_}{anchor})"

"""The pages of docs/reference: one per registry, one for the options, and an index of the keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from detkit import registry
from detkit.config.explain.find import find, root_topic
from detkit.config.explain.markdown import arguments_table, linked, markdown_of, rows_table
from detkit.config.explain.settings import Settings
from detkit.config.explain.topics import nodes, options_topic, part_topic, registry_topic
from detkit.config.schema import Options
from detkit.registry.source import Entry
from detkit.utils.outputs import check_can_write, foreign_files_error, write_text

MARK = "<!-- `detkit explain --all --output FOLDER` writes this page from the docstrings and replaces it. -->"
INDEX, OPTIONS = "index.md", "options.md"


def is_built_in(entry: Entry) -> bool:
    """Whether a part is one of detkit's own."""
    return entry.cls.__module__.startswith("detkit.")


def reference_pages(include: Callable[[Entry], bool] = lambda entry: True) -> dict[str, str]:
    """File name -> text of every page. include: which parts are in it."""
    pages = {INDEX: _index(), OPTIONS: _options()}
    for parts in registry.REGISTRIES:
        names = [name for name in parts.names() if include(parts.entry(name))]
        pages[f"{parts.name}.md"] = "\n".join(_registry_page(parts, names))
    return {name: f"{MARK}\n\n{text.rstrip()}\n" for name, text in pages.items()}


def write_reference(folder: Path) -> list[Path]:
    """Writes the pages; ForeignFileError if a file of that name is not such a page."""
    pages = {folder / name: text for name, text in reference_pages().items()}
    check_can_write("--output", folder)
    if foreign := [path for path in pages if os.path.lexists(path) and not _is_page(path)]:
        raise foreign_files_error("--output", foreign)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in pages.items():
        write_text(path, text)
    return list(pages)


def _is_page(path: Path) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(MARK)


def address(parts: str, name: str) -> str:
    """Of a part, of a registry (without a name), or of the options at a key (without a registry)."""
    anchor = name.lower().replace(".", "")
    return (f"{parts}.md" if parts else OPTIONS) + (f"#{anchor}" if anchor else "")


def _index() -> str:
    root = root_topic(Settings())
    topics = [topic for row in root.rows for topic in find(row.name, Settings())]
    values = [argument for topic in topics if topic.kind == "value" for argument in topic.arguments]
    parts = "\n".join(f"- [{r.name}]({r.name}.md): {linked(registry_topic(r).summary)}" for r in registry.REGISTRIES)
    return "\n\n".join([
        "# Reference",
        "Every key of a config and every argument of every part, as `detkit explain NAME` prints them.",
        "## Keys of a config", linked(root.summary), rows_table(root.rows, address),
        "## Plain values", arguments_table(values),
        "## Parts", parts,
    ])  # fmt: skip


def _options() -> str:
    topics = [options_topic(node, path, Settings()) for path, node in nodes() if isinstance(node, Options)]
    return f"# Options\n\nSections of a config that are not parts.\n\n{markdown_of(topics, 2)}"


def _registry_page(parts: registry.Registry, names: list[str]) -> Iterator[str]:
    common = registry_topic(parts)
    yield markdown_of([replace(common, rows=tuple(row for row in common.rows if row.name in names))], 1, address)
    for name in names:
        topic = part_topic(parts, name, Settings())
        yield markdown_of([replace(topic, methods=(), keys=(), derived=())], 2, address)  # they are at the top

"""Topics as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from detkit import registry
from detkit.config.explain.topics import ArgumentTopic, Row, Topic
from detkit.config.raw import short_path

WIDTH = 100
MOST_METHODS = 4
"""Methods of a base that each of its parts is shown with; more are shown with the registry alone."""
COLUMN = 21
"""Where the words about an argument begin."""


def text_of(topics: Sequence[Topic], width: int = WIDTH, config: str = "") -> str:
    """The topics one below the other. config: the name of the config whose values the topics hold."""
    return "\n\n\n".join("\n".join(_topic(topic, width, config)) for topic in topics)


def overview_text(topic: Topic, width: int = WIDTH) -> str:
    """All that can be explained: the keys of a config, and the parts by registry."""
    parts = [line for r in registry.REGISTRIES for line in _wrapped(", ".join(r.names()), f"  {r.name:14} ", width, 17)]
    how = (
        "detkit explain NAME: a key such as train.precision, a part such as FPN, a registry, an argument such as gamma"
    )
    return "\n".join([text_of([topic], width), "", "parts, by registry", "", *parts, "", how])


def _topic(topic: Topic, width: int, config: str) -> Iterator[str]:
    """Blocks with an empty line between them."""
    blocks = [
        *(_wrapped(paragraph, "  ", width) for paragraph in (topic.summary, *topic.paragraphs) if paragraph),
        list(_facts(topic, width)),
        [line for argument in topic.arguments for line in _argument(argument, width)],
        [line for name, source in topic.derived for line in _wrapped(derived_words(name, source), "  ", width)],
        list(_rows(topic.rows, width)),
        [textwrap.indent(topic.example, "  ")] if topic.example else [],
    ]
    if config and topic.kind == "part" and not any(argument.setting for argument in topic.arguments):
        blocks.append([f"  {config} does not use it"])
    yield topic.title
    for block in filter(None, blocks):
        yield from ("", *block)


def derived_words(name: str, source: str) -> str:
    """Where an argument comes from that a config can't set."""
    return f"{name}: a config can't set it; a part gets it from {source}"


def _facts(topic: Topic, width: int) -> Iterator[str]:
    """Source, file, keys and interface, a line each."""
    methods = topic.methods if topic.kind != "part" or len(topic.methods) <= MOST_METHODS else ()
    facts = [
        ("source", "; ".join(f"arXiv {paper}" for paper in topic.papers)),
        ("code", f"{short_path(topic.file)}:{topic.line}" if topic.file else ""),
        ("key", ", ".join(topic.keys) if topic.kind == "part" else ""),
        ("base", topic.base.replace(":", ".")),
        *(("calls", f"{method.signature}: {method.meaning}") for method in methods),
    ]
    for name, fact in facts:
        if fact:
            yield from _wrapped(fact, f"  {name + ':':8}", width, 10)


def _argument(argument: ArgumentTopic, width: int) -> Iterator[str]:
    """Name and facts, the meaning, and the value of a config."""
    default = "required" if argument.default is None else f"default {argument.default}"
    facts = (argument.type, default, argument.bounds, argument.unit and f"in {argument.unit}")
    yield from _wrapped("; ".join(filter(None, facts)), f"  {argument.name:{COLUMN - 3}} ", width, COLUMN)
    yield from _wrapped(argument.meaning, " " * COLUMN, width)
    if argument.setting:
        yield from _wrapped(f"now {argument.setting.value} ({argument.setting.origin})", " " * COLUMN, width)


def _rows(rows: Iterable[Row], width: int) -> Iterator[str]:
    indent = 3 + max((len(row.name) for row in rows), default=0)
    for row in rows:
        line = ". ".join(filter(None, (row.takes, row.meaning)))
        yield from _wrapped(line, f"  {row.name:{indent - 3}} ", width, indent) or [f"  {row.name}"]
        if row.setting:
            yield from _wrapped(f"now {row.setting.value} ({row.setting.origin})", " " * indent, width)


def _wrapped(text: str, first: str, width: int, indent: int | None = None) -> list[str]:
    """Lines of at most `width` characters; those after the first begin with `indent` blanks, or as the first does."""
    rest = first if indent is None else " " * indent
    wrapper = textwrap.TextWrapper(width, first, rest, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text)

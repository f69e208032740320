"""Topics as Markdown, for a notebook and for the pages of the reference."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from detkit.config.explain.text import derived_words
from detkit.config.explain.topics import ArgumentTopic, Method, Row, Topic
from detkit.config.raw import short_path
from detkit.registry.docstrings import PAPER, Paper

Link = Callable[[str, str], str]
"""(registry, part) -> the address of the page that explains it; empty for none."""
PACKAGE = Path(__file__).resolve().parents[2]


def no_link(registry: str, part: str) -> str:
    """For text that stands alone."""
    return ""


def markdown_of(topics: Sequence[Topic], level: int = 3, link: Link = no_link) -> str:
    """The topics one below the other, each under a heading of that level."""
    return "\n\n".join("\n\n".join(_topic(topic, level, link)) for topic in topics) + "\n"


def _topic(topic: Topic, level: int, link: Link) -> Iterator[str]:
    heading = topic.owner if topic.kind == "part" else topic.name
    yield f"{'#' * level} {heading}"
    yield from (linked(paragraph) for paragraph in (topic.summary, *topic.paragraphs) if paragraph)
    yield from _facts(topic)
    if topic.methods:
        yield "Called as:"
        yield "```python\n" + "\n".join(method.signature for method in topic.methods) + "\n```"
        yield _methods(topic.methods)
    if topic.arguments:
        yield arguments_table(topic.arguments)
    yield from (linked(derived_words(f"`{name}`", source) + ".") for name, source in topic.derived)
    if topic.rows:
        yield rows_table(topic.rows, link)
    if topic.example:
        yield f"```yaml\n{topic.example}\n```"


def _methods(methods: Sequence[Method]) -> str:
    """The meaning of the one method, or a list of the meanings of several."""
    if len(methods) == 1:
        return linked(methods[0].meaning)
    return "\n".join(f"- `{method.signature.partition('(')[0]}`: {linked(method.meaning)}" for method in methods)


def _facts(topic: Topic) -> Iterator[str]:
    """Source, key and file in one line."""
    facts = [
        f"Source: {'; '.join(paper_link(paper) for paper in topic.papers)}." if topic.papers else "",
        f"Key: {', '.join(f'`{key}`' for key in topic.keys)}." if topic.keys and topic.kind != "slot" else "",
        f"Code: `{shown_file(topic.file)}`." if topic.file else "",
        f"Base class: `{topic.base.replace(':', '.')}`." if topic.base and topic.kind != "part" else "",
    ]
    if any(facts):
        yield " ".join(filter(None, facts))


def shown_file(file: str) -> str:
    """A file of detkit from its package on, the same on every machine; any other relative to the current folder."""
    path = Path(file).resolve()
    return path.relative_to(PACKAGE.parent).as_posix() if path.is_relative_to(PACKAGE) else short_path(file)


def paper_link(paper: Paper) -> str:
    """A link to the paper, and the place in it."""
    return ", ".join(filter(None, (f"[arXiv {paper.number}]({paper.url})", paper.place)))


def arguments_table(arguments: Sequence[ArgumentTopic]) -> str:
    """A row for each argument: few columns, so that the meaning is in sight on a phone, too."""
    rows = [
        {
            "argument": f"`{a.name}`",
            "takes": "<br>".join(_facts_of(a)),
            "meaning": linked(a.meaning),
            "now": f"`{a.setting.value}` ({escaped(a.setting.origin)})" if a.setting else "",
        }
        for a in arguments
    ]
    return table(rows)


def _facts_of(argument: ArgumentTopic) -> Iterator[str]:
    """Type, default, bounds and unit."""
    yield escaped(argument.type)
    yield "required" if argument.default is None else f"default `{argument.default}`"
    yield from (escaped(fact) for fact in (argument.bounds, argument.unit and f"in {argument.unit}") if fact)


def rows_table(rows: Sequence[Row], link: Link) -> str:
    """A row for each key or part, with a link to its page."""
    return table(
        [
            {
                "key" if row.takes else "part": named(
                    f"`{row.name}`", "" if row.takes else link(row.registry, row.name)
                ),
                "takes": _takes(row, link),
                "meaning": linked(row.meaning),
                "now": f"`{row.setting.value}` ({escaped(row.setting.origin)})" if row.setting else "",
            }
            for row in rows
        ]
    )


def _takes(row: Row, link: Link) -> str:
    address = link(row.registry, "") if row.registry else link("", row.name) if row.takes == "options" else ""
    name = row.registry or row.takes
    return escaped(row.takes).replace(name, named(name, address), 1)


def named(name: str, address: str) -> str:
    """A name, as a link if it has an address."""
    return f"[{name}]({address})" if address else name


def table(rows: Sequence[dict[str, str]]) -> str:
    """A table whose columns are the keys that are not empty in every row."""
    columns = [key for key in rows[0] if any(row[key] for row in rows)]
    lines = [columns, ["---"] * len(columns), *([row[key] for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """A text in which Markdown finds nothing but code between backticks."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece.replace("|", r"\|") if piece.startswith("`") else re.sub(r"([\\*|<\[\]])", r"\\\1", piece)
        for piece in pieces
    )


def linked(text: str) -> str:
    """The text, escaped, with a link on the number of each paper."""
    return PAPER.sub(lambda match: match[0].replace(match[1], f"[{match[1]}]({Paper(match[1]).url})", 1), escaped(text))

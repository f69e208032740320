"""Text from outside in Markdown: escaped, in tables and in fences."""

from __future__ import annotations

from collections.abc import Sequence

SPECIAL = str.maketrans({**{sign: f"\\{sign}" for sign in "\\`*_|[]#"}, "\n": " ", "&": "&amp;", "<": "&lt;"})
"""Characters that have a meaning in Markdown -> how they are written."""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts."""
    lines = [map(escape, heads), ["---"] * len(heads), *(map(escape, row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escape(text: object) -> str:
    """Text that stays text in a line of Markdown."""
    return str(text).translate(SPECIAL)


def fenced(text: str) -> str:
    """Text that cannot end the fence around it."""
    return text.replace("```", "'''")

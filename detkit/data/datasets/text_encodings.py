"""A guess at the encoding of texts that are not Unicode."""

from __future__ import annotations

import re
from collections.abc import Sequence

HIGH = re.compile(rb"[\x80-\xff]+")
"""Bytes that are not ASCII, in a row."""
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Bytes that no text has."""
CYRILLIC_FROM = 4
"""Letters in a row beyond ASCII that no language of western Europe has."""


def guess_encoding(texts: Sequence[bytes]) -> str | None:
    """The encoding that all texts are in, probably; None for what is not text, or damaged UTF-8.

    Chinese (gb18030) has its characters in pairs of high bytes, which stand alone; in western Europe (cp1252) single
    ones stand between letters; a row of many letters is Cyrillic (cp1251). Texts in ASCII or UTF-8 say nothing.
    """
    rows = [row for text in texts if not is_unicode(text) for row in letters(text)]
    if not rows or CONTROL.search(texts[0]) or is_damaged(texts[0]):
        return None
    for encoding, fits in (("gb18030", is_chinese), ("cp1251", is_cyrillic), ("cp1252", lambda before, row: True)):
        if all(fits(before, row) and decodes(row, encoding) for before, row in rows):
            return encoding
    return None


def letters(text: bytes) -> list[tuple[bool, bytes]]:
    """The rows of high bytes, and whether a letter of ASCII stands before each."""
    return [(text[match.start() - 1 : match.start()].isalpha(), match.group()) for match in HIGH.finditer(text)]


def is_chinese(after_letter: bool, row: bytes) -> bool:
    """Whether high bytes are pairs in the range of GB2312, and no accented letters in a word."""
    return len(row) % 2 == 0 and min(row) >= 0xA1 and max(row[0::2]) <= 0xF7 and not (after_letter and len(row) == 2)


def is_cyrillic(after_letter: bool, row: bytes) -> bool:
    """Whether high bytes are a word of the letters of cp1251."""
    return not after_letter and len(row) >= CYRILLIC_FROM and min(row) >= 0xC0


def decodes(row: bytes, encoding: str) -> bool:
    """Whether bytes are characters of an encoding."""
    try:
        return bool(row.decode(encoding))
    except UnicodeDecodeError:
        return False


def is_unicode(text: bytes) -> bool:
    """Whether a text is ASCII or UTF-8."""
    return decodes(text, "utf-8")


def is_damaged(text: bytes) -> bool:
    """Whether a text that is not UTF-8 has as many characters of UTF-8 as bytes that are none."""
    marks = text.decode("utf-8", errors="replace")
    wrong = marks.count("\ufffd")
    return sum(char > "\x7f" for char in marks) - wrong >= wrong

"""Docstrings as data: summary, paragraphs, a meaning for each argument, papers and units."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from detkit.registry.docstrings import Paper, docstring_of, papers, parse_docstring, unit

LOSS = """Focal loss on sigmoid scores (1708.02002,
    equation 5).

    A second paragraph: with a colon
    and a second line.

    Args:
        alpha: weight of positives; ratio: 1 - alpha.
        gamma (float, optional): exponent that
            fades easy examples, as in
              a table.
        prior:
            foreground probability.

    Returns:
        a number: the sum.
    """


def test_summary_paragraphs_and_arguments() -> None:
    doc = parse_docstring(LOSS)
    assert doc.summary == "Focal loss on sigmoid scores (1708.02002, equation 5)."
    assert doc.paragraphs == ("A second paragraph: with a colon and a second line.",)
    assert doc.arguments == {
        "alpha": "weight of positives; ratio: 1 - alpha.",
        "gamma": "exponent that fades easy examples, as in a table.",
        "prior": "foreground probability.",
    }
    assert doc.papers == (Paper("1708.02002", "equation 5"),)


@pytest.mark.parametrize("title", ["Args", "Arguments", "Parameters"])
def test_titles_of_the_section(title: str) -> None:
    assert parse_docstring(f"A part.\n\n    {title}:\n        a: one.\n").arguments == {"a": "one."}


@pytest.mark.parametrize("text", ["", "One line.", "One line.\n\nArgs:\n", "A list:\n- a: one\n"])
def test_a_docstring_without_arguments(text: str) -> None:
    assert parse_docstring(text).arguments == {}


def test_text_after_the_arguments_is_not_a_meaning() -> None:
    assert parse_docstring("A part.\n\nArgs:\n    a: one.\nMore text.\n").arguments == {"a": "one."}


class Base:
    """A base.

    Args:
        weight: factor on the sum.
        prior: probability.
    """


class Child(Base):
    """A child.

    Args:
        prior: the child's own probability.
    """


class Silent(Base):
    pass


@dataclass
class Plain:
    width: int = 3


def test_an_argument_has_the_meaning_that_its_base_gives_it() -> None:
    assert docstring_of(Child).summary == "A child."
    assert docstring_of(Child).arguments == {"weight": "factor on the sum.", "prior": "the child's own probability."}
    assert docstring_of(Silent).summary == ""
    assert docstring_of(Silent).arguments["prior"] == "probability."


def test_a_paragraph_of_sources_is_not_text() -> None:
    doc = parse_docstring("A loss.\n\nMore.\n\nSource: 1708.02002, section 4; SSD: 1512.02325.\n\nArgs:\n    a: one.\n")
    assert doc.paragraphs == ("More.",)
    assert [str(paper) for paper in doc.papers] == ["1708.02002, section 4", "1512.02325"]


def test_what_dataclass_writes_is_no_docstring() -> None:
    assert str(Plain.__doc__).startswith("Plain(width")
    assert docstring_of(Plain).summary == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1708.02002, equation 5)", ["1708.02002, equation 5"]),
        ("(SOLOv2, 2003.10152, section 3.3): every", ["2003.10152, section 3.3"]),
        ("(2301.10051, equations 7, 8).", ["2301.10051, equations 7, 8"]),
        ("mining (1512.02325, section 2.2) and OHEM (1604.03540, section 4.1).",
         ["1512.02325, section 2.2", "1604.03540, section 4.1"]),
        ("the best of 1708.02002, table 1d.", ["1708.02002, table 1d"]),
        ("VGG (1409.1556) as", ["1409.1556"]),
        ("1708.02002 and (1708.02002, table 1) and again 1708.02002.", ["1708.02002", "1708.02002, table 1"]),
        ("123.675, 116.28, 1333.4444 and 2399.12345", []),
    ],
)  # fmt: skip
def test_papers(text: str, expected: list[str]) -> None:
    assert [str(paper) for paper in papers(text)] == expected


@pytest.mark.parametrize(
    ("meaning", "expected"),
    [
        ("pixels.", "pixels"),
        ("seconds without progress after which a process counts as hung.", "seconds"),
        ("side of an image, pixels.", "pixels"),
        ("centre of an anchor within its cell, in cells; 0.5 is the middle.", "cells"),
        ("square pixels, the upper ends of `small`.", "square pixels"),
        ("optimizer steps.", "optimizer steps"),
        ("images with more pixels are refused.", ""),
        ("pixels are counted from 1.", ""),
        ("number of layers.", ""),
        ("", ""),
    ],
)
def test_units(meaning: str, expected: str) -> None:
    assert unit(meaning) == expected

"""The report as Markdown: its figures, without curves and pictures."""

from __future__ import annotations

import numpy as np

from detkit.evaluate.errors import KINDS
from detkit.evaluate.report.words import (
    ERROR_WORDS,
    METHOD,
    conclusions,
    fraction,
    picture_note,
    points,
    spread,
    subtitle,
)
from detkit.utils.markdown import escape, table
from detkit.utils.types import Tree

MATRIX = 12
"""Classes up to which the confusion matrix is complete; of more, the most frequent confusions are listed."""


def to_markdown(found: Tree) -> str:
    parts = [
        f"# {escape(found['title'])}",
        escape(subtitle(found)),
        "\n".join(f"- {escape(line)}" for line in conclusions(found)),
        "## Average precision",
        "In points; with a 95 % interval over images.",
        by_class(found),
        "## By IoU",
        by_iou(found),
        "## By size",
        by_size(found),
        "## Thresholds",
        "The score of the highest F1, at IoU 0.5.",
        thresholds(found),
        "## Confusion",
        confusion(found),
        "## Errors",
        errors(found),
        "## Calibration",
        calibration(found),
        "## Counts of an image",
        counts(found),
        *slices(found),
        "## Pictures",
        escape(picture_note(found)),
        pictures(found),
        "## Method",
        "\n\n".join(escape(text) for text in METHOD),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def by_class(found: Tree) -> str:
    names = found["data"]["metrics"]
    heads = ("class", "objects", "AP", "interval", *list(names.values())[1:])
    rows = [
        (
            row["name"], str(row["objects"]["all"]), points(row["metrics"]["ap"]), spread(row),
            *(points(row["metrics"][key]) for key in list(names)[1:]),
        )
        for row in found["rows"]
    ]  # fmt: skip
    return table(heads, rows)


def by_iou(found: Tree) -> str:
    heads = ("class", *(f"{iou:.2f}" for iou in found["ious"]))
    return table(heads, [(row["name"], *map(points, row["by_iou"])) for row in found["rows"]])


def by_size(found: Tree) -> str:
    small, medium = (f"{limit**0.5:g}" for limit in found["data"]["areas"])
    heads = ("class", f"small (to {small}² px)", "objects", f"medium (to {medium}² px)", "objects", "large", "objects")
    rows = []
    for row in found["rows"]:
        cells = [row["name"]]
        for area in ("small", "medium", "large"):
            cells += [points(row["metrics"][f"ap_{area}"]), str(row["objects"][area])]
        rows.append(cells)
    return table(heads, rows)


def thresholds(found: Tree) -> str:
    keys = ("threshold", "f1", "precision", "recall")
    rows = [(r["name"], *(fraction(r["best"][k], 3) for k in keys)) for r in found["rows"] if r["best"]]
    return table(("class", "threshold", "F1", "precision", "recall"), rows) if rows else "No detection is right."


def confusion(found: Tree) -> str:
    names = [*found["data"]["classes"], "background"]
    most = table(("object", "taken for", "times"), [(a, b, str(n)) for a, b, n in found["confusion"]["most"]])
    if len(names) > MATRIX + 1:
        return most if found["confusion"]["most"] else "No class is taken for another."
    matrix = np.zeros((len(names), len(names)), int)
    for row, column, count in found["confusion"]["counts"]:
        matrix[row, column] = count
    rows = [(name, *map(str, line)) for name, line in zip(names, matrix.tolist(), strict=True)]
    return "Rows: class of the object; columns: class of the detection.\n\n" + table(("", *names), rows)


def errors(found: Tree) -> str:
    figures = found["errors"]
    rows = [(kind, ERROR_WORDS[kind], str(figures["counts"][kind]), points(figures["dap"][kind])) for kind in KINDS]
    return table(("kind", "meaning", "number", "AP50 gained without it"), rows)


def calibration(found: Tree) -> str:
    figures = found["calibration"]
    columns = ("confidence", "precision", "count")
    rows = [
        (f"{low:.2f} to {low + 0.05:.2f}", fraction(confidence, 3), fraction(precision, 3), str(count))
        for low, confidence, precision, count in zip(figures["edges"], *(figures[c] for c in columns), strict=False)
        if count
    ]
    error = f"D-ECE {fraction(figures['ece'], 3)}"
    return f"{error}\n\n{table(('score', 'mean score', 'share right', 'detections'), rows)}" if rows else error


def counts(found: Tree) -> str:
    figures = found["per_image"]
    columns = (figures[key] for key in ("bins", "objects", "detections"))
    rows = [(name, str(a), str(b)) for name, a, b in zip(*columns, strict=True)]
    return table(("in an image", "images with so many objects", "images with so many detections"), rows)


def slices(found: Tree) -> list[str]:
    parts = []
    for key, groups in found["slices"].items():
        rows = [
            (
                g["name"], str(g["images"]), str(g["objects"]), points(g["ap"]), spread(g),
                *(points(g[k]) for k in ("ap50", "ap75")),
            )
            for g in groups
        ]  # fmt: skip
        heads = (key, "images", "objects", "AP", "interval", "AP50", "AP75")
        parts += [f"## By {escape(key)}", table(heads, rows)]
    return parts


def pictures(found: Tree) -> str:
    rows = [("worst", p["name"], p["caption"]) for p in found["worst"]]
    rows += [("confident", p["name"], p["caption"]) for p in found["confident"]]
    return table(("", "image", "mistakes"), rows) if rows else ""

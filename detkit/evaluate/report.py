"""The result of an evaluation as a text table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detkit.evaluate.coco import CocoResult

COLUMNS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
HEADS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")


def to_json(result: CocoResult) -> dict[str, Any]:
    """Plain types: the metrics by name, `per_class`, counts, seconds; null where there is no ground truth."""
    return {
        **result.metrics,
        "per_class": {name: dict(values) for name, values in result.per_class.items()},
        "num_images": result.num_images,
        "num_objects": {name: counts["all"] for name, counts in result.num_objects.items()},
        "num_detections": result.num_detections,
        "seconds": dict(result.seconds),
    }


def format_table(result: CocoResult) -> str:
    """The COCO figures, then one line a class, then why a figure is missing."""
    names = [*result.per_class, "all classes"]
    rows = [
        [name, str(result.num_objects[name]["all"]), *(_figure(values[key]) for key in COLUMNS)]
        for name, values in result.per_class.items()
    ]
    total = sum(counts["all"] for counts in result.num_objects.values())
    mean = ["all classes", str(total), *(_figure(result.metrics[key]) for key in COLUMNS)]
    head = ["class", "objects", *HEADS]
    widths = [max(len(row[c]) for row in (head, mean, *rows)) for c in range(len(head))]
    widths[0] = max(widths[0], max(map(len, names)))

    def line(cells: list[str]) -> str:
        return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])

    rule = "-" * len(line(head))
    recall = "  ".join(f"{_recall_name(k)} {_figure(v)}" for k, v in result.metrics.items() if k.startswith("ar"))
    lines = [
        f"{result.num_images} images, {total} objects, {result.num_detections} detections",
        line(head), rule, *(line(row) for row in rows), rule, line(mean), "", recall, *_reasons(result),
    ]  # fmt: skip
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _recall_name(key: str) -> str:
    return "AR " + key.removeprefix("ar").removeprefix("_")


def _reasons(result: CocoResult) -> list[str]:
    """One line for every class or area range without ground truth."""
    small, medium = (f"{limit**0.5:g}²" for limit in result.area_limits)
    spans = {"small": f"of at most {small} px", "medium": f"of {small} to {medium} px", "large": f"of at least {medium} px"}
    absent = [name for name, counts in result.num_objects.items() if not counts["all"]]
    if len(absent) == len(result.num_objects):
        return ["n/a (no ground truth in any image)"]
    lines = [f"n/a (no ground truth of class {', '.join(absent)})"] if absent else []
    for area, span in spans.items():
        without = [n for n, counts in result.num_objects.items() if counts["all"] and not counts[area]]
        present = len(result.num_objects) - len(absent)
        if without:
            whose = "" if len(without) == present else f" of class {', '.join(without)}"
            lines.append(f"n/a in AP {area} (no ground truth {span}{whose})")
    return lines

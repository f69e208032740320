"""The result of an evaluation as a text table and as JSON."""

from __future__ import annotations

from detkit.evaluate.coco import CocoResult
from detkit.utils.console import plural, shorten_list
from detkit.utils.types import Tree

METRIC_NAMES = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75",
    "ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large",
}  # fmt: skip
"""Metric -> how tables call it."""
VOC_NAMES = {"ap_voc07": "VOC07", "ap_voc12": "VOC12"}
"""The same, of those that `evaluator.voc` adds."""


def to_json(result: CocoResult) -> Tree:
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
    names = metric_names(result)
    rows = [
        [name, str(result.num_objects[name]["all"]), *(figure(values[key]) for key in names)]
        for name, values in result.per_class.items()
    ]
    total = sum(counts["all"] for counts in result.num_objects.values())
    mean = ["all classes", str(total), *(figure(result.metrics[key]) for key in names)]
    head = ["class", "objects", *names.values()]
    widths = [max(len(row[c]) for row in (head, mean, *rows)) for c in range(len(head))]

    def line(cells: list[str]) -> str:
        return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])

    rule = "-" * len(line(head))
    recalls = ((k[2:].removeprefix("_"), v) for k, v in result.metrics.items() if k.startswith("ar"))
    recall = "  ".join(f"AR {name} {figure(v)}" for name, v in recalls)
    counts = ((result.num_images, "image"), (total, "object"), (result.num_detections, "detection"))
    lines = [
        ", ".join(plural(*count) for count in counts), line(head), rule, *map(line, rows), rule, line(mean), "",
        recall, *_reasons(result),
    ]  # fmt: skip
    return "\n".join(lines)


def metric_names(result: CocoResult) -> dict[str, str]:
    """The metrics that tables of a result have, with their names there."""
    return METRIC_NAMES | {key: name for key, name in VOC_NAMES.items() if key in result.metrics}


def figure(value: float | None) -> str:
    """Three digits; n/a without ground truth."""
    return "n/a" if value is None else f"{value:.3f}"


def _reasons(result: CocoResult) -> list[str]:
    """One line for the classes, and for every area range, without ground truth."""
    small, medium = (f"{limit**0.5:g}² px" for limit in result.area_limits)
    spans = {"small": f"up to {small}", "medium": f"from {small} to {medium}", "large": f"from {medium} on"}
    present = [name for name, counts in result.num_objects.items() if counts["all"]]
    absent = [name for name in result.num_objects if name not in present]
    if not present:
        return ["n/a (no ground truth in any image)"]
    lines = [f"{shorten_list(absent, 10)}: n/a (no ground truth of the class)"] if absent else []
    for area, span in spans.items():
        without = [name for name in present if not result.num_objects[name][area]]
        if without:
            whose = "" if len(without) == len(present) else f" of {shorten_list(without, 10)}"
            lines.append(f"{area}{whose}: n/a (no ground truth {span})")
    return lines

"""The figures of a bench as text."""

from __future__ import annotations

from detkit.bench.measure import STAGES
from detkit.utils.console import plural
from detkit.utils.types import Tree


def machine_line(environment: Tree) -> str:
    """Processor, threads, GPU and versions, on one line."""
    machine, versions = environment["machine"], environment["versions"]
    parts = [f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores"]
    parts += [str(machine["gpu"])] if "gpu" in machine else []
    parts += [f"{name} {versions[name]}" for name in ("torch", "detkit")]
    return "; ".join(parts)


def format_bench(content: Tree) -> str:
    """The machine, one line for each way to run, then the rooms."""
    image = content["input"]
    lines = [
        f"machine: {machine_line(content['environment'])}; on {content['device']}",
        f"input: {plural(image['batch'], 'image')} of {image['width']}x{image['height']}, padded to "
        f"{image['padded'][1]}x{image['padded'][0]}; medians of {plural(content['steps'], 'batch', 'batches')}, "
        "milliseconds a batch",
        "",
    ]
    head = ["how", *STAGES, "total", "images/s", "peak MB", "prepare s"]
    rows = []
    for run in content["runs"]:
        if "error" in run:
            continue
        stages = [f"{run['stages'][name]['median']:.1f}" for name in STAGES]
        figures = [f"{run['total']['median']:.1f}", f"{run['images_per_second']:.2f}"]
        rows.append([run["how"], *stages, *figures, f"{run['peak_memory_mb']:.0f}", f"{run['prepare_seconds']:.1f}"])
    lines += aligned([head, *rows])
    lines += [f"{run['how']}: could not run: {run['error']}" for run in content["runs"] if "error" in run]
    return "\n".join([*lines, *count_lines(content["counts"])])


def count_lines(counts: Tree | None) -> list[str]:
    """Parameters and multiply-adds by room, and what is not counted."""
    if counts is None:
        return []
    rows = [["room", "parameters", "multiply-adds, 10^9"]]
    rows += [
        [name, f"{room['parameters']:,}", f"{room['multiply_adds'] / 1e9:.3f}"]
        for name, room in {**counts["rooms"], "all": counts["total"]}.items()
    ]
    skipped = ", ".join(f"{name.removeprefix('aten::')} x{n}" for name, n in counts["not_counted"].items())
    note = f"not counted: {skipped}" if skipped else "every operation is counted"
    return ["", *aligned(rows), f"for the batch; post-processing is not counted; {note}"]


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]

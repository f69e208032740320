"""detkit's NMS against torchvision's, end to end (sorting included), in one process, alternating.

`python -m benchmarks.bench_nms` runs everything (torchvision takes minutes at 100k); the short form is
`--sizes 100 1000 5000 10000`. Boxes: cluster (N/20 centres in 800x1333, jittered), uniform (sides 8 to 64);
scores rand^4; IoU 0.5. batched_nms: 80 groups at random.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.common import json_output, machine_line
from detkit.native.library import native
from detkit.ops import batched_nms, nms
from detkit.utils.outputs import write_marked_json


def cluster(n: int, g: torch.Generator) -> Tensor:
    """(n, 4): sides log-uniform 16-256, centre jitter 10 % of the side, side jitter exp(N(0, .15))."""
    count = max(1, n // 20)
    centers = torch.rand(count, 2, generator=g) * torch.tensor([1333.0, 800.0])
    sides = 16 * torch.exp(torch.rand(count, 2, generator=g) * math.log(16))
    pick = torch.randint(count, (n,), generator=g)
    center = centers[pick] + torch.randn(n, 2, generator=g) * 0.1 * sides[pick]
    side = sides[pick] * torch.exp(torch.randn(n, 2, generator=g) * 0.15)
    return torch.cat([center - side / 2, center + side / 2], 1)


def uniform(n: int, g: torch.Generator) -> Tensor:
    """(n, 4): centres anywhere, sides log-uniform 8-64."""
    center = torch.rand(n, 2, generator=g) * torch.tensor([1333.0, 800.0])
    side = 8 * torch.exp(torch.rand(n, 2, generator=g) * math.log(8))
    return torch.cat([center - side / 2, center + side / 2], 1)


def alternate(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], seconds: float) -> tuple[float, float]:
    """Medians in ms of both, run in turns for about `seconds`, at least twice each."""
    cuda = torch.cuda.is_available()

    def once(work: Callable[[], Tensor]) -> float:
        begin = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) * 1e3

    once(ours)
    once(theirs)
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while len(times[0]) < 2 or (time.perf_counter() < end and len(times[0]) < 500):
        times[1].append(once(theirs))
        times[0].append(once(ours))
    return statistics.median(times[0]), statistics.median(times[1])


def measure(args: argparse.Namespace) -> list[dict[str, object]]:
    """One row a distribution, size, op and number of threads."""
    from torchvision.ops import batched_nms as torchvision_batched
    from torchvision.ops import nms as torchvision_nms

    rows: list[dict[str, object]] = []
    everything = torch.get_num_threads()
    for threads in sorted({1, everything}) if args.device == "cpu" else [everything]:
        torch.set_num_threads(threads)
        for name, make in (("cluster", cluster), ("uniform", uniform)):
            for n in args.sizes:
                g = torch.Generator().manual_seed(n)
                boxes = make(n, g).to(args.device)
                scores = (torch.rand(n, generator=g) ** 4).to(args.device)
                groups = torch.randint(80, (n,), generator=g).to(args.device)
                single, grouped = (boxes, scores, 0.5), (boxes, scores, groups, 0.5)
                pairs = {
                    "nms": (partial(nms, *single), partial(torchvision_nms, *single)),
                    "batched_nms": (partial(batched_nms, *grouped), partial(torchvision_batched, *grouped)),
                }
                for op, (ours, theirs) in pairs.items():
                    mine, other = alternate(ours, theirs, args.seconds)
                    rows.append(
                        {
                            "op": op,
                            "boxes": name,
                            "n": n,
                            "threads": threads,
                            "kept": len(ours()),
                            "same": ours().sort().values.equal(theirs().sort().values),
                            "detkit_ms": mine,
                            "torchvision_ms": other,
                            "ratio": other / mine,
                        }
                    )
                    show(rows[-1])
    torch.set_num_threads(everything)
    return rows


COLUMNS = {
    "op": "{:12}", "boxes": "{:8}", "n": "{:>7}", "threads": "{:>7}", "kept": "{:>6}",
    "detkit_ms": "{:>10.3f}", "torchvision_ms": "{:>14.3f}", "ratio": "{:>8.1f}",
}  # fmt: skip


def show(row: dict[str, object]) -> None:
    cells = [form.format(row[key]) for key, form in COLUMNS.items()]
    print(" ".join(cells) + ("" if row["same"] else "   DIFFERENT BOXES"), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 5000, 10000, 50000, 100000])
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each cell, at least two runs")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=json_output, metavar="FILE", help="write the rows there as well")
    args = parser.parse_args()
    problem = native.cpu_problem if args.device == "cpu" else native.cuda_problem
    if problem:
        raise SystemExit(f"nothing to measure: {problem}")
    machine = machine_line()
    print(machine)
    print(" ".join(form.replace(".3f", "").replace(".1f", "").format(key) for key, form in COLUMNS.items()))
    rows = measure(args)
    if args.json:
        record = {"machine": machine, "command": " ".join(sys.argv), "device": args.device, "rows": rows}
        write_marked_json(args.json, record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

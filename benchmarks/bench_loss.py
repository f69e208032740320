"""detkit's fused focal loss against torchvision's and fvcore's: forward and backward, time and memory.

Two images of 320 and 640 pixels, 9 anchors a cell on five levels, 80 classes, ten positives an image. The
peers want a one-hot target, so making it belongs to their time. They alternate in one process; the memory is
taken in a process of its own for each: growth of the peak over logits and labels, in copies of the logits.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common import json_output, machine_line, peak_memory_mib
from detkit.native.library import native
from detkit.ops import sigmoid_focal_sum
from detkit.utils.outputs import write_marked_json

IMAGES, CLASSES, POSITIVES = 2, 80, 10


def example(side: int, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits (B, A, K) near the start of a training, labels (B, A)."""
    anchors = 9 * sum((side // stride) ** 2 for stride in (8, 16, 32, 64, 128))
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, anchors, CLASSES, generator=g) - 4.6
    labels = torch.full((IMAGES, anchors), -1)
    for row in labels:
        row[torch.randint(anchors, (5 * POSITIVES,), generator=g)] = -2
        row[torch.randint(anchors, (POSITIVES,), generator=g)] = torch.randint(CLASSES, (POSITIVES,), generator=g)
    return logits.to(device, dtype), labels.to(device)


def of_detkit(logits: Tensor, labels: Tensor) -> Tensor:
    return sigmoid_focal_sum(logits, labels, 0.25, 2.0)


def with_target(loss: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def run(logits: Tensor, labels: Tensor) -> Tensor:
        used = labels != -2
        target = torch.zeros_like(logits)
        target[labels >= 0, labels[labels >= 0]] = 1
        return loss(logits[used], target[used], alpha=0.25, gamma=2.0, reduction="sum")

    return run


def contenders() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Name -> loss of logits and labels."""
    from torchvision.ops import sigmoid_focal_loss

    found = {"detkit": of_detkit, "torchvision": with_target(sigmoid_focal_loss)}
    try:
        from fvcore.nn import sigmoid_focal_loss as fvcore_loss
    except ImportError:
        return found
    return {**found, "fvcore": with_target(fvcore_loss)}


def once(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> tuple[float, Tensor, Tensor]:
    """Milliseconds of forward and backward, value, gradient."""
    x = logits.detach().requires_grad_()
    if x.is_cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    total = loss(x, labels)
    total.backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    assert x.grad is not None
    return (time.perf_counter() - begin) * 1e3, total.detach(), x.grad


def memory(name: str, side: int, device: str, dtype: torch.dtype) -> float:
    """Growth of the peak during one forward and backward, in copies of the logits."""
    logits, labels = example(side, device, dtype)
    loss = contenders()[name]
    small = example(32, device, dtype)
    once(loss, *small)  # libraries and thread pools
    size = logits.numel() * logits.element_size() / 2**20
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
        once(loss, logits, labels)
        return (torch.cuda.max_memory_allocated() / 2**20 - before) / size
    # The peak so far may be higher than what is in use now: fill the difference.
    filled = []
    before = peak_memory_mib()
    while peak_memory_mib() < before + 1:
        filled.append(torch.ones(2**18))
    before = peak_memory_mib()
    once(loss, logits, labels)
    return (peak_memory_mib() - before) / size


def memory_apart(name: str, side: int, device: str, dtype: str) -> float:
    words = [
        sys.executable,
        "-m",
        "benchmarks.bench_loss",
        "--memory-of",
        name,
        "--sizes",
        str(side),
        "--device",
        device,
        "--dtype",
        dtype,
    ]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def measure(args: argparse.Namespace) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    dtype = getattr(torch, args.dtype)
    everything = torch.get_num_threads()
    for threads in sorted({1, everything}, reverse=True) if args.device == "cpu" else [everything]:
        torch.set_num_threads(threads)
        for side in args.sizes:
            logits, labels = example(side, args.device, dtype)
            losses = contenders()
            times: dict[str, list[float]] = {name: [] for name in losses}
            _, value, gradient = once(losses["detkit"], logits, labels)
            for turn in range(args.turns + 1):
                for name, loss in losses.items():
                    spent, total, slope = once(loss, logits, labels)
                    if turn:  # the first warms up
                        times[name].append(spent)
                    elif dtype == torch.float32:
                        torch.testing.assert_close(total, value, rtol=1e-4, atol=0)
                        torch.testing.assert_close(slope, gradient, rtol=1e-3, atol=1e-6)
            for name in losses:
                row: dict[str, object] = {"loss": name, "side": side, "threads": threads, "dtype": args.dtype}
                row["ms"] = statistics.median(times[name])
                row["ratio_to_detkit"] = statistics.median(times[name]) / statistics.median(times["detkit"])
                row["copies_of_logits"] = memory_apart(name, side, args.device, args.dtype)
                rows.append(row)
                print(
                    f"{name:12} {side:>5} px {threads:>2} threads {row['ms']:>9.2f} ms   "
                    f"{row['ratio_to_detkit']:>6.1f} x detkit   {row['copies_of_logits']:>5.2f} copies of the logits",
                    flush=True,
                )
    torch.set_num_threads(everything)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 640], help="pixels of the square images")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--json", type=json_output, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    problem = native.cpu_problem if args.device == "cpu" else native.cuda_problem
    if problem:
        raise SystemExit(f"nothing to measure: {problem}")
    if args.memory_of:
        print(memory(args.memory_of, args.sizes[0], args.device, getattr(torch, args.dtype)))
        return 0
    machine = machine_line()
    print(machine)
    rows = measure(args)
    if args.json:
        record = {"machine": machine, "command": " ".join(sys.argv), "device": args.device, "rows": rows}
        write_marked_json(args.json, record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Latency of inference, network and post-processing apart: detkit against torchvision's RetinaNet.

    python -m benchmarks.bench_infer                          # R18 and R50, 480x640, one image
    python -m benchmarks.bench_infer --depths 18 --rounds 5 --json infer.json
    python -m benchmarks.bench_infer --device cuda --precision bf16 --depths 50 --size 800x1333

The same random weights in both (detkit's are converted from torchvision's), with a class bias under which
about a thousand candidates a level pass the threshold ("busy") or none does ("idle"). They take turns within
one process. The ratio is torchvision's time over detkit's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.bench_step import CLASSES, OVERRIDES, damp, make_torchvision
from benchmarks.common import (
    add_device_options,
    image_size,
    json_output,
    machine_line,
    set_precision,
    synchronize,
)
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.interop.names import foreign_name, torchvision_rules
from detkit.utils.outputs import write_marked_json

BASE = Path(__file__).resolve().parent.parent / "configs/base/retinanet.yaml"


def make_pair(depth: int, busy: bool, size: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """torchvision's model and detkit's with the same weights."""
    torch.manual_seed(0)
    # In evaluation torchvision resizes whatever it is told; these sizes leave the image as it is.
    theirs = make_torchvision(depth, min_size=min(size), max_size=max(size)).eval()
    damp(theirs)
    bias = theirs.head.classification_head.cls_logits.bias
    if busy:
        nn.init.normal_(bias, -3.6, 0.35)
    overrides = [
        *OVERRIDES,
        f"backbone.depth={depth}",
        "anchors={type: TorchvisionAnchors}",
        "postprocess.max_detections=300",
    ]
    ours = build_detector(load_config(BASE, overrides), CLASSES).eval()
    state = theirs.state_dict()
    rules = torchvision_rules(2)
    ours.load_state_dict({name: state[foreign_name(name, rules)] for name in ours.state_dict()})
    return ours, theirs


def now(image: Tensor) -> float:
    """Seconds, once what was started on the image's device is done."""
    synchronize(image.device.type)
    return time.perf_counter()


@torch.inference_mode()
def run_detkit(model: nn.Module, image: Tensor) -> tuple[float, float, int]:
    """Seconds in the network, seconds in post-processing, number of detections."""
    sizes = torch.tensor([image.shape[-2:]], device=image.device)
    start = now(image)
    pred = model(image, sizes)
    middle = now(image)
    found = model.detect(pred, sizes)[0]
    return middle - start, now(image) - middle, len(found)


@torch.inference_mode()
def run_torchvision(model: nn.Module, image: Tensor) -> tuple[float, float, int]:
    """The same; its post-processing is timed by wrapping the method that does it."""
    spent = [0.0]
    original = type(model).postprocess_detections

    def timed(*args: object) -> object:
        start = now(image)
        result = original(model, *args)
        spent[0] += now(image) - start
        return result

    model.postprocess_detections = timed
    start = now(image)
    found = model([image[0].float() / 255])[0]
    total = now(image) - start
    return total - spent[0], spent[0], len(found["scores"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[18, 50])
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of each, after two warm-ups")
    parser.add_argument("--size", type=image_size, default=(480, 640), help="height x width of the image")
    add_device_options(parser)
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--json", type=json_output, help="write the figures here, too")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    autocast = set_precision(args.device, args.precision)
    print(machine_line())
    print(
        f"{args.device}, {args.precision}, one image of {args.size[1]}x{args.size[0]}, {CLASSES} classes, "
        f"medians of {args.rounds}, ms; ratio = torchvision / detkit"
    )
    print(
        f"{'model':>6} {'mode':>5} {'':>12} {'total':>8} {'network':>8} {'post':>7} "
        f"{'found':>6} {'ratio':>6} {'post ratio':>10}"
    )
    rows = []
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (1, 3, *args.size), dtype=torch.uint8, generator=generator).to(args.device)
    for depth in args.depths:
        for mode in ("busy", "idle"):
            ours, theirs = (model.to(args.device) for model in make_pair(depth, mode == "busy", args.size))
            times: dict[str, list[tuple[float, float, int]]] = {"detkit": [], "torchvision": []}
            for i in range(args.rounds + 2):
                with autocast:
                    pair = {"detkit": run_detkit(ours, image), "torchvision": run_torchvision(theirs, image)}
                for peer, result in pair.items():
                    if i >= 2:
                        times[peer].append(result)
            totals = {p: [n + q for n, q, _ in t] for p, t in times.items()}
            ratio = statistics.median(t / d for d, t in zip(totals["detkit"], totals["torchvision"], strict=True))
            post = {p: statistics.median(q for _, q, _ in t) for p, t in times.items()}
            for peer in times:
                total = statistics.median(totals[peer])
                network = statistics.median(n for n, _, _ in times[peer])
                found = times[peer][0][2]
                end = f" {ratio:>6.2f} {post['torchvision'] / post['detkit']:>10.2f}" if peer == "detkit" else ""
                print(
                    f"{'R' + str(depth):>6} {mode:>5} {peer:>12} {total * 1e3:>8.1f} {network * 1e3:>8.1f} "
                    f"{post[peer] * 1e3:>7.2f} {found:>6}{end}",
                    flush=True,
                )
                rows.append(
                    {
                        "model": f"R{depth}", "size": list(args.size), "precision": args.precision,
                        "mode": mode, "peer": peer, "total_s": total, "network_s": network,
                        "post_s": post[peer], "found": found, "all_total_s": totals[peer], "ratio": ratio,
                    }
                )  # fmt: skip
    if args.json:
        write_marked_json(args.json, {"machine": machine_line(), "device": args.device, "rows": rows})


if __name__ == "__main__":
    main()

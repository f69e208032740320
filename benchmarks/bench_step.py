"""Seconds a training step and peak memory: detkit against torchvision's RetinaNet.

    python -m benchmarks.bench_step                              # R18 and R50 at 320 and 640 px, all cores
    python -m benchmarks.bench_step --depths 18 --sizes 320 --rounds 3 --json step.json
    python -m benchmarks.bench_step --device cuda --precision bf16 --depths 50 --sizes 800x1333 --batch 8

Same depth, size, batch, classes, frozen layers, optimizer, threads, images and boxes; the two take turns
within one process, so that a slow minute of the machine hits both. Peak memory is that of a process of its
own, which does two steps of one of them. The ratio is torchvision's figure over detkit's: above 1, detkit
needs less.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.common import (
    add_device_options,
    image_size,
    json_output,
    machine_line,
    peak_device_memory_mib,
    set_precision,
)
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.structures import Targets
from detkit.utils.outputs import write_marked_json

CLASSES = 80
OVERRIDES = ["neck.extra_from=p5", "backbone.freeze_at=2", "losses.box={type: L1Loss}"]
BASE = Path(__file__).resolve().parent.parent / "configs/base/retinanet.yaml"


def make_detkit(depth: int) -> nn.Module:
    return build_detector(load_config(BASE, [f"backbone.depth={depth}", *OVERRIDES]), CLASSES)


def make_torchvision(depth: int, **sizes: int) -> nn.Module:
    """torchvision's RetinaNet with frozen batch norm and its first two stages frozen, as in detkit's.

    sizes: min_size and max_size of its own resize, which it skips in training only.
    """
    from torchvision.models import resnet
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.ops import FrozenBatchNorm2d
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    body = getattr(resnet, f"resnet{depth}")(weights=None, norm_layer=FrozenBatchNorm2d)
    backbone = _resnet_fpn_extractor(body, 3, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
    return RetinaNet(backbone, CLASSES, _skip_resize=True, **sizes)


def make_step(peer: str, depth: int, size: tuple[int, int], args: argparse.Namespace) -> Callable[[], float]:
    """A function that does one whole training step on fixed data and returns the loss, which waits for the GPU."""
    autocast, device, batch = set_precision(args.device, args.precision), torch.device(args.device), args.batch
    torch.manual_seed(0)
    model = make_detkit(depth) if peer == "detkit" else make_torchvision(depth)
    damp(model)
    model.train().to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=generator).to(device)
    extent = torch.tensor(size[::-1])
    corner = torch.rand(batch, 10, 2, generator=generator) * extent * 0.6
    sides = (torch.rand(batch, 10, 2, generator=generator) * 0.35 + 0.04) * extent
    boxes = torch.cat((corner, corner + sides), dim=-1).to(device)
    labels = torch.randint(0, CLASSES, (batch, 10), generator=generator).to(device)
    sizes = torch.tensor(size).repeat(batch, 1).to(device)

    def detkit_loss() -> torch.Tensor:
        targets = [Targets(b, y) for b, y in zip(boxes, labels, strict=True)]
        return model.loss(model(images, sizes), targets).mean()

    def torchvision_loss() -> torch.Tensor:
        floats = list(images.float() / 255)
        losses = model(floats, [{"boxes": b, "labels": y} for b, y in zip(boxes, labels, strict=True)])
        return losses["classification"] + losses["bbox_regression"]

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = detkit_loss() if peer == "detkit" else torchvision_loss()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def damp(model: nn.Module) -> None:
    """Frozen norms over random weights let activations explode; scale every block's last norm down."""
    for name, module in model.named_modules():
        if name.endswith(("bn2", "bn3")) and isinstance(getattr(module, "weight", None), torch.Tensor):
            module.weight.data.mul_(0.3)


def peak_memory(peer: str, depth: int, size: tuple[int, int], args: argparse.Namespace) -> float:
    """MiB of a fresh process that does two steps of `peer`; on a GPU, those that PyTorch allocated there."""
    command = [sys.executable, "-m", "benchmarks.bench_step", "--worker", peer, "--depths", str(depth)]
    command += ["--sizes", "{}x{}".format(*size), "--device", args.device, "--precision", args.precision]
    command += ["--batch", str(args.batch), "--threads", str(args.threads or torch.get_num_threads())]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[18, 50])
    parser.add_argument("--sizes", type=image_size, nargs="+", default=[(320, 320), (640, 640)])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each, after one warm-up")
    add_device_options(parser)
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--json", type=json_output, help="write the figures here, too")
    parser.add_argument("--worker", choices=["detkit", "torchvision"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.worker:
        step = make_step(args.worker, args.depths[0], args.sizes[0], args)
        step(), step()
        print(peak_device_memory_mib(torch.device(args.device)))
        return
    print(machine_line())
    print(
        f"{args.device}, {args.precision}, batch {args.batch}, {CLASSES} classes, "
        f"median of {args.rounds} steps; ratio = torchvision / detkit"
    )
    print(
        f"{'model':>6} {'px':>8} {'detkit s':>9} {'torchvision s':>14} "
        f"{'ratio':>6} {'MiB':>6} {'tv MiB':>7} {'ratio':>6}"
    )
    rows = []
    for depth in args.depths:
        for size in args.sizes:
            steps = {peer: make_step(peer, depth, size, args) for peer in ("detkit", "torchvision")}
            seconds: dict[str, list[float]] = {peer: [] for peer in steps}
            for i in range(args.rounds + 1):
                for peer, step in steps.items():
                    start = time.perf_counter()
                    step()
                    if i:
                        seconds[peer].append(time.perf_counter() - start)
            del steps
            ratio = statistics.median(t / d for d, t in zip(seconds["detkit"], seconds["torchvision"], strict=True))
            ours, theirs = (statistics.median(seconds[p]) for p in ("detkit", "torchvision"))
            memory = {p: peak_memory(p, depth, size, args) for p in ("detkit", "torchvision")}
            rows.append(
                {
                    "model": f"R{depth}", "size": list(size), "batch": args.batch, "precision": args.precision,
                    "detkit_s": ours, "torchvision_s": theirs, "ratio": ratio,
                    "detkit_all_s": seconds["detkit"], "torchvision_all_s": seconds["torchvision"],
                    "detkit_mib": memory["detkit"], "torchvision_mib": memory["torchvision"],
                }
            )  # fmt: skip
            print(
                f"{'R' + str(depth):>6} {'x'.join(map(str, size)):>8} {ours:>9.3f} {theirs:>14.3f} {ratio:>6.2f} "
                f"{memory['detkit']:>6.0f} {memory['torchvision']:>7.0f} "
                f"{memory['torchvision'] / memory['detkit']:>6.2f}",
                flush=True,
            )
    if args.json:
        write_marked_json(args.json, {"machine": machine_line(), "device": args.device, "rows": rows})


if __name__ == "__main__":
    main()

"""One of two ranks that take training steps with every registered module.

    python -m tests.contracts.ddp_worker RANK STORE OUT

A program of its own, so that nothing of the test run that starts it is in the way. Writes a JSON object to OUT:
"registry-name" -> what went wrong, empty if nothing did.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detkit.backbones.base import Backbone
from detkit.registry import REGISTRIES
from detkit.structures import FeatureShape
from detkit.testing import CONTRACTS
from detkit.testing.contract import Subject
from detkit.testing.modules import tensors
from tests.contracts.examples import EXAMPLES, WITH_WEIGHTS


class Unused(Backbone):
    """With a layer that takes no part, so that the steps are seen to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.spare = nn.Conv2d(3, 4, 3, stride=8, padding=1), nn.Linear(2, 2)
        self.out_shapes = {"c3": FeatureShape(4, 8)}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"c3": self.conv(images)}


def two_steps(registry: str, subject: Subject, rank: int) -> None:
    """Raises if DDP does, if nothing is learnt, or if the ranks do not end with the same weights."""
    subject.reset()
    first = [p.detach().clone() for p in subject.part.parameters()]
    model = DistributedDataParallel(subject.part)  # finds no unused parameters: they are an error
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(2):
        torch.manual_seed(2 * step + rank)
        optimizer.zero_grad()
        outputs = tensors(model(subject.inputs()))
        torch.stack([(o * torch.randn_like(o)).mean() for o in outputs]).sum().backward()
        optimizer.step()
    last = [p.detach() for p in subject.part.parameters()]
    if all(torch.equal(a, b) for a, b in zip(first, last, strict=True)):
        raise RuntimeError("two steps changed no weight")
    for name, p in subject.part.named_parameters():
        other = p.detach().clone()
        torch.distributed.broadcast(other, src=0)
        if not torch.equal(other, p):
            raise RuntimeError(f"{name} is another on rank {rank} than on rank 0")


def main(rank: int, store: str, out: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    cases: list[tuple[str, str, Any]] = []
    for registry in (r for r in REGISTRIES if r.name in WITH_WEIGHTS):
        for name in registry.names():
            node = {"type": name, **EXAMPLES.get(registry.name, {}).get(name, {})}
            cases.append((registry.name, name, lambda r=registry, n=node, **derived: r.build(n, **derived)))
    cases.append(("backbones", "Unused", Unused))
    found = {}
    for slot, name, factory in cases:
        subject = CONTRACTS[slot].subject(factory)
        if not list(subject.part.parameters()):
            found[f"{slot}-{name}"] = "no parameters"
            continue
        try:
            two_steps(slot, subject, rank)
            found[f"{slot}-{name}"] = ""
        except Exception as error:  # the other parts are to be tried all the same
            found[f"{slot}-{name}"] = f"{type(error).__name__}: {error}"
    Path(out).write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])

"""What is too slow for a contract, over every registered module: DDP steps, and torch.compile with gradients."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.registry import REGISTRIES
from detkit.testing import CONTRACTS
from detkit.testing.modules import expect_same, tensors
from tests.contracts import examples

ROOT = Path(__file__).parents[2]

PARTS = [
    pytest.param(r, name, id=f"{r.name}-{name}")
    for r in REGISTRIES
    if r.name in examples.WITH_WEIGHTS
    for name in r.names()
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each of two processes found, by part."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-m", "tests.contracts.ddp_worker"]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(folder / "store"), str(folder / f"{rank}.json")],
            cwd=ROOT,
            stderr=(folder / f"{rank}.txt").open("w"),
        )
        for rank in (0, 1)
    ]
    try:
        codes = [w.wait(timeout=280) for w in workers]
    finally:
        for w in workers:
            w.kill()
    assert codes == [0, 0], [(folder / f"{rank}.txt").read_text()[-2000:] for rank in (0, 1)]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
@pytest.mark.parametrize(("registry", "name"), PARTS)
def test_ddp_steps_without_unused_parameters(ranks: Any, registry: Any, name: Any) -> None:
    found = [seen[f"{registry.name}-{name}"] for seen in ranks]
    if found == ["no parameters"] * 2:
        pytest.skip("a part without parameters is not wrapped in DDP")
    assert found == ["", ""]


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
def test_ddp_steps_are_seen_to_fail(ranks: Any) -> None:
    for seen in ranks:
        assert "Expected to have finished reduction" in seen["backbones-Unused"]


@pytest.mark.parametrize(("registry", "name"), PARTS)
def test_compiled_step_gives_the_same_outputs_gradients_and_buffers(registry: Any, name: Any) -> None:
    node = {"type": name, **examples.EXAMPLES.get(registry.name, {}).get(name, {})}
    subject = CONTRACTS[registry.name].subject(lambda **derived: registry.build(node, **derived))
    subject.reset()
    plain, value = subject.part, subject.inputs()
    twin = copy.deepcopy(plain)
    torch._dynamo.reset()
    seen = []
    for call in (plain, torch.compile(twin, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        outputs = tensors(call(value))
        if any(o.requires_grad for o in outputs):
            torch.manual_seed(1)
            torch.stack([(o * torch.randn_like(o)).mean() for o in outputs]).sum().backward()
        seen.append([o.detach() for o in outputs])
    torch._dynamo.reset()
    expect_same(seen[1], seen[0], "compiled against not compiled", 1e-4)
    for (label, p), q in zip(plain.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), label
        if p.grad is not None:
            expect_same([q.grad], [p.grad], f"gradient of {label}, compiled against not compiled", 1e-3)
    expect_same(list(twin.buffers()), list(plain.buffers()), "buffers after a compiled step", 1e-4)

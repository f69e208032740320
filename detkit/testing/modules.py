"""Checks that every module with weights shares: backbone, neck, head."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from detkit.testing.contract import Checks, Contract, Nest, Subject, TestedPart, expect, must_not_draw, must_not_raise
from detkit.utils.types import Tree

MODULE_CHECKS = Checks()
"""What holds for all modules with weights."""
COPY_CHECK = Checks()
"""deepcopy and pickle, of any part."""


def tensors(value: Nest) -> list[Tensor]:
    """Every tensor in nested dicts, lists and tuples; None, as for a quality branch that is not there, holds none."""
    if isinstance(value, Tensor):
        return [value]
    if value is None:
        return []
    items = list(value.values()) if isinstance(value, dict) else list(value)
    return [t for item in items for t in tensors(item)]


def mapped(value: Nest, change: Callable[[Tensor], Tensor]) -> Nest:
    """The same nest with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if value is None:
        return None
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    return [mapped(v, change) for v in value]


def same_entry(a: object, b: object) -> bool:
    """Whether two entries of state dicts are equal: tensors, or what a part gives by `get_extra_state`."""
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)


def saved_state(part: TestedPart) -> Tree:
    """What a checkpoint keeps of a part, as it comes back from the file."""
    if not isinstance(part, nn.Module):
        return {}
    file = io.BytesIO()
    torch.save(part.state_dict(), file)
    file.seek(0)
    state: Tree = torch.load(file, weights_only=True)
    return state


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the bytes of the largest tensor that any operation makes."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in [out] if isinstance(out, Tensor) else out if isinstance(out, (tuple, list)) else []:
            if isinstance(t, Tensor):
                self.bytes = max(self.bytes, t.untyped_storage().nbytes())
        return out


def expect_same(a: Nest, b: Nest, what: str, tolerance: float = 0.0) -> None:
    """Every tensor of `a` is that of `b` up to `tolerance`, relative to the largest value."""
    left, right = tensors(a), tensors(b)
    expect(len(left) == len(right), f"{what}: {len(left)} and {len(right)} tensors")
    for i, (x, y) in enumerate(zip(left, right, strict=True)):
        expect(x.shape == y.shape, f"{what}: output {i} has shapes {tuple(x.shape)} and {tuple(y.shape)}")
        gap = float((x.double() - y.double()).abs().max()) if x.numel() else 0.0
        allowed = tolerance * max(1.0, float(y.double().abs().max())) if y.numel() else 0.0
        expect(gap <= allowed, f"{what}: output {i} differs by up to {gap:.3g}")


def add_forward_checks(contract: Contract, given: str) -> None:
    """Adds to `contract` what comes before all other checks. given: the argument of the forward, in words."""

    @contract.check(f"nothing else can be seen then; {given}.", vital=True)
    def forward_runs(s: Subject) -> None:
        value = s.inputs()
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors(value))
        with must_not_raise(f"forward of {shapes}"), torch.no_grad():
            s.part.eval()(value)

    @contract.check("what it was given is used by others too: the averaged weights, the next level, a picture.")
    def inputs_stay_as_they_are(s: Subject) -> None:
        value = s.inputs()
        keys, before = list(value) if isinstance(value, dict) else [], mapped(value, Tensor.clone)
        s.part(value)
        if isinstance(value, dict):
            expect(list(value) == keys, f"the given dict now has levels {list(value)}")
        expect_same(value, before, "the given tensors after and before the forward")


def evaluated(s: Subject, value: Nest) -> Nest:
    with torch.no_grad():
        return s.part.eval()(value)


@MODULE_CHECKS.check("a parameter without gradient stops DDP with an error, or is never trained.")
def gradients_reach_every_parameter(s: Subject) -> None:
    trained = {n: p for n, p in s.part.named_parameters() if p.requires_grad}
    if not trained:
        return
    outputs = tensors(s.part(s.inputs()))
    torch.stack([(o * torch.randn_like(o)).sum() for o in outputs]).sum().backward()  # type: ignore[no-untyped-call]
    lost = [n for n, p in trained.items() if p.grad is None]
    expect(not lost, f"no gradient reaches {', '.join(lost[:4])}" + (" and more" if len(lost) > 4 else ""))
    bad = [n for n, p in trained.items() if p.grad is not None and not p.grad.isfinite().all()]
    expect(not bad, f"the gradient of {', '.join(bad[:4])} is not finite")


@MODULE_CHECKS.check("evaluation would give another figure each time.")
def eval_is_deterministic(s: Subject) -> None:
    value = s.inputs()
    expect_same(evaluated(s, value), evaluated(s, value), "the same input twice in eval mode")


@MODULE_CHECKS.check("drawing numbers outside training shifts every random choice after it, so resumed runs differ.")
def eval_draws_no_random_numbers(s: Subject) -> None:
    value = s.inputs()
    with must_not_draw():
        evaluated(s, value)


@MODULE_CHECKS.check("two runs with one seed could not be compared.")
def same_seed_same_weights(s: Subject) -> None:
    built = []
    for _ in range(2):
        torch.manual_seed(1)
        built.append(s.build().state_dict())
    for name, value in built[0].items():
        expect(same_entry(value, built[1][name]), f"{name} differs between two parts built with seed 1")


@MODULE_CHECKS.check("an image must not depend on the others that happen to be detected with it.")
def eval_looks_at_each_image_alone(s: Subject) -> None:
    value = s.inputs()
    both = evaluated(s, value)
    alone = evaluated(s, mapped(value, lambda t: t[:1]))
    expect_same(mapped(both, lambda t: t[:1]), alone, "an image alone and in a batch of two", 1e-3)


@MODULE_CHECKS.check("model.eval() and model.train() must reach every layer, and a forward must not undo them.")
def forward_keeps_the_mode(s: Subject) -> None:
    for training in (True, False):
        s.part.train(training)
        modes = [m.training for m in s.part.modules()]
        s.part(s.inputs())
        expect(s.part.training is training, f"train({training}) leaves training={s.part.training}")
        expect([m.training for m in s.part.modules()] == modes, f"forward in training={training} changed a mode")


@MODULE_CHECKS.check("the fast memory layout on GPUs would change what the network says.")
def channels_last_gives_the_same(s: Subject) -> None:
    value = s.inputs()
    last = mapped(value, lambda t: t.contiguous(memory_format=torch.channels_last))
    with must_not_raise("a forward in channels_last"):
        result = evaluated(s, last)
    expect_same(result, evaluated(s, value), "channels_last against contiguous", 1e-3)


@MODULE_CHECKS.check("training with train.precision: bf16 or fp16 would end in NaN or in an error of types.")
def autocast_is_finite(s: Subject) -> None:
    with must_not_raise("a forward under bfloat16 autocast"), torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = tensors(s.part(s.inputs()))
    for i, o in enumerate(outputs):
        expect(o.isfinite().all(), f"output {i} is not finite under bfloat16 autocast")


@MODULE_CHECKS.check("torch.compile would fall back to slow code or fail.")
def compiles_to_one_graph(s: Subject) -> None:
    value = s.inputs()
    expected = evaluated(s, value)
    torch._dynamo.reset()
    try:
        with must_not_raise("torch.compile(fullgraph=True)"), torch.no_grad():
            compiled: Any = torch.compile(s.part, backend="eager", fullgraph=True)
            result = compiled(value)
    finally:
        torch._dynamo.reset()
    expect_same(result, expected, "compiled against not compiled", 1e-4)


@MODULE_CHECKS.check("the finished detector could not be exported.")
def exports(s: Subject) -> None:
    value = s.inputs()
    expected = evaluated(s, value)
    with must_not_raise("torch.export"), torch.no_grad():
        result = torch.export.export(s.part, (value,), strict=False).module()(value)
    expect_same(result, expected, "exported against not exported", 1e-4)


@MODULE_CHECKS.check("a checkpoint would not bring back what was trained.")
def state_dict_round_trip(s: Subject) -> None:
    value = s.inputs()
    s.part(value)  # so that running figures differ from those of a new part
    state = saved_state(s.part)
    torch.manual_seed(99)
    other = s.build()
    with must_not_raise("loading the saved state into a new part"):
        other.load_state_dict(state)
    with torch.no_grad():
        expect_same(other.eval()(value), evaluated(s, value), "a part with the loaded state against the first")


@COPY_CHECK.check("the EMA copies the model and workers pickle what they are given.")
def copies_and_pickles(s: Subject) -> None:
    if isinstance(s.part, nn.Module):
        s.part.zero_grad(set_to_none=True)
    with must_not_raise("copying it"):
        other = copy.deepcopy(s.part)
    if isinstance(s.part, nn.Module):
        state, copied = ({n: t for n, t in part.state_dict().items() if isinstance(t, Tensor) and t.numel()}
                        for part in (s.part, other))  # fmt: skip
        pointers = {t.data_ptr() for t in state.values()}
        shared = [n for n, t in copied.items() if t.data_ptr() in pointers]
        expect(not shared, f"a copy shares {', '.join(shared[:4])} with the first: both change together")
    if "<locals>" not in type(s.part).__qualname__:  # a class of a function can't be pickled, whatever it holds
        with must_not_raise("pickling it"):
            pickle.loads(pickle.dumps(s.part))

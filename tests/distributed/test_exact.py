"""The pieces that make a step the same in several processes, each in two real ones (gloo)."""

import multiprocessing
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from detkit.layers.norms import SyncBatchNorm2d
from detkit.structures import Batch, Predictions
from detkit.train.options import TrainOptions
from detkit.train.parallel import largest_image, share_buffers, wrap_forward

CPU = torch.device("cpu")
PROCESSES = 2


def whole_batch() -> Any:
    """What the two processes have together, half each."""
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2 * PROCESSES, 5, 6, 7, generator=generator) * 3 + 10,
        torch.randn(2 * PROCESSES, 5, 6, 7, generator=generator),
    )


def make_norm(kind: Any) -> Any:
    layer = kind(5)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 6.0))
        layer.bias.copy_(torch.arange(5.0))
    return layer


def normalise(layer: Any, x: Any, weights: Any) -> Any:
    x = x.clone().requires_grad_()
    out = layer(x)
    (out * weights).sum().backward()
    gradients = torch.stack([layer.weight.grad, layer.bias.grad])
    return {"out": out.detach(), "x": x.grad, "parameters": gradients, **dict(layer.named_buffers())}


class Forward(nn.Module):
    """Gives a dataclass, as a detector does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: Any) -> Any:
        y = self.layer(x)
        return Predictions(y, y, y, (1,))


def gradient(compression: Any, parallel_inputs: Any, world_size: Any) -> Any:
    """The mean over processes of what a linear layer gets."""
    options = TrainOptions(iterations=1, gradient_compression=compression)
    model: Any = Forward()
    forward = wrap_forward(model, options, world_size)
    forward(parallel_inputs).logits.sum().backward()
    return model.layer.weight.grad.clone()


def inputs(rank: Any) -> Any:
    return torch.randn(3, 64, generator=torch.Generator().manual_seed(rank))


def batch(height: Any, width: Any) -> Any:
    empty = torch.zeros(1, 2, dtype=torch.int64)
    return Batch(torch.zeros(1, 3, height, width, dtype=torch.uint8), empty, [], empty, [0], [""])


def work(rank: Any, folder: Any, answers: Any) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    x, weights = (t.chunk(PROCESSES)[rank] for t in whole_batch())
    mine = [batch(64, 32), batch(32, 96)] if rank else [batch(32, 128), batch(32, 32)]
    model = nn.BatchNorm2d(2)
    model.running_mean.fill_(rank + 1.0)
    share_buffers(model)
    layer = make_norm(SyncBatchNorm2d)
    found = {
        "norm": normalise(layer, x, weights),
        "bf16": make_norm(SyncBatchNorm2d)(x.bfloat16()),
        "evaluated": layer.eval()(x),
        "size": largest_image(mine, CPU, PROCESSES),
        "mean": model.running_mean,
        "none": gradient("none", inputs(rank), PROCESSES),
        "compressed": gradient("bf16", inputs(rank), PROCESSES),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    answers.put(rank)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the processes saw, by rank."""
    folder = tmp_path_factory.mktemp("exact")
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    workers = [context.Process(target=work, args=(rank, str(folder), answers)) for rank in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


def test_sync_bn_of_two_processes_is_bn_over_the_whole_batch(found: Any) -> None:
    layer = make_norm(nn.BatchNorm2d)
    x, weights = whole_batch()
    whole = normalise(layer, x, weights)
    parts = [f["norm"] for f in found]
    near: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-4}
    for name in ("out", "x"):
        torch.testing.assert_close(torch.cat([p[name] for p in parts]), whole[name], **near)
    torch.testing.assert_close(parts[0]["parameters"] + parts[1]["parameters"], whole["parameters"], **near)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(parts[0][name], whole[name])
        assert torch.equal(parts[0][name], parts[1][name])
    torch.testing.assert_close(torch.cat([f["evaluated"] for f in found]), layer.eval()(x))


def test_sync_bn_keeps_the_precision_that_it_is_given(found: Any) -> None:
    x, _ = whole_batch()
    whole = make_norm(nn.BatchNorm2d)(x.bfloat16())
    got = torch.cat([f["bf16"] for f in found])
    assert got.dtype is torch.bfloat16
    torch.testing.assert_close(got, whole, rtol=2e-2, atol=2e-2)


def test_all_agree_on_the_largest_sides(found: Any) -> None:
    assert [f["size"] for f in found] == [(64, 128)] * PROCESSES


def test_all_get_the_buffers_of_the_first(found: Any) -> None:
    assert [f["mean"].tolist() for f in found] == [[1.0, 1.0]] * PROCESSES


def test_gradients_are_the_mean_and_in_bf16_nearly_so(found: Any) -> None:
    exact = torch.stack([gradient("none", inputs(rank), 1) for rank in range(PROCESSES)]).mean(0)
    for f in found:
        torch.testing.assert_close(f["none"], exact)
        far = (f["compressed"] - exact).norm() / exact.norm()
        assert 1e-5 < far < 1e-2
        assert f["compressed"].dtype is torch.float32

"""The evaluation loop, with a detector that knows the answers."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.loader import LoaderOptions, SampleError, build_eval_loader
from detkit.data.transforms.geometry import Resize
from detkit.evaluate.coco import CocoResult
from detkit.evaluate.loop import compute_everywhere, evaluate, self_test
from detkit.predict.rescale import to_original
from detkit.structures import Batch, Detections
from tests.refusals import Refuses


class Oracle(nn.Module):
    """Puts out the targets of the batch that the loader gave last, moved by `shift` times the side."""

    def __init__(self, loader: Any, shift: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.loader, self.shift = loader, shift
        self.modes: list[tuple[bool, bool]] = []

    def __iter__(self) -> Any:
        for batch in self.loader:
            self.batch = batch
            yield batch

    def forward(self, images: Tensor, sizes: Tensor) -> Batch:
        assert images.shape == self.batch.images.shape
        assert torch.equal(sizes, self.batch.sizes)
        self.modes.append((self.training, torch.is_inference_mode_enabled()))
        return self.batch

    def detect(self, pred: Batch, sizes: Tensor) -> list[Detections]:
        out = []
        for t in pred.targets:
            width = (t.boxes[:, 2:3] - t.boxes[:, 0:1]) * torch.tensor([1.0, 0.0, 1.0, 0.0])
            out.append(Detections(t.boxes + self.shift * width, torch.full((len(t.labels),), 0.7), t.labels))
        return out


def make_loader(dataset: ShapesDataset, **split: int) -> Any:
    """Images squeezed to another shape, so that x and y are scaled by different factors."""
    transforms = [Resize(height=120, width=200)]
    return build_eval_loader(dataset, transforms, LoaderOptions(batch_size=4, num_workers=0), **split)


@pytest.fixture(scope="module")
def dataset() -> ShapesDataset:
    return ShapesDataset(num_images=14, split="val")


def test_a_perfect_detector_gets_one(dataset: ShapesDataset) -> None:
    oracle: Any = Oracle(make_loader(dataset)).train()
    result = evaluate(oracle, dataset, oracle, progress=False)
    assert result.ap == pytest.approx(1.0, abs=1e-9)
    assert result.num_images == 14
    assert set(result.seconds) == {"data", "network", "postprocess", "metrics"}
    assert min(result.seconds.values()) > 0
    assert oracle.training
    assert set(oracle.modes) == {(False, True)}


def test_boxes_that_are_off_lose_the_high_thresholds(dataset: ShapesDataset) -> None:
    """Moved by a fifth of their width, IoU is 2/3: right at 0.50 to 0.65, four of ten thresholds."""
    oracle: Any = Oracle(make_loader(dataset), shift=0.2).eval()
    result = evaluate(oracle, dataset, oracle, progress=False)
    assert result.metrics["ap50"] == pytest.approx(1.0, abs=1e-9)
    assert result.metrics["ap75"] == 0.0
    assert result.ap == pytest.approx(0.4, abs=1e-9)
    assert not oracle.training


def test_the_mode_comes_back_after_an_error(refuses: Refuses, dataset: ShapesDataset) -> None:
    class Broken(Oracle):
        def detect(self, pred: Batch, sizes: Tensor) -> list[Detections]:
            raise RuntimeError("no")

    broken: Any = Broken(make_loader(dataset)).train()
    with refuses(RuntimeError):
        evaluate(broken, dataset, broken, progress=False)
    assert broken.training


def test_self_test_gives_one(dataset: ShapesDataset) -> None:
    test = self_test(dataset, make_loader(dataset))
    assert test.pipeline.ap == test.file.ap == pytest.approx(1.0, abs=1e-9)
    assert (test.differing, test.missing) == (0, 0)


def test_boxes_go_back_to_the_file_per_axis() -> None:
    d = Detections(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([0.5]), torch.tensor([1]))
    (back,) = to_original([d], torch.tensor([[10, 20]]), torch.tensor([[30, 40]]))
    assert back.boxes.tolist() == [[2.0, 6.0, 6.0, 12.0]]
    assert back.labels.tolist() == [1]


def _rank(rank: int, world_size: int, images: int, folder: str, fail: bool, answers: Any) -> None:
    """One of several processes with a part of the images each (all evaluate the first part if `fail`)."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    dataset = ShapesDataset(num_images=images, split="val")
    oracle: Any = Oracle(make_loader(dataset, rank=0 if fail else rank, world_size=world_size), shift=0.2)
    try:
        answers.put((rank, evaluate(oracle, dataset, oracle, progress=False)))
    except ValueError as error:
        answers.put((rank, str(error)))
    torch.distributed.destroy_process_group()


class WithoutOne(ShapesDataset):
    """Image 2 can't be read, which two processes give to the second of them."""

    def load_image(self, index: int) -> Any:
        if index == 1:
            raise OSError("the disk is gone")
        return super().load_image(index)


def _rank_without_one(rank: int, world_size: int, images: int, folder: str, fail: bool, answers: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    dataset = WithoutOne(num_images=images, split="val")
    oracle: Any = Oracle(make_loader(dataset, rank=rank, world_size=world_size))
    try:
        evaluate(oracle, dataset, oracle, progress=False)
    except SampleError as error:
        answers.put((rank, str(error)))
    torch.distributed.destroy_process_group()


def several_processes(folder: Path, world_size: int, images: int, fail: bool, target: Any = _rank) -> dict[int, Any]:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    workers = [
        context.Process(target=target, args=(r, world_size, images, str(folder), fail, answers))
        for r in range(world_size)
    ]
    for worker in workers:
        worker.start()
    got = dict(answers.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    return got


def test_an_image_that_two_processes_bring_is_refused_by_both(tmp_path: Path) -> None:
    got = several_processes(tmp_path, 2, 7, fail=True)
    assert "added twice" in got[0]
    assert got[1] == got[0]


def test_an_image_that_one_process_can_not_read_is_told_by_all(tmp_path: Path) -> None:
    got = several_processes(tmp_path, 2, 5, fail=False, target=_rank_without_one)
    assert got == dict.fromkeys((0, 1), "image 2 (val_000002.png): the disk is gone")


@pytest.mark.parametrize(
    ("world_size", "images"),
    [pytest.param(2, 7, id="uneven", marks=pytest.mark.slow), pytest.param(3, 2, id="more than images")],
)
def test_several_processes_give_what_one_gives(tmp_path: Path, world_size: int, images: int) -> None:
    got = several_processes(tmp_path, world_size, images, fail=False)
    dataset = ShapesDataset(num_images=images, split="val")
    oracle: Any = Oracle(make_loader(dataset), shift=0.2)
    alone = evaluate(oracle, dataset, oracle, progress=False)

    def figures(result: CocoResult) -> Any:
        return result.metrics, result.per_class, result.num_images, result.num_detections

    assert len(got) == world_size
    assert all(figures(result) == figures(alone) for result in got.values())


def test_without_processes_nothing_is_gathered(refuses: Refuses, dataset: ShapesDataset) -> None:
    from detkit.evaluate.coco import CocoEvaluator, ground_truth_from

    evaluator = CocoEvaluator(dataset.classes, ground_truth_from(dataset))
    with refuses(ValueError):
        compute_everywhere(evaluator)

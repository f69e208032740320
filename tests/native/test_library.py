"""A binary that is missing, broken or old: import works, one warning names it, the results stay."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detkit.native import library
from detkit.ops import batched_nms, nms, nms_mask, sigmoid_focal, sigmoid_focal_sum
from detkit.ops.suppression import hard as hard_nms
from tests.refusals import Refuses

ROOT = Path(__file__).resolve().parents[2]


def test_the_native_library_is_loaded() -> None:
    assert library.native.cpu, library.native.cpu_problem


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = library.Native(False, False, "the library is gone", "the library is gone")
    monkeypatch.setattr(hard_nms, "_native_nms", None)
    monkeypatch.setattr(hard_nms, "native", gone)
    monkeypatch.setattr(sigmoid_focal, "native", gone)
    monkeypatch.setattr(library, "native", gone)
    monkeypatch.setattr(library, "_warned", set())
    monkeypatch.delenv("DETKIT_REQUIRE_NATIVE", raising=False)


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    low = torch.rand(200, 2, generator=g) * 50
    boxes = torch.cat([low, low + torch.rand(200, 2, generator=g) * 20], 1)
    scores = (torch.rand(200, generator=g) * 9).round()
    return boxes, scores, torch.randint(-2, 3, (200,), generator=g)


@pytest.mark.usefixtures("without_native")
@pytest.mark.parametrize("torchvision", [True, False])
def test_the_fall_back_gives_the_same_and_is_named_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, torchvision: bool
) -> None:
    boxes, scores, groups = example()
    if not torchvision:
        monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    with caplog.at_level(logging.WARNING, "detkit"):
        slow = [
            nms(boxes, scores, 0.5),
            batched_nms(boxes, scores.half(), groups, 0.5),
            nms_mask(boxes, groups, 0.5),
        ]
        slow.append(nms(boxes.bfloat16(), scores, 0.5))
        slow.append(nms(boxes[:0], scores[:0], 0.5))
        slow.append(batched_nms(boxes[:0], scores[:0], groups[:0], 0.5))
        slow.append(sigmoid_focal_sum(boxes, groups))
    assert [r.getMessage() for r in caplog.records] == [
        "the library is gone. Ops fall back to torchvision and plain PyTorch, which is slower. "
        "Build it: detkit doctor --build"
    ]
    monkeypatch.undo()
    fast = [
        nms(boxes, scores, 0.5),
        batched_nms(boxes, scores.half(), groups, 0.5),
        nms_mask(boxes, groups, 0.5),
    ]
    fast.append(nms(boxes.bfloat16(), scores, 0.5))
    fast.append(nms(boxes[:0], scores[:0], 0.5))
    fast.append(batched_nms(boxes[:0], scores[:0], groups[:0], 0.5))
    torch.testing.assert_close(slow.pop(), sigmoid_focal_sum(boxes, groups), rtol=1e-5, atol=0)
    for got, wanted in zip(slow, fast, strict=True):
        assert got.dtype == wanted.dtype
        assert torch.equal(got, wanted)


@pytest.mark.usefixtures("without_native")
def test_the_fall_back_can_be_forbidden(refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETKIT_REQUIRE_NATIVE", "1")
    boxes, scores, _ = example()
    with refuses(RuntimeError):
        nms(boxes, scores, 0.5)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "_C is not built"), (b"no library", "was built with torch 9.9 and does not load under torch")],
)
def test_what_is_wrong_with_a_binary_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, words: str
) -> None:
    monkeypatch.setattr(library, "PACKAGE", tmp_path)
    (tmp_path / "_build_info.json").write_text('{"torch": "9.9"}')
    monkeypatch.setattr(library, "build_info", lambda: {"torch": "9.9"})
    if content is not None:
        (tmp_path / "_C.abi3.so").write_bytes(content)
    found = library._load_all()
    assert not found.cpu
    assert words in (found.cpu_problem or "")
    assert found.cuda_problem == found.cpu_problem


def test_a_truncated_binary_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader would take the process down with it (a bus error), `detkit doctor` included."""
    whole = next(library.PACKAGE.glob("_C.*so")).read_bytes()
    record = {"torch": "9.9", "bytes": {"_C.abi3.so": len(whole)}}
    monkeypatch.setattr(library, "PACKAGE", tmp_path)
    monkeypatch.setattr(library, "build_info", lambda: record)
    target = tmp_path / "_C.abi3.so"
    for size in (0, 64, len(whole) // 2, len(whole) - 1):
        target.write_bytes(whole[:size])
        assert library._load("_C") == f"_C.abi3.so is truncated: {size} of {len(whole)} bytes"
    del record["bytes"]  # the record of an older detkit
    target.write_bytes(whole[:63])
    assert "does not load under torch" in (library._load("_C") or "")


def test_the_record_holds_the_sizes_of_the_libraries() -> None:
    libraries = {path.name: path.stat().st_size for path in library.PACKAGE.glob("_C*.so")}
    assert library.build_info()["bytes"] == libraries


def test_a_binary_that_can_t_be_read_is_a_problem_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "PACKAGE", tmp_path)
    target = tmp_path / "_C.abi3.so"
    target.symlink_to(tmp_path / "nowhere")
    assert library._load("_C") == f"{target} can't be read: No such file or directory"


def test_another_device_is_not_told_to_build_anything(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_warned", set())
    monkeypatch.delenv("DETKIT_REQUIRE_NATIVE", raising=False)
    with caplog.at_level(logging.WARNING, "detkit"):
        library.fall_back("mps")
    (said,) = [r.getMessage() for r in caplog.records]
    assert said.startswith("detkit has no native ops for the device 'mps'. ")
    assert "detkit doctor" not in said


def test_a_binary_older_than_the_package_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "OPS", ("nms", "op_of_tomorrow"))
    monkeypatch.setattr(library, "_load", lambda name: None)
    assert library._load_all().cpu_problem == ("the native library is older than this detkit: it lacks op_of_tomorrow")


def test_another_major_version_of_cuda_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(library, "_load", lambda name: loaded.append(name))
    monkeypatch.setattr(library.torch.version, "cuda", "12.8")
    monkeypatch.setattr(library, "build_info", lambda: {"torch_cuda": "13.0"})
    found = library._load_all()
    assert found.cpu
    assert not found.cuda
    assert "_C_cuda was built for CUDA 13.0, torch " in (found.cuda_problem or "")
    assert loaded == ["_C"]
    for built in ({"torch_cuda": "12.1"}, {}):
        monkeypatch.setattr(library, "build_info", lambda built=built: built)
        assert library._load_all().cuda


def test_a_broken_build_record_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "_build_info.json").write_text("{")
    assert library.build_info(tmp_path) == {}


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, detkit, detkit.ops, detkit.native.doctor, detkit.native.build; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""Loads the native libraries, says what went wrong where that fails, and names every fall-back once."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from detkit.native import PACKAGE, REBUILD
from detkit.utils.types import Tree

OPS = ("nms", "nms_mask", "soft_nms", "diou_nms", "sigmoid_focal", "sigmoid_focal_backward", "cpu_lanes")
logger = logging.getLogger("detkit")
_warned: set[str] = set()


@dataclass(frozen=True)
class Native:
    """What was loaded. A problem is a sentence, or None."""

    cpu: bool
    cuda: bool
    cpu_problem: str | None
    cuda_problem: str | None

    def has(self, t: torch.Tensor) -> bool:
        """Whether there are kernels for the tensor's device. Shapes alone (device "meta") need no kernel."""
        return self.cuda if t.is_cuda else self.cpu and (t.is_cpu or t.is_meta)


def build_info(package: Path = PACKAGE) -> Tree:
    """The build record beside the libraries; empty if it is missing or unreadable."""
    try:
        info = json.loads((package / "_build_info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def _load(name: str) -> str | None:
    """Loads detkit/<name>*.so. Returns the problem in a sentence, or None."""
    candidates = sorted(p for end in ("so", "pyd", "dylib") for p in PACKAGE.glob(f"{name}.*{end}"))
    if not candidates:
        return f"detkit's native library {name} is not built ({PACKAGE} holds none)"
    library, record = candidates[0], build_info()
    # The system's loader maps a truncated file, and the process dies of a bus error that no `except` catches.
    built_size = record.get("bytes", {}).get(library.name, 0)
    try:
        size = library.stat().st_size
    except OSError as error:
        return f"{library} can't be read: {error.strerror}"
    if size < built_size:
        return f"{library.name} is truncated: {size} of {built_size} bytes"
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]  # torch wraps the loader's message
        built, running = record.get("torch", "an unknown version"), torch.__version__
        return f"{library.name} was built with torch {built} and does not load under torch {running}: {reason}"
    return None


def _other_cuda(built: str | None, running: str) -> str | None:
    """The problem if the library needs another major version of the CUDA runtime than torch, else None.

    Such a library loads wherever that runtime is installed, and fails at its first kernel under an older driver.
    """
    if built is None or built.split(".")[0] == running.split(".")[0]:
        return None
    return f"_C_cuda was built for CUDA {built}, torch {torch.__version__} runs CUDA {running}"


def _load_all() -> Native:
    problem = _load("_C")
    if problem is None:
        missing = [op for op in OPS if not hasattr(torch.ops.detkit, op)]
        if missing:
            problem = f"the native library is older than this detkit: it lacks {', '.join(missing)}"
    if problem is not None:
        return Native(False, False, problem, problem)
    if torch.version.cuda is None:
        return Native(True, False, None, f"torch {torch.__version__} has no CUDA")
    cuda_problem = _other_cuda(build_info().get("torch_cuda"), torch.version.cuda) or _load("_C_cuda")
    return Native(True, cuda_problem is None, None, cuda_problem)


native = _load_all()


def fall_back(device: str) -> None:
    """Call before an op runs without its kernel on `device`: warns once per device.

    Raises RuntimeError instead if DETKIT_REQUIRE_NATIVE=1.
    """
    problem = {"cpu": native.cpu_problem, "cuda": native.cuda_problem}.get(device)
    remedy = f"Build it: {REBUILD}" if problem else "Native ops exist for cpu and cuda"
    problem = problem or f"detkit has no native ops for the device {device!r}"
    if os.environ.get("DETKIT_REQUIRE_NATIVE") == "1":
        raise RuntimeError(f"{problem}, and DETKIT_REQUIRE_NATIVE=1 forbids the fallback. {remedy}")
    if device not in _warned:
        _warned.add(device)
        logger.warning("%s. Ops fall back to torchvision and plain PyTorch, which is slower. %s", problem, remedy)

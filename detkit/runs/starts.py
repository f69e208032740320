"""The starts of a run: code, threads, machine and libraries of each, and what differs at a resume.

environment.json keeps all starts of a run: `starts` in their order, and under `code` the files of each different
fingerprint once. A checkpoint holds that of the process that wrote it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import torch

from detkit.checkpoint import Checkpoint
from detkit.config import Config
from detkit.fingerprint import Code, changes, digest, fingerprint
from detkit.runs.environment import cpu_name
from detkit.runs.folder import ENVIRONMENT
from detkit.utils.types import Tree, Value
from detkit.version import __version__

log = logging.getLogger("detkit")

LIBRARIES = ("torch", "torchvision", "numpy", "pillow")
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS", "MKL_DYNAMIC", "OMP_DYNAMIC", "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_CUDNN_V8_API_DISABLED", "TORCH_BLAS_PREFER_CUBLASLT",
)  # fmt: skip
"""Environment variables that choose kernels, or the number of threads of one library."""
INSTRUCTIONS = ("avx2", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16")


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a run.

    code: empty if not known. facts: what may change bits besides: threads, processes, device, machine, libraries.
    step: steps done before. changed: sentences on what differs from the start before. allowed: what the user allowed.
    """

    code: Code = field(default_factory=dict)
    facts: Tree = field(default_factory=dict)
    step: int = 0
    time: str = ""
    command: str = ""
    changed: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


def this_start(config: Config, device: torch.device, processes: int, command: str = "") -> Start:
    """The start that this process makes, before it has trained."""
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    return Start(code=fingerprint(config), facts=facts(device, processes), time=time, command=command)


def facts(device: torch.device, processes: int) -> Tree:
    """What changes the order or kind of additions: threads, machine, device, libraries, in plain values."""
    from detkit.native.library import native

    capabilities = torch.cpu.get_capabilities()
    values: Tree = {
        "threads": torch.get_num_threads(),
        "processes": processes,
        "cpu": cpu_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": " ".join(name for name in INSTRUCTIONS if capabilities.get(name)) or "none of note",
        "native_lanes": int(torch.ops.detkit.cpu_lanes()) if native.cpu else 0,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "variables": " ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ) or "none",
        "system": f"{platform.system()} {platform.machine()}",
        "detkit": __version__,
        "python": platform.python_version(),
        **{name: installed_version(name) for name in LIBRARIES},
        "torch": str(torch.__version__),
    }
    if device.type == "cuda":
        values |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
    return values


def installed_version(name: str) -> str | None:
    """The version that is installed, None where the package came without its metadata."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def code_changes(old: Start, new: Start) -> list[str]:
    """A line for each file of code that differs; none where the old code is not known."""
    return changes(old.code, new.code) if old.code else []


def fact_changes(old: Start, new: Start) -> list[str]:
    """A line for each fact that differs, of those that both know."""
    both = sorted(old.facts.keys() & new.facts.keys() - {"processes"})
    changed = [name for name in both if old.facts[name] != new.facts[name]]
    return [f"{name}: {old.facts[name]} before, {new.facts[name]} now" for name in changed]


def to_plain(start: Start) -> Tree:
    """The start as a checkpoint holds it."""
    return asdict(start) | {"changed": list(start.changed), "allowed": list(start.allowed)}


def from_plain(values: Mapping[str, Value] | None) -> Start:
    """The inverse of `to_plain`; an empty start for a checkpoint of an older detkit."""
    known = {name: value for name, value in (values or {}).items() if name in Start.__dataclass_fields__}
    return Start(**known | {name: tuple(known.get(name) or ()) for name in ("changed", "allowed")})


def with_starts(content: Mapping[str, Value], starts: Sequence[Start]) -> Tree:
    """The content of environment.json: the environment of the newest start, and all starts."""
    code = {digest(start.code): start.code for start in starts if start.code}
    rows = [to_plain(start) | {"code": digest(start.code) if start.code else None} for start in starts]
    return {**content, "starts": rows, "code": code}


def read_starts(folder: Path) -> list[Start]:
    """All starts of a run, oldest first; a single one with few facts for a run of an older detkit; none without a run.

    Raises ValueError for a damaged file.
    """
    path = folder / ENVIRONMENT
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "starts" not in content:
            return [of_old(content)]
        code = content["code"]
        return [from_plain(row | {"code": code[row["code"]] if row["code"] else {}}) for row in content["starts"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def of_old(content: Mapping[str, Value]) -> Start:
    """A start as an older detkit recorded it: no code, some facts."""
    machine, versions = content.get("machine") or {}, content.get("versions") or {}
    known = {name: machine[name] for name in ("threads", "cpu") if name in machine}
    return Start(facts=known | dict(versions), command=str(content.get("command", "")))


def starts_before(folder: Path, saved: Checkpoint) -> list[Start]:
    """The earlier starts of a resumed run; only the checkpoint's own where the file is lost or damaged."""
    starts: list[Start] = []
    try:
        starts = read_starts(folder)
    except ValueError as error:
        log.warning("%s; the starts before the last checkpoint are lost", error)
    return starts or [from_plain(saved.start)]

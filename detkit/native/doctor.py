"""`detkit doctor`: what is installed, what was built against what, and the command that fixes it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path

from detkit.native import PACKAGE, REBUILD
from detkit.utils.types import Tree


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--build", action="store_true", help="first compile the native libraries into the installed package"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the report; 0 if the native CPU ops (and the CUDA ones where torch has a GPU) work, else 1."""
    if args.build:
        from detkit.native.build import build_in_place

        build_in_place(PACKAGE)
        print(f"built into {PACKAGE}\n")
    print(f"detkit    {_version('detkit')} at {PACKAGE}")
    print(f"python    {platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}")
    for copy in copies(sys.path):
        print(f"WARNING   another detkit is on sys.path: {copy}; the one above is in use")
    if importlib.util.find_spec("torch") is None:
        print("torch     missing: pip install torch torchvision")
        return 1
    return _report()


def copies(path: list[str]) -> list[Path]:
    """Other folders on `path` that also hold a detkit package."""
    packages = {Path(entry or os.curdir, "detkit").resolve() for entry in path}
    return sorted(p for p in packages if p != PACKAGE and (p / "__init__.py").exists())


def _report() -> int:
    import torch

    from detkit.native.build import source_digest
    from detkit.native.library import build_info, native

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cuda = torch.version.cuda or "none"
    print(f"torch     {torch.__version__}, CUDA {cuda}, GPUs: {', '.join(gpus) or 'none'}")
    print(f"vision    {_version('torchvision')}")
    info = build_info(PACKAGE)
    for line in _build_lines(info):
        print(f"built     {line}")
    if native.cpu:
        names = {4: "portable", 8: "AVX2", 16: "AVX-512"}
        lanes = torch.ops.detkit.cpu_lanes()
        print(f"cpu ops   work ({names[lanes]}, {torch.get_num_threads()} threads)")
    else:
        print(f"cpu ops   MISSING: {native.cpu_problem}")
    print(f"cuda ops  {'loaded' if native.cuda else f'missing: {native.cuda_problem}'}")
    stale = info.get("sources") not in (None, source_digest(PACKAGE.parent))
    if stale:
        print("WARNING   the native sources have changed since the build")
    broken = not native.cpu or bool(gpus and not native.cuda) or stale
    if broken:
        print(f"rebuild   {REBUILD}   (DETKIT_CUDA=1 requires CUDA, 0 skips it)")
    return int(broken)


def _build_lines(info: Tree) -> list[str]:
    if not info:
        return ["no build record in the package: nothing was compiled here"]
    lines = [
        f"against torch {info.get('torch')} (CUDA {info.get('torch_cuda')}), "
        f"stable ABI of torch {info.get('abi_target')}: loads under it and later ones",
        f"by {info.get('compiler')} on {info.get('machine')}: {' '.join(info.get('cxx_flags') or [])}",
        f"CUDA: {info.get('cuda')}",
    ]
    if info.get("cuda_architectures"):
        lines[-1] += f", for {info['cuda_architectures']}: {' '.join(info.get('nvcc_flags') or [])}"
    return lines


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

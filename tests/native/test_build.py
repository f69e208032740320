"""The build: stable headers only, no torch for metadata, CUDA decided by the toolkit and never by a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import detkit
from detkit.native import build
from tests.refusals import Refuses

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(build.__file__).resolve().parents[1]  # the installed one has its sources too
CSRC = PACKAGE / "csrc"
SOURCES = sorted(p for p in CSRC.rglob("*") if p.suffix in (".cpp", ".h", ".cu"))


def test_there_are_sources() -> None:
    assert {p.suffix for p in SOURCES} == {".cpp", ".h", ".cu"}
    found = set(build.native_sources(str(PACKAGE.parent), "*", "*/*"))
    assert found >= {str(p.relative_to(PACKAGE.parent)) for p in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_only_the_stable_abi_is_included(path: Path) -> None:
    for name in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.MULTILINE):
        if (path.parent / name).exists():
            continue
        # The standard library, the CUDA runtime, intrinsics, the operating system.
        own_world = "/" not in name or name.startswith("sys/")
        assert own_world or re.match(r"torch/(csrc/stable|headeronly)/", name), name
    assert "Py_LIMITED_API" not in path.read_text(encoding="utf-8")


def test_the_flags_hold_the_abi_and_the_rounding() -> None:
    for flags in (build.CXX_FLAGS, build.NVCC_FLAGS):
        assert "-DTORCH_TARGET_VERSION=0x020a000000000000" in flags
        assert "-DTORCH_STABLE_ONLY" in flags
        assert not any("fast-math" in flag for flag in flags)
    assert "-ffp-contract=off" in build.CXX_FLAGS
    assert "--fmad=false" in build.NVCC_FLAGS


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="setup.py is in a source tree only")
def test_metadata_is_read_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['setup.py', '--version'];"
        "sys.modules['torch'] = None; import runpy; runpy.run_path('setup.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == detkit.__version__


def test_compiling_without_torch_ends_in_one_sentence(refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    from setuptools import Distribution

    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("DETKIT_NATIVE", raising=False)
    with refuses(SystemExit):
        build.extensions(str(PACKAGE.parent))
    distribution = Distribution({"name": "detkit", **build.setup_arguments()})
    with refuses(SystemExit):
        distribution.run_command("build_ext")


def fake_toolkit(folder: Path, release: str = "13.0") -> Path:
    """A toolkit whose nvcc knows its own place, as the real one."""
    (folder / "bin").mkdir(parents=True)
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(
        f'#!/bin/sh\ncase "$1" in --version) echo "Cuda compilation tools, release {release}, V";;\n'
        f'--dryrun) echo "#$ TOP={folder}/bin/.." >&2;; esac\n'
    )
    nvcc.chmod(0o755)
    return folder


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("CUDA_HOME", "CUDA_PATH", "DETKIT_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    return monkeypatch


def test_cuda_home_is_where_the_real_nvcc_is(tmp_path: Path, no_cuda: pytest.MonkeyPatch) -> None:
    toolkit = fake_toolkit(tmp_path / "cuda")
    wrapper = tmp_path / "nvcc"
    wrapper.write_text(f'#!/bin/sh\nexec {toolkit}/bin/nvcc "$@"\n')
    wrapper.chmod(0o755)
    assert build.find_cuda() is None
    no_cuda.setattr(build.shutil, "which", lambda name: str(wrapper) if name == "nvcc" else None)
    assert build.find_cuda() == os.path.realpath(toolkit)
    no_cuda.setenv("CUDA_HOME", str(fake_toolkit(tmp_path / "other")))
    assert build.find_cuda() == str(tmp_path / "other")


def test_cuda_is_decided_by_wish_toolkit_and_torch(
    refuses: Refuses, tmp_path: Path, no_cuda: pytest.MonkeyPatch
) -> None:
    import torch

    no_cuda.setattr(torch, "version", SimpleNamespace(cuda="13.0"))
    assert build.cuda_decision() == (None, "no CUDA toolkit (nvcc) found")
    no_cuda.setenv("DETKIT_CUDA", "1")
    with refuses(SystemExit):
        build.cuda_decision()
    no_cuda.setenv("CUDA_HOME", str(fake_toolkit(tmp_path / "cuda")))
    assert build.cuda_decision()[0] == str(tmp_path / "cuda")
    no_cuda.setenv("DETKIT_CUDA", "0")
    assert build.cuda_decision() == (None, "DETKIT_CUDA=0")
    no_cuda.setenv("DETKIT_CUDA", "yes")
    with refuses(SystemExit):
        build.cuda_decision()
    no_cuda.delenv("DETKIT_CUDA")
    no_cuda.setenv("CUDA_HOME", str(fake_toolkit(tmp_path / "old", "11.8")))
    root, reason = build.cuda_decision()
    assert root is None
    assert "11.8" in reason
    assert "does not fit torch's CUDA 13.0" in reason
    no_cuda.setattr(torch, "version", SimpleNamespace(cuda=None))
    assert build.cuda_decision()[0] is None


def test_the_digest_follows_the_sources(tmp_path: Path) -> None:
    folder = tmp_path / "detkit" / "csrc" / "cpu"
    folder.mkdir(parents=True)
    (folder / "a.cpp").write_text("1")
    first = build.source_digest(tmp_path)
    assert first == build.source_digest(tmp_path)
    (folder / "a.cpp").write_text("2")
    assert build.source_digest(tmp_path) != first


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("built", [False, True])
def test_a_cuda_library_of_an_earlier_build_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: bool, inplace: bool
) -> None:
    from setuptools import Distribution, Extension
    from torch.utils.cpp_extension import BuildExtension

    monkeypatch.setattr(BuildExtension, "build_extension", lambda self, ext: None)
    monkeypatch.setattr(BuildExtension, "run", lambda self: [self.build_extension(e) for e in self.extensions])
    monkeypatch.chdir(tmp_path)
    olds = [tmp_path / "lib" / "detkit" / "_C_cuda.abi3.so", tmp_path / "detkit" / "_C_cuda.abi3.so"]
    for old in olds:
        old.parent.mkdir(parents=True)
        old.touch()
    names = ["detkit._C", "detkit._C_cuda"][: 1 + built]
    distribution = Distribution({"name": "detkit", "ext_modules": [Extension(name, []) for name in names]})
    command = build.command_class({})(distribution)
    command.build_lib, command.inplace = "lib", inplace
    command.ensure_finalized()
    command.run()
    assert olds[0].exists() == built
    assert olds[1].exists() == (built or not inplace)
    record = json.loads((olds[inplace].parent / build.INFO_FILE).read_text(encoding="utf-8"))
    assert record["bytes"] == ({olds[0].name: 0} if built else {})


@pytest.mark.slow
def test_builds_in_place_and_says_when_it_does_not_compile(tmp_path: Path) -> None:
    import shutil

    package = tmp_path / "detkit"
    shutil.copytree(CSRC, package / "csrc")
    code = f"import pathlib; from detkit.native.build import *; build_in_place(pathlib.Path({str(package)!r}))"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "DETKIT_CUDA": "0", "PYTHONPATH": str(PACKAGE.parent)}
    old = package / "_C_cuda.abi3.so"
    old.touch()
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (package / "_C.abi3.so").exists()
    assert not old.exists()
    assert (package / "_build_info.json").exists()
    (package / "csrc" / "ops.cpp").write_text("no C++")
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the native libraries did not compile" in done.stderr.strip().splitlines()[-1]

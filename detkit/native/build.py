"""Compiles the native libraries, for setup.py and for `detkit doctor --build`.

setup.py loads this file by its path, so nothing of detkit and no torch is imported at module level.
Two libraries against PyTorch's stable ABI: `_C` (CPU) and, where a CUDA toolkit is found, `_C_cuda`. Neither
is a Python module: torch.ops.load_library loads them, so they fit every Python and every later torch.

Environment: DETKIT_NATIVE=0 builds nothing; DETKIT_CUDA=1 requires the CUDA library, 0 skips it;
TORCH_CUDA_ARCH_LIST (default 8.0;9.0+PTX), CUDA_HOME and MAX_JOBS as in torch.utils.cpp_extension.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ABI_TARGET = "2.10"
ABI_MACROS = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
# No fused products where none are written: NMS is exact. Comparisons that trap would keep loops from vectors.
FLOAT_FLAGS = ["-ffp-contract=off", "-fno-trapping-math"]
CXX_FLAGS = ["-O3", "-std=c++17", "-fvisibility=hidden", "-g0", *FLOAT_FLAGS, *ABI_MACROS]
NVCC_FLAGS = ["-O3", "-std=c++17", "--fmad=false", "-DUSE_CUDA", *ABI_MACROS]
ARCHITECTURES = "8.0;9.0+PTX"
INFO_FILE = "_build_info.json"
NO_TORCH = (
    "torch>=2.10 must be installed first and be visible to the build: pip install torch; then "
    "pip install --no-build-isolation . or python -m build --no-isolation. "
    "(DETKIT_NATIVE=0 pip install . installs detkit without its compiled ops.)"
)


def find_cuda() -> str | None:
    """Root of the CUDA toolkit: CUDA_HOME, else what nvcc reports (the one on PATH can be a wrapper)."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        root = os.environ.get(name)
        if root and os.path.exists(os.path.join(root, "bin", "nvcc")):
            return root
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "empty.cu")
        source.touch()
        said = subprocess.run([nvcc, "--dryrun", str(source)], capture_output=True, text=True, cwd=folder).stderr
    top = re.search(r"^#\$ TOP=(.+)$", said, re.MULTILINE)
    root = os.path.realpath(top.group(1).strip() if top else os.path.join(os.path.realpath(nvcc), "..", ".."))
    return root if os.path.exists(os.path.join(root, "bin", "nvcc")) else None


def cuda_decision() -> tuple[str | None, str]:
    """(toolkit root or None, reason). The building machine needs no GPU."""
    requested = os.environ.get("DETKIT_CUDA", "")
    if requested not in ("", "0", "1"):
        raise SystemExit(f"DETKIT_CUDA={requested}: must be 1 (build the CUDA library), 0 (skip it) or unset")
    if requested == "0":
        return None, "DETKIT_CUDA=0"
    import torch

    root = find_cuda()
    if root is None:
        reason = "no CUDA toolkit (nvcc) found"
    elif torch.version.cuda is None:
        root, reason = None, f"torch {torch.__version__} has no CUDA"
    else:
        release = toolkit_release(root)
        reason = f"toolkit {release} at {root}"
        if release.split(".")[0] != torch.version.cuda.split(".")[0]:
            root, reason = None, f"{reason} does not match torch's CUDA {torch.version.cuda}"
    if root is None and requested == "1":
        raise SystemExit(f"DETKIT_CUDA=1 but the CUDA library can't be built: {reason}")
    return root, reason


def native_sources(source_root: str, *patterns: str) -> list[str]:
    """Files of detkit/csrc, relative to `source_root`, sorted."""
    paths = [p for pattern in patterns for p in glob.glob(os.path.join(source_root, "detkit", "csrc", pattern))]
    return sorted(os.path.relpath(path, source_root) for path in paths)


def source_digest(source_root: str | Path) -> str:
    """Hash of the native sources, by which a stale binary is recognised."""
    digest = hashlib.sha256()
    for name in native_sources(str(source_root), "*", "*/*"):
        path = Path(source_root, name)
        if path.is_file():
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def toolkit_release(root: str) -> str:
    """Version of the toolkit, e.g. "13.0"."""
    said = subprocess.run([os.path.join(root, "bin", "nvcc"), "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+\.\d+)", said)
    return release.group(1) if release else "unknown"


def extensions(source_root: str = ".") -> tuple[list[Any], dict[str, Any]]:
    """The setuptools extensions and the build record so far.

    Sources are relative to `source_root`. Raises SystemExit with a sentence if torch is missing or too old.
    """
    if importlib.util.find_spec("torch") is None:
        raise SystemExit(NO_TORCH)
    import torch

    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < (2, 10):
        raise SystemExit(f"torch {torch.__version__} is too old: {NO_TORCH}")
    root, reason = cuda_decision()
    if root is not None:
        os.environ["CUDA_HOME"] = root
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
    from torch.utils import cpp_extension

    headers = native_sources(source_root, "*.h", "*/*.h", "*/*.cuh")
    built = [
        cpp_extension.CppExtension(  # type: ignore[no-untyped-call]
            "detkit._C",
            native_sources(source_root, "*.cpp", "cpu/*.cpp"),
            depends=headers,
            py_limited_api=True,
            extra_compile_args={"cxx": CXX_FLAGS},
        )
    ]
    if root is not None:
        cpp_extension.CUDA_HOME = root  # it may have been imported before CUDA_HOME was set
        built.append(
            cpp_extension.CUDAExtension(  # type: ignore[no-untyped-call]
                "detkit._C_cuda",
                native_sources(source_root, "cuda/*.cu"),
                depends=headers,
                py_limited_api=True,
                extra_compile_args={"cxx": [*CXX_FLAGS, "-DUSE_CUDA"], "nvcc": NVCC_FLAGS},
            )
        )
    info = {
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "abi_target": ABI_TARGET,
        "sources": source_digest(source_root),
        "cuda": reason,
        "cuda_architectures": os.environ.get("TORCH_CUDA_ARCH_LIST") if root else None,
        "compiler": compiler(),
        "cxx_flags": CXX_FLAGS,
        "nvcc_flags": NVCC_FLAGS if root else None,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    return built, info


def compiler() -> str:
    """First line of `c++ --version`."""
    try:
        said = subprocess.run([os.environ.get("CXX", "c++"), "--version"], capture_output=True, text=True).stdout
    except OSError as error:
        return f"unknown ({error})"
    return said.splitlines()[0] if said else "unknown"


def command_class(info: dict[str, Any]) -> type:
    """torch's build_ext, which skips a CUDA library that fails unless DETKIT_CUDA=1, and writes the build record."""
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        has_cuda = False

        def get_export_symbols(self, ext: Any) -> list[str]:
            return []  # these libraries have no PyInit

        def build_extension(self, ext: Any) -> None:
            try:
                super().build_extension(ext)
                self.has_cuda |= ext.name == "detkit._C_cuda"
            except Exception as error:
                if ext.name != "detkit._C_cuda" or os.environ.get("DETKIT_CUDA") == "1":
                    raise
                ext.optional = True  # the commands that copy it will not miss it
                info["cuda"] = f"failed ({info['cuda']}): {str(error).strip().splitlines()[0]}"
                print(f"detkit: the CUDA library was not built; {info['cuda']}", file=sys.stderr)

        def run(self) -> None:
            super().run()
            target = Path(self.get_ext_fullpath("detkit._C")).parent
            target.mkdir(parents=True, exist_ok=True)
            if not self.has_cuda:  # one of an earlier build does not match `_C`, and a wheel would include it
                for old in [*target.glob("_C_cuda.*"), *Path(self.build_lib, "detkit").glob("_C_cuda.*")]:
                    old.unlink(missing_ok=True)
            info["bytes"] = {path.name: path.stat().st_size for path in sorted(target.glob("_C*.*"))}
            (target / INFO_FILE).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")

    return Build


def setup_arguments() -> dict[str, Any]:
    """Arguments for setuptools.setup. Without torch, compiling ends in a sentence; the rest of setup.py works."""
    from setuptools import Extension
    from setuptools.command.build_ext import build_ext

    class NeedsTorch(build_ext):  # type: ignore[misc]
        def run(self) -> None:
            raise SystemExit(NO_TORCH)

    if os.environ.get("DETKIT_NATIVE") == "0":
        return {}
    options = {"bdist_wheel": {"py_limited_api": "cp310"}}
    if importlib.util.find_spec("torch") is None:
        extension = Extension("detkit._C", [], py_limited_api=True)
        return {"ext_modules": [extension], "cmdclass": {"build_ext": NeedsTorch}, "options": options}
    built, info = extensions()
    return {"ext_modules": built, "cmdclass": {"build_ext": command_class(info)}, "options": options}


def build_in_place(package: Path) -> None:
    """Compiles the libraries into the package folder. Raises SystemExit with a sentence on failure."""
    from setuptools import Distribution

    if not os.access(package, os.W_OK):
        raise SystemExit(f"{package} is not writable: run this as the user who installed detkit")
    root = package.parent
    built, info = extensions(str(root))
    with tempfile.TemporaryDirectory() as temporary:
        distribution = Distribution({"name": "detkit", "ext_modules": built, "script_name": "build"})
        command = command_class(info)(distribution)
        command.inplace, command.build_temp = 0, os.path.join(temporary, "objects")
        command.build_lib = os.path.join(temporary, "lib")
        before = os.getcwd()
        os.chdir(root)
        try:
            command.ensure_finalized()
            command.run()
        except Exception as error:
            raise SystemExit(f"the native libraries did not compile ({error}); the compiler output is above") from None
        finally:
            os.chdir(before)
        made = Path(temporary, "lib", "detkit")
        for old in package.glob("_C_cuda.*"):
            if not (made / old.name).exists():  # skipped or failed: an older one does not match `_C`
                old.unlink()
        for path in made.iterdir():
            fresh = package / f".{path.name}.new"
            shutil.copy2(path, fresh)
            os.replace(fresh, package / path.name)  # a running process keeps the library that it has open

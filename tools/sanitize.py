"""Runs the op tests on an instrumented build of the native library.

    python tools/sanitize.py                    # AddressSanitizer with UBSan, then ThreadSanitizer
    python tools/sanitize.py address --cases 20000
    python tools/sanitize.py --gpu              # compute-sanitizer's four tools over the CUDA tests
    python tools/sanitize.py --gpu memcheck     # one of them

The package is copied into a temporary folder and built there from whatever detkit/csrc holds, so the library in
use is not touched. Before the tests, bugs planted on purpose (tools/sanitizers) must be found and a clean op must
not be reported; after them, the instrumented library must have been the one that was loaded.

What is not looked for: leaks (Python frees little at its end), and errors inside PyTorch, Python and libgomp,
which are not instrumented. Under ThreadSanitizer parallel_for runs on plain threads, see
tools/sanitizers/threads.cpp; tools/sanitizers/thread.supp lists what is suppressed.
Needs GCC with libasan, libubsan and libtsan on Linux. Exit code 1 if anything is found or a planted bug is not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import _op_tests

ROOT = Path(__file__).resolve().parents[1]
PARTS = ROOT / "tools" / "sanitizers"
CAPABILITIES = ("default", "avx2", "best")
GPU_CHECKS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Python's own flags hold -fwrapv, which would make signed overflow a legal thing.
FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv"]
# These tests compile or look at files; no native op runs in them.
NOT_NATIVE = ("tests/native/test_build.py",)


@dataclass(frozen=True)
class Sanitizer:
    """One build. `planted` maps a call of detkit_planted to the words that its report must hold."""

    flags: tuple[str, ...]
    runtime: str
    sources: tuple[str, ...]
    symbol: str
    options: dict[str, str]
    planted: dict[str, str]


SANITIZERS = {
    "address": Sanitizer(
        flags=("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all", "-fno-sanitize=vptr"),
        runtime="libasan.so",
        sources=("planted_bugs.cpp",),
        symbol="__asan_report_load",
        options={
            "ASAN_OPTIONS": "detect_leaks=0:log_path={log}:strict_string_checks=1:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:log_path={log}",
        },
        planted={
            "past_the_tensor(torch.ones(33))": "heap-buffer-overflow",
            "past_the_vector(33)": "heap-buffer-overflow",
            "signed_overflow(7)": "signed integer overflow",
            "cast_of_nan(1.0)": "outside the range of representable values",
        },
    ),
    "thread": Sanitizer(
        flags=(
            "-fsanitize=thread",
            "-DDETKIT_SERIAL_BELOW=2",
            "-Dtorch_parallel_for=sanitizer_parallel_for",
            "-Dtorch_get_thread_idx=sanitizer_get_thread_idx",
        ),
        runtime="libtsan.so",
        sources=("planted_bugs.cpp", "threads.cpp"),
        symbol="__tsan_func_entry",
        options={"TSAN_OPTIONS": "exitcode=66:log_path={log}:suppressions={suppressions}"},
        planted={"race(1000)": "data race"},
    ),
}


def build(folder: Path, sanitizer: Sanitizer) -> Path:
    """Compiles the CPU library of the package copy in `folder`; the library's path."""
    from setuptools import Distribution

    from detkit.native import build as recipe

    os.environ["DETKIT_CUDA"] = "0"
    shutil.copytree(ROOT / "detkit", folder / "detkit", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in sanitizer.sources:
        shutil.copy2(PARTS / name, folder)
    (extension,), info = recipe.extensions(str(folder))
    extension.sources += sanitizer.sources
    extension.extra_compile_args["cxx"] = [*recipe.CXX_FLAGS, *FLAGS, *sanitizer.flags]
    extension.extra_link_args += [sanitizer.flags[0]]
    command = recipe.command_class(info)(
        Distribution({"name": "detkit", "ext_modules": [extension], "script_name": "build"})
    )
    command.build_temp, command.build_lib = str(folder / "objects"), str(folder)
    before = os.getcwd()
    os.chdir(folder)
    try:
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    (library,) = (folder / "detkit").glob("_C.*so")
    symbols = subprocess.run(["nm", "-D", str(library)], capture_output=True, text=True, check=True).stdout
    if sanitizer.symbol not in symbols:
        raise SystemExit(f"{library.name} is not instrumented: it lacks {sanitizer.symbol}")
    return library


def environment(folder: Path, sanitizer: Sanitizer) -> dict[str, str]:
    """Preloads the runtime (and libstdc++, whose exceptions it must find at its start)."""
    found = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in (sanitizer.runtime, "libstdc++.so.6")
    ]
    missing = [path for path in found if not os.path.isabs(path)]
    if missing:
        raise SystemExit(f"GCC has no {', '.join(missing)}: install the sanitizer runtimes of this GCC")
    values = {"log": folder / "reports" / "report", "suppressions": PARTS / "thread.supp"}
    return {
        **os.environ,
        "PYTHONPATH": str(folder),
        "LD_PRELOAD": " ".join(os.path.realpath(path) for path in found),
        "DETKIT_REQUIRE_NATIVE": "1",
        "OMP_NUM_THREADS": "4",
        "PYTHONMALLOC": "malloc",  # else Python's own pools hide what lies beside a block
        "DETKIT_SANITIZE_REGIONS": str(folder / "regions"),
        **{name: text.format(**values) for name, text in sanitizer.options.items()},
    }


def reports(folder: Path) -> str:
    """What the runtimes have written since the last call."""
    found = sorted((folder / "reports").glob("report*"))
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in found)
    for path in found:
        path.unlink()
    return text


def planted_bugs_are_seen(folder: Path, library: Path, sanitizer: Sanitizer, env: dict[str, str]) -> bool:
    """Every planted bug must be reported where it is, and the clean op must not."""
    good = True
    for call, words in [*sanitizer.planted.items(), ("no_bug(100000)", "")]:
        code = f"import torch; torch.ops.load_library({str(library)!r}); print(torch.ops.detkit_planted.{call})"
        done = subprocess.run([sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, text=True)
        said = reports(folder) + done.stderr
        if words:
            fine = done.returncode != 0 and words in said and "planted_bugs.cpp" in said
        else:
            fine = done.returncode == 0 and done.stdout.strip() == str(3 * 100000 * 99999 // 2 - 2 * 100000)
        outcome = f"reported: {words}" if words else "nothing reported"
        print(f"  planted {call}: {outcome if fine else 'NOT ' + outcome}", flush=True)
        if not fine:
            print(said[-4000:])
        good &= fine
    return good


def loaded_library(folder: Path, env: dict[str, str]) -> str:
    """The file that detkit's ops come from, as the system sees it."""
    code = (
        "import detkit.native.library as l; assert l.native.cpu, l.native.cpu_problem;"
        "print({line.split()[-1] for line in open('/proc/self/maps') if '/detkit/_C' in line})"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr[-2000:]


def run(name: str, cases: int, top: Path) -> bool:
    """Builds and tests under one sanitizer; whether everything is well."""
    sanitizer, folder = SANITIZERS[name], top / name
    (folder / "reports").mkdir(parents=True)
    library = build(folder, sanitizer)
    _op_tests.stage(folder)
    env = environment(folder, sanitizer)
    print(f"{name}: {' '.join(sanitizer.flags)}", flush=True)
    good = planted_bugs_are_seen(folder, library, sanitizer, env)
    loaded = loaded_library(folder, env)
    if loaded != str({str(library)}):
        print(f"  NOT the instrumented library: {loaded}")
        return False
    print("  loaded: the instrumented library and no other", flush=True)
    ignored = [f"--ignore={path}" for path in NOT_NATIVE]
    (folder / "regions").write_text("", encoding="utf-8")  # those of the planted ops don't count
    found = _op_tests.run(sys.executable, folder, env, "--timeout=1800", *ignored)
    print(f"  tests/ops: {found}" + ("" if found.good else f"\n{found.tail}"), flush=True)
    good &= found.good
    for script in sorted((folder / "tests/ops").glob("fuzz_*.py")):
        threads = ["--threads", "4"] if "--threads" in script.read_text(encoding="utf-8") else []
        for capability in CAPABILITIES:
            done = subprocess.run(
                [sys.executable, str(script), "--cases", str(cases), "--seed", "5000000", *threads],
                env=env | {"DETKIT_CPU_CAPABILITY": capability},
                cwd=folder,
                capture_output=True,
                text=True,
            )
            last = (done.stdout.strip() or done.stderr.strip() or "silent").splitlines()[-1]
            print(f"  {script.name}, {capability}: {last}", flush=True)
            good &= done.returncode == 0
    if "threads.cpp" in sanitizer.sources:
        regions = sum(map(int, (folder / "regions").read_text(encoding="utf-8").split()))
        print(f"  parallel regions that ran on several threads: {regions}")
        good &= regions > 0
    said = reports(folder)
    print(f"  reports: {said.count('SUMMARY') or 'some'}\n{said[-20000:]}" if said else "  reports: none", flush=True)
    return good and not said


def run_gpu(checks: Sequence[str], top: Path) -> bool:
    """compute-sanitizer over the tests marked gpu, on the library in use."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("--gpu: torch sees no CUDA device here")
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    nvcc = shutil.which("nvcc")
    if tool is None or nvcc is None:
        raise SystemExit("--gpu: needs nvcc and compute-sanitizer of the CUDA toolkit on PATH")
    planted = str(top / "planted")
    subprocess.run([nvcc, "-lineinfo", "-arch=native", "-o", planted, str(PARTS / "planted_bugs.cu")], check=True)
    folder = top / "gpu"
    folder.mkdir()
    _op_tests.stage(folder)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DETKIT_REQUIRE_NATIVE": "1"}
    good = True
    for check in checks:
        prefix = (tool, "--tool", check, "--error-exitcode", "9")
        for bug, wanted in ((check, 9), ("none", 0)):
            code = subprocess.run([*prefix, planted, bug], capture_output=True).returncode
            print(f"{check}: planted bug {bug!r}: exit code {code}, {wanted} is right", flush=True)
            good &= code == wanted
        # PyTorch's cache hands out parts of large blocks, whose ends no tool can see. Graphs can't do without it.
        for words, more in (("not graph", {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}), ("graph", {})):
            options = ("--timeout=3000", "-m", "gpu", "-k", words)
            found = _op_tests.run(
                sys.executable, folder, env | more, *options, prefix=(*prefix, "--target-processes", "all")
            )
            print(f"{check}: tests -k {words!r}: {found}" + ("" if found.good else f"\n{found.tail}"), flush=True)
            good &= found.good
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="SANITIZER",
        help=f"of {', '.join(SANITIZERS)}, or with --gpu of {', '.join(GPU_CHECKS)}; default: all",
    )
    parser.add_argument("--cases", type=int, default=3000, help="cases of each tests/ops/fuzz_*.py and capability")
    parser.add_argument("--gpu", action="store_true", help="compute-sanitizer instead, on a machine with a GPU")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the build and the reports")
    args = parser.parse_args()
    known = GPU_CHECKS if args.gpu else tuple(SANITIZERS)
    names = args.names or known
    if unknown := set(names) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: known are {', '.join(known)}")
    sys.path.insert(0, str(ROOT))
    top = Path(tempfile.mkdtemp(prefix="detkit-sanitize-")).resolve()
    try:
        done = [run_gpu(names, top)] if args.gpu else [run(name, args.cases, top) for name in names]
    finally:
        if args.keep:
            print(f"kept: {top}")
        else:
            shutil.rmtree(top, ignore_errors=True)
    print("all well" if all(done) else "FAILED")
    return int(not all(done))


if __name__ == "__main__":
    raise SystemExit(main())

"""Builds the sdist and the wheel; on the installed wheel runs what a user does first and the op tests, torch by torch.

    python tools/check_wheel.py                                 # 2.10, the pinned one, the newest
    python tools/check_wheel.py --torch 2.12.1 --python python3.13

Needs the project's environment (torch, setuptools, `build`). Every environment is thrown away after use: with CUDA it
takes about 5 GB and the time of as large a download. Exit code 1 if a wheel's property or a test fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import _front_door
import _op_tests

ROOT = Path(__file__).resolve().parents[1]
WANTED = (
    "detkit/_C.abi3.so",
    "detkit/_build_info.json",
    "detkit/csrc/ops.cpp",
    "detkit/py.typed",
    "detkit/configs/quickstart/shapes.yaml",
)
TOOLS = ("pytest", "pytest-timeout", "hypothesis")
PROBE = """
import json, platform
import torch
said = {"torch": torch.__version__, "python": platform.python_version(), "gpu": torch.cuda.is_available()}
try:
    import torchvision
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    said["vision"] = torchvision.__version__
except Exception as error:
    said["vision"], said["vision_problem"] = None, str(error).strip().splitlines()[0]
import detkit
from detkit.native.library import native
said |= {"file": detkit.__file__, "cpu": native.cpu, "cuda": native.cuda}
said |= {"cpu_problem": native.cpu_problem, "cuda_problem": native.cuda_problem}
print(json.dumps(said))
"""


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what would lead to this source tree or this interpreter."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
    return {k: v for k, v in os.environ.items() if k not in dropped and not k.startswith("DETKIT_")} | more


def call(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Runs a command; its output, or SystemExit with the end of it."""
    done = subprocess.run([str(c) for c in command], env=env, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """`python -m build`: the sdist from this tree, the wheel from the sdist."""
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT, cwd=folder)
    (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    print(f"built {sdist.name} ({sdist.stat().st_size >> 10} KiB), {wheel.name} ({wheel.stat().st_size >> 10} KiB)")
    return wheel


def requirements(wheel: Path) -> list[str]:
    """What the wheel's metadata ask for, extras left out."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        wanted = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
    return [line for line in wanted if "extra ==" not in line]


def wheel_problems(wheel: Path, folder: Path) -> list[str]:
    """What is wrong with the file itself: tag, metadata, contents, ties to Python."""
    problems = []
    if "-cp310-abi3-" not in wheel.name:
        problems.append(f"{wheel.name} is not tagged cp310-abi3")
    torch = [line for line in requirements(wheel) if re.match(r"torch\b", line)]
    if torch != ["torch>=2.10"]:
        problems.append(f"the metadata ask for {torch} instead of torch>=2.10")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        binaries = [n for n in names if n.endswith(".so")]
        for wanted in WANTED:
            if wanted not in names:
                problems.append(f"the wheel lacks {wanted}")
        if any(n.startswith(("tests/", "tools/", "build/")) for n in names):
            problems.append("the wheel installs more than the package")
        archive.extractall(folder / "unpacked", binaries)
    for name in binaries:
        symbols = call("nm", "-D", "--undefined-only", folder / "unpacked" / name)
        python = re.findall(r"\b_?Py[A-Z_]\w+", symbols)
        if python:
            problems.append(f"{name} needs symbols of Python: {', '.join(python[:3])}")
        needed = re.findall(r"NEEDED.*\[(.+)\]", call("readelf", "-d", folder / "unpacked" / name))
        print(f"{name} needs no symbol of Python; libraries: {', '.join(needed)}")
    return problems


def install(python: Path, wheel: Path, version: str, folder: Path) -> None:
    """torch first, so that the resolver can't choose another one; then the wheel with its dependencies."""
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    env = clean_environment()
    call(*pip, "torch" if version == "newest" else f"torch=={version}", env=env)
    code = "import importlib.metadata as m; print(m.version('torch'))"
    pins = [f"torch=={call(python, '-c', code, env=env).strip()}"]
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if re.match(r"[\w.-]+==", line) and not re.match(r"(torch|torchvision|setuptools)==", line):
            pins.append(line)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
    try:
        call(*pip, "-c", constraints, wheel, *TOOLS, env=env)
    except SystemExit:
        # No torchvision was made for this torch, or none in the registry; everything else must still fit.
        rest = [line for line in requirements(wheel) if not line.startswith("torchvision")]
        call(*pip, "-c", constraints, *rest, *TOOLS, env=env)
        call(*pip, "--no-deps", wheel, env=env)


def probe(python: Path, folder: Path) -> dict[str, Any]:
    """What is imported and loaded there, started from the empty folder."""
    said: dict[str, Any] = json.loads(call(python, "-c", PROBE, env=clean_environment(), cwd=folder).splitlines()[-1])
    return said


def check(interpreter: str, version: str, wheel: Path, folder: Path) -> tuple[str, bool]:
    """One environment: (the line that describes it, whether all is well)."""
    venv = folder / "venv"
    call(interpreter, "-m", "venv", venv, env=clean_environment())
    python = venv / "bin" / "python"
    install(python, wheel, version, folder)
    work = folder / "empty"
    work.mkdir()
    said = probe(python, work)
    if not Path(said["file"]).is_relative_to(venv):
        raise SystemExit(f"not the installed wheel: {said['file']}")
    vision = f"torchvision {said['vision']}"
    if said["vision"] is None:
        vision = f"no torchvision ({said['vision_problem'][:80]})"
        call(python, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision", env=clean_environment())
    env = clean_environment(DETKIT_REQUIRE_NATIVE="1", OMP_NUM_THREADS="2")
    marks = ["-m", "not slow"] if said["gpu"] else []
    found = _op_tests.run(str(python), _op_tests.stage(work), env, *marks)
    first = [] if said["vision"] is None else front_door(python, folder / "first")
    cuda = "loaded" if said["cuda"] else f"not loaded ({str(said['cuda_problem']).rpartition(': ')[2]})"
    cpu = "loaded" if said["cpu"] else said["cpu_problem"]
    line = f"torch {said['torch']}, python {said['python']}, {vision}: _C {cpu}, _C_cuda {cuda}; {found}"
    for reason, count in sorted(found.reasons.items()):
        line += f"\n    {count} skipped: {reason}"
    ran = "not run, as they need torchvision" if said["vision"] is None else f"{len(first)} failed"
    line += f"\n    {len(_front_door.STEPS)} first commands: {ran}"
    good = found.good and said["cpu"] and not first
    return line if good else "\n".join([line, *first, found.tail]), good


def front_door(python: Path, folder: Path) -> list[str]:
    """What goes wrong with the first commands of a user in a new folder."""
    folder.mkdir()
    return _front_door.problems(python, folder, clean_environment(OMP_NUM_THREADS="2"))


def pinned() -> str:
    found = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, "constraints.txt pins no torch"
    return found[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    versions = ["2.10.*", pinned(), "newest"]
    parser.add_argument("--torch", nargs="+", metavar="VERSION", default=versions, help=f"default: {versions}")
    parser.add_argument(
        "--python",
        nargs="+",
        metavar="INTERPRETER",
        default=[],
        help="other interpreters; each is tried with the last of --torch",
    )
    parser.add_argument("--wheel", type=Path, help="a wheel that is there already; else one is built")
    parser.add_argument("--folder", type=Path, help="where the environments go (5 GB each); default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    args = parser.parse_args()
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    top = Path(tempfile.mkdtemp(prefix="detkit-wheel-", dir=args.folder))
    pairs = [(sys.executable, v) for v in args.torch] + [(p, args.torch[-1]) for p in args.python]
    bad = 0
    try:
        wheel = args.wheel.resolve() if args.wheel else build_wheel(top)
        problems = wheel_problems(wheel, top)
        print(f"{wheel.name}: {'; '.join(problems) or 'tag, metadata and contents as they should be'}", flush=True)
        bad += bool(problems)
        for i, (interpreter, version) in enumerate(pairs):
            folder = top / f"environment{i}"
            folder.mkdir()
            try:
                line, good = check(interpreter, version, wheel, folder)
            except SystemExit as error:
                line, good = f"torch {version}: {error}", False
            print(f"{'ok    ' if good else 'FAILED'} {line}", flush=True)
            bad += not good
            if not args.keep:
                shutil.rmtree(folder)
    finally:
        if not args.keep:
            shutil.rmtree(top, ignore_errors=True)
    print("all well" if not bad else f"{bad} FAILED")
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())

"""Compiles the CUDA kernels with the C++ compiler and runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from detkit.native.build import FLOAT_FLAGS

HERE = Path(__file__).parent
CUDA = HERE.parents[2] / "detkit" / "csrc" / "cuda"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
TYPES = {torch.float32: "float", torch.float64: "double", torch.float16: "half", torch.bfloat16: "bfloat16"}


class Kernels:
    """A program of the kernels; `sanitized` by AddressSanitizer and UBSan.

    folder: where it is built, once for all processes. sources: where the .cuh files are.
    """

    def __init__(self, folder: Path, *, sanitized: bool = False, sources: Path = CUDA) -> None:
        self.program = folder / ("kernels_sanitized" if sanitized else "kernels")
        if self.program.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        ours = self.program.with_suffix(f".{os.getpid()}")
        torch_headers = Path(torch.__file__).parent / "include"
        subprocess.run(
            [
                compiler(), "-std=c++17", "-O1", "-g", "-Wall", "-Wno-sign-compare", *FLOAT_FLAGS,
                *(SANITIZERS if sanitized else []), f"-I{sources}", f"-isystem{torch_headers}",
                str(HERE / "kernels.cpp"), "-o", str(ours),
            ],
            check=True,
        )  # fmt: skip
        ours.replace(self.program)

    def run(self, words: list[object], *inputs: Tensor) -> subprocess.CompletedProcess[bytes]:
        """Runs one case, whatever comes of it."""
        given = b"".join(x.contiguous().view(torch.uint8).numpy().tobytes() for x in inputs)
        # Fibers switch stacks, which the search for a use after return does not follow.
        env = {**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=0", "LD_PRELOAD": ""}
        return subprocess.run([self.program, *map(str, words)], input=given, capture_output=True, env=env)

    def nms(self, boxes: Tensor, groups: Tensor | None, threshold: float) -> Tensor:
        """(N, 4) boxes, best first, and their (N,) groups -> (N,) bool, as detkit::nms_mask."""
        words = ["nms", TYPES[boxes.dtype], len(boxes), repr(threshold), int(groups is not None)]
        return torch.frombuffer(
            checked(self.run(words, boxes, *([] if groups is None else [groups]))), dtype=torch.bool
        )

    def focal(
        self, logits: Tensor, labels: Tensor, positive: float, negative: float, gamma: float, grad: float
    ) -> tuple[Tensor, Tensor]:
        """(N, C) logits and (N,) labels -> the sum, and `grad` times its (N, C) gradient."""
        rows, columns = logits.shape
        words = ["focal", TYPES[logits.dtype], rows, columns, positive, negative, gamma, grad]
        given = checked(self.run(words, logits, labels))
        wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
        total = torch.frombuffer(given, dtype=wide, count=1)
        return total[0], torch.frombuffer(given, dtype=logits.dtype, offset=total.nbytes).view(rows, columns)


class Failed(AssertionError):
    """A case that did not end well; code: its exit code, see kernels.cpp."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"exit code {code}: {text}")
        self.code = code


def checked(done: subprocess.CompletedProcess[bytes]) -> bytearray:
    """What a case printed; raises Failed."""
    if done.returncode:
        raise Failed(done.returncode, done.stderr.decode(errors="replace")[-3000:])
    return bytearray(done.stdout)


def compiler() -> str:
    """The C++ compiler, as for the native build."""
    return os.environ.get("CXX") or shutil.which("c++") or "g++"

"""What the compiler makes of the kernels: registers, shared memory and spills of each."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

from detkit.native.build import NVCC_FLAGS, find_cuda
from tests.ops.cuda_on_host.build import CUDA

# Kernel: threads in a block, and the most registers and bytes of shared memory of any of its types on sm_90.
# A multiprocessor has 65,536 registers and takes 2,048 threads: 32 registers fill it.
BOUNDS = {
    "group_ranges": (128, 32, 0),
    "overlap_bits": (64, 44, 2560),
    "scan": (1024, 32, 772),
    "sweep": (64, 40, 10244),
    "partial_sums": (256, 32, 2048),
    "add_up": (256, 32, 2048),
    "gradients": (256, 36, 0),
}


@pytest.mark.parametrize("name", ["hard_nms", "sigmoid_focal"])
def test_no_kernel_spills_or_takes_more_than_it_did(name: str, tmp_path: Path) -> None:
    root = find_cuda()
    if root is None:
        pytest.skip("no nvcc on this machine")
    include = Path(torch.__file__).parent / "include"
    done = subprocess.run(
        [
            f"{root}/bin/nvcc", "-cubin", "-arch=sm_90", "-Xptxas", "-v", *NVCC_FLAGS, f"-I{include}",
            f"-I{include}/torch/csrc/api/include", str(CUDA / f"{name}.cu"), "-o", str(tmp_path / "kernels.cubin"),
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers([^\n]*)",
        done.stderr,
        re.DOTALL,
    )
    seen = set()
    for symbol, *spilled, registers, rest in found:
        kernel = next(k for k in BOUNDS if k in symbol)
        threads, most_registers, most_shared = BOUNDS[kernel]
        shared = re.search(r"(\d+) bytes smem", rest)
        assert spilled == ["0", "0", "0"], symbol
        assert int(registers) <= most_registers, symbol
        assert (int(shared[1]) if shared else 0) <= most_shared, symbol
        assert most_registers * threads <= 65536
        seen.add(kernel)
    assert seen == {k for k in BOUNDS if f"{k}(" in (CUDA / f"{name}.cuh").read_text(encoding="utf-8")}

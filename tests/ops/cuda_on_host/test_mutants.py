"""The emulated kernels are a test: each change below that breaks a kernel is seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from detkit.ops import nms_mask
from detkit.ops.sigmoid_focal import reference
from tests.ops import fuzz_nms as fuzz
from tests.ops.cuda_on_host.build import CUDA, Failed, Kernels

NMS, FOCAL = "hard_nms.cuh", "sigmoid_focal.cuh"
BARRIER = "  __syncthreads();\n"
VALUE, ORDER, MEMORY = "another value", "results that depend on the order", "AddressSanitizer"
SEEN_BY = {3: "barriers that don't fit", 5: ORDER}


@dataclass(frozen=True)
class Mutant:
    """A change of one place, and what sees it. number: which of the places where the text occurs, from 0."""

    name: str
    file: str
    old: str
    new: str
    seen_by: str
    number: int = 0

    def write(self, folder: Path) -> Path:
        """Copies of the kernels, this one changed."""
        folder.mkdir(parents=True)
        for source in CUDA.glob("*.cuh"):
            text = source.read_text(encoding="utf-8")
            if source.name == self.file:
                parts = text.split(self.old)
                assert len(parts) > self.number + 1, f"{self.name}: not in {self.file}: {self.old}"
                cut = self.number + 1
                text = self.old.join(parts[:cut]) + self.new + self.old.join(parts[cut:])
            (folder / source.name).write_text(text, encoding="utf-8")
        return folder


MUTANTS = [
    # Every barrier, in the order of the file.
    Mutant("overlap_bits reads the tile at once", NMS, BARRIER, "", ORDER, 0),
    Mutant("scan marks in words that are not cleared", NMS, BARRIER, "", ORDER, 1),
    Mutant("scan walks before the marks and the diagonal are set", NMS, BARRIER, "", ORDER, 2),
    Mutant("scan spreads before the walk has ended", NMS, BARRIER, "", ORDER, 3),
    Mutant("sweep resets the flag late", NMS, BARRIER, "", ORDER, 4),
    Mutant("sweep reads the batch at once", NMS, BARRIER, "", ORDER, 5),
    Mutant("block_sum adds before all have written", FOCAL, BARRIER, "", ORDER, 0),
    Mutant("block_sum halves before all have added", FOCAL, "  " + BARRIER, "", ORDER, 0),
    # Indices and bounds.
    Mutant("a box overlaps itself", NMS, "threadIdx.x + 1 : 0", "threadIdx.x : 0", VALUE),
    Mutant("the next box is passed over", NMS, "threadIdx.x + 1 : 0", "threadIdx.x + 2 : 0", VALUE),
    Mutant("a row past the end", NMS, "if (row < n && keep[row])", "if (keep[row])", MEMORY),
    Mutant("a column past the end", NMS, "if (column + threadIdx.x < n) {", "{", MEMORY),
    Mutant("sweep past the end", NMS, "|| column >= n ||", "||", MEMORY),
    Mutant("a kept row more", NMS, "i < count; ++i) {\n    if (groups", "i <= count; ++i) {\n    if (groups", MEMORY),
    Mutant("the last tile's groups", NMS, "begin + kTile < n ? begin + kTile : n", "begin + kTile", MEMORY),
    Mutant("kept rows of the first chunk", NMS, "= start + tile * kTile + i", "= tile * kTile + i", VALUE),
    Mutant("sweep begins a tile late", NMS, "/ kTile + blockIdx.x", "/ kTile + 1 + blockIdx.x", VALUE),
    Mutant("touching groups are apart", NMS, "[2 * a + 1] < ranges", "[2 * a + 1] <= ranges", VALUE),
    Mutant("suppressed boxes suppress", NMS, "if (gone >> i & 1) continue;", "", VALUE),
    Mutant("the threshold itself suppresses", NMS, "> t.exact", ">= t.exact", VALUE),
    Mutant("one entry more", FOCAL, "i < entries", "i <= entries", MEMORY, 0),
    Mutant("one gradient more", FOCAL, "i < entries", "i <= entries", MEMORY, 1),
    Mutant("half of the block is left out", FOCAL, "int half = kThreads / 2", "int half = kThreads / 4", VALUE),
    Mutant("ignored rows count", FOCAL, "if (label == kIgnoredLabel) return A(0);", "", VALUE),
    Mutant("any label is a class", FOCAL, "label < kIgnoredLabel || label >= columns", "false", VALUE),
]  # fmt: skip
# A lost atomicOr is not seen, as a fiber is never interrupted between two barriers; racecheck on a GPU sees it. Nor
# are the guard `if (threadIdx.x == 0)` of partial_sums and add_up, without which all threads write one value.


def fault(kernels: Kernels) -> str | None:
    """What is seen in a few cases; None if the kernels give what the CPU's give."""
    try:
        check_nms(kernels)
        check_focal(kernels)
    except Failed as error:
        return SEEN_BY.get(error.code, MEMORY)
    except AssertionError:
        return VALUE
    return None


def check_nms(kernels: Kernels) -> None:
    cases = []
    for n, groups, threshold in ((130, 0, 0.5), (150, 5, 0.5), (2100, 3, 0.5), (2100, 0, 0.3)):
        g = torch.Generator().manual_seed(n)
        labels = torch.randint(groups, (n,), generator=g).sort().values if groups else None
        cases.append((fuzz.boxes_of("cluster", n, g).float(), labels, threshold))
    # One box, 30 times in a group; groups lie across the borders of chunks.
    square = torch.tensor([[0.0, 0, 10, 10]])
    cases.append((square.repeat(4150, 1), torch.arange(4150) // 30, 0.5))
    # All stay, so the lists are full; an IoU at the threshold.
    cases.append((square + 20 * torch.arange(2300).view(-1, 1), None, 0.5))
    cases.append((torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10]]), None, float(torch.tensor(50.0) / 150)))
    for boxes, labels, threshold in cases:
        assert torch.equal(kernels.nms(boxes, labels, threshold), nms_mask(boxes, labels, threshold))


def check_focal(kernels: Kernels) -> None:
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(90, 3, generator=g), torch.arange(90) % 5 - 2
    total, slopes = kernels.focal(logits, labels, 0.25, 0.75, 2.0, 1.0)
    exact = logits.double().requires_grad_()
    wanted = reference(exact, labels, 0.25, 0.75, 2.0)
    torch.testing.assert_close(total.double(), wanted.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(slopes.double(), torch.autograd.grad(wanted, exact)[0], rtol=1e-5, atol=1e-9)
    assert kernels.focal(logits, labels + 7, 0.25, 0.75, 2.0, 1.0)[0].isnan()


def test_the_cases_pass_without_a_change(tmp_path: Path) -> None:
    assert fault(Kernels(tmp_path)) is None


def test_a_change_is_seen(tmp_path: Path) -> None:
    assert fault(Kernels(tmp_path / "built", sources=MUTANTS[0].write(tmp_path / "changed"))) == MUTANTS[0].seen_by


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=[m.name for m in MUTANTS])
def test_every_change_is_seen(mutant: Mutant, tmp_path: Path) -> None:
    sources = mutant.write(tmp_path / "changed")
    assert fault(Kernels(tmp_path / "built", sources=sources, sanitized=mutant.seen_by == MEMORY)) == mutant.seen_by

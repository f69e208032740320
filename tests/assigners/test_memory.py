"""No assigner may hold a whole anchor-by-object matrix: 100,000 x 2,000 floats are 800 MB, and it takes several."""

import json
import subprocess
import sys

import pytest

from detkit.registry import ASSIGNERS
from tests.contracts.examples import EXAMPLES

SCRIPT = """
import json, sys, torch
from detkit.assigners.base import assign
from detkit.coders.delta import DeltaCoder
from detkit.registry import ASSIGNERS
from detkit.structures import Candidates, Targets

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)

def boxes(n):
    corner = torch.rand(n, 2, generator=generator) * 1000
    return torch.cat((corner, corner + 4 + torch.rand(n, 2, generator=generator) * 200), 1)

def case(count, objects):
    scores, deltas = torch.rand(count, 20, generator=generator), torch.randn(count, 4, generator=generator) * 0.2
    labels = torch.randint(0, 20, (objects,), generator=generator)
    sizes, anchors = (count * 3 // 4, count - count * 3 // 4), boxes(count)
    candidates = Candidates(anchors, sizes, lambda: scores, lambda: DeltaCoder().decode(deltas, anchors))
    return candidates, Targets(boxes(objects), labels, boxes(500))

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

assigner = ASSIGNERS.build(json.loads(sys.argv[1]))
assign(assigner, *case(100, 3))
arguments = case(100_000, 2_000)
before = peak()
assignment = assign(assigner, *arguments)
assert (assignment.labels >= 0).any()
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.parametrize("name", [n for n in ASSIGNERS.names() if ASSIGNERS.get(n).__module__.startswith("detkit.")])
def test_100000_anchors_and_2000_objects_take_less_than_200_mb(name: str) -> None:
    node = json.dumps({"type": name, **EXAMPLES["assigners"].get(name, {})})
    done = subprocess.run([sys.executable, "-c", SCRIPT, node], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 200

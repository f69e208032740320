"""A signal to the whole process group must leave the answer to the training process."""

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import os, signal, sys, time
import torch.multiprocessing
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.loader import LoaderOptions, build_train_loader

received = []
number = int(sys.argv[1])
signal.signal(number, lambda *_: received.append(number))
loader = build_train_loader(
    ShapesDataset(num_images=8, size=64), [], LoaderOptions(batch_size=2, num_workers=1), seed=0
)
batches = iter(loader)
next(batches)
workers = torch.multiprocessing.active_children()
print("ready", flush=True)
while not received:
    time.sleep(0.01)
time.sleep(0.5)
# More than what is prefetched, so that a worker has to be alive.
for _ in range(12):
    next(batches)
assert all(w.is_alive() for w in workers)
workers[0].terminate()
workers[0].join(10)
assert not workers[0].is_alive(), "a worker must still obey its parent"
print("finished", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system has no sigwaitinfo")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["terminate", "interrupt"])
def test_workers_outlive_a_signal_to_the_group(number: Any) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(int(number))],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
        assert out == "finished\n", err
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

"""Checks before a model is built: the same code, config and data on every rank, devices, the network."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable

import torch
import torch.distributed as dist

from detkit.config import Config
from detkit.data.datasets.base import DetectionDataset
from detkit.distributed.coordinator import COLLECTIVE_TIMEOUT, JOIN_SECONDS, Coordinator
from detkit.distributed.process_info import NAMES
from detkit.fingerprint import Code, changes, digest, fingerprint, source_alone
from detkit.utils.console import indented_list

LARGE = 2**24
"""Elements of the large all-reduce: 64 MB."""
MOST_NAMED = 10
ADVICE = {
    "code": "bring the same version of detkit, and of the files that the config imports, to every machine",
    "config": "start every rank with the same config file and the same key=value overrides",
    "torch": "install the same torch everywhere",
    "device": "choose one by train.device=cpu or cuda",
    "training data": "the annotation files differ: copy the data set again",
    "validation data": "the annotation files differ: copy the data set again",
    "bad training images": "the image files differ: copy the data set again",
}


def same_everywhere(coordinator: Coordinator, config: Config, device: torch.device) -> dict[str, str]:
    """Returns the code, config, torch and kind of device that all ranks share; ValueError names the rank that differs.

    Comes before the process group: ranks with different devices would wait for each other in different backends.
    """
    if not coordinator.process.is_worker:
        return {}
    # Every machine may have compiled the native library for itself.
    code = source_alone(fingerprint(config))
    python = platform.python_version().rpartition(".")[0]
    facts = {"code": f"{digest(code)} (Python {python})", "config": config.hash(), "torch": torch.__version__}
    return compare(coordinator, "facts", facts | {"device": device.type}, code)


def preflight(coordinator: Coordinator, facts: dict[str, str], device: torch.device, backend: str) -> dict[str, str]:
    """Measures the network between all ranks; returns the lines of the report on it and on the shared facts."""
    process = coordinator.process
    if not process.is_worker:
        return {}
    with coordinator.connect_watchdog("first all-reduce") as watchdog:
        small = all_reduce_seconds(1, device, watchdog.progress.tick)
        large = all_reduce_seconds(LARGE, device, watchdog.progress.tick)
    megabytes = 4 * LARGE / 2**20
    hosts: dict[str, list[str]] = defaultdict(list)
    for rank, host in enumerate(coordinator.hosts):
        hosts[host].append(str(rank))
    lines = {
        "ranks": f"{process.world_size} by {NAMES[process.launcher]}; "
        + "; ".join(f"{host}: {', '.join(ranks)}" for host, ranks in hosts.items()),
        "network": f"{backend}, all-reduce of 4 bytes {1e3 * small:.2f} ms, of {megabytes:.0f} MB {1e3 * large:.0f} ms "
        f"({megabytes / 1024 / large:.2f} GB/s)",
        "same": f"code {facts['code']}, config {facts['config']}, torch {facts['torch']}, device {facts['device']}",
    }
    if device.type == "cuda":
        lines["gpus"] = ", ".join(coordinator.all_gather("gpu", torch.cuda.get_device_name(device)))
    return lines


def data_hashes(train_set: DetectionDataset, val_set: DetectionDataset) -> dict[str, str]:
    """Hashes of the data of a run; with `bad_images: skip`, the images left out as well."""
    hashes = {"training data": train_set.content_hash(), "validation data": val_set.content_hash()}
    if train_set.image_options.bad_images == "skip":
        hashes["bad training images"] = ", ".join(map(os.path.basename, train_set.left_out)) or "none"
    return hashes


def check_data(coordinator: Coordinator, hashes: dict[str, str]) -> dict[str, str]:
    """Returns a line of the `data_hashes` that all ranks share; ValueError names the rank that differs."""
    if not coordinator.process.is_worker:
        return {}
    wait = COLLECTIVE_TIMEOUT.total_seconds()
    compare(coordinator, "data", hashes, seconds=wait, doing="reads its data sets")
    return {"data": ", ".join(f"{name} {value}" for name, value in hashes.items()) + ", the same on all ranks"}


def compare(
    coordinator: Coordinator, name: str, facts: dict[str, str], code: Code | None = None,
    *, seconds: float = JOIN_SECONDS, doing: str = "start",
) -> dict[str, str]:  # fmt: skip
    """Returns the facts that all ranks share; ValueError names the ranks that differ from rank 0.

    code: the files behind the fact of that name. seconds, doing: as in `Coordinator.all_gather`.
    """
    facts_by_rank = coordinator.all_gather(name, facts, seconds, doing)
    lines = []
    for key, expected in facts_by_rank[0].items():
        rank = next((rank for rank, other in enumerate(facts_by_rank) if other[key] != expected), None)
        if rank is not None:
            files = differing_files(coordinator, code, rank) if key == "code" and code is not None else ""
            lines.append(
                f"{key}: {facts_by_rank[rank][key]} on rank {rank} ({coordinator.hosts[rank]}), {expected} on rank 0 "
                f"({coordinator.hosts[0]}); {ADVICE[key]}{files}"
            )
    if lines:
        raise ValueError("\n".join(lines))
    return facts_by_rank[0]


def differing_files(coordinator: Coordinator, code: Code, rank: int) -> str:
    """Lines that name the files in which a rank differs from rank 0."""
    code_by_rank = coordinator.all_gather("files", code)
    changed = changes(code_by_rank[0], code_by_rank[rank])
    return indented_list([f"against rank 0, {line}" for line in changed], MOST_NAMED)


def all_reduce_seconds(count: int, device: torch.device, done: Callable[[], None], repeats: int = 3) -> float:
    """Seconds of an all-reduce of `count` float32 numbers, the best of `repeats`. done: called after each."""
    values = torch.ones(count, device=device)
    dist.all_reduce(values)  # the first one sets the connections up
    wait_for(device)
    done()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        dist.all_reduce(values)
        wait_for(device)
        best = min(best, time.perf_counter() - started)
        done()
    return best


def wait_for(device: torch.device) -> None:
    """Waits until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

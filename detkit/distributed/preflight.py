"""What is checked before a model is built: the same code, config and data on every rank, devices, the network."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from detkit.config import Config
from detkit.distributed.environment import NAMES
from detkit.distributed.group import COLLECTIVE_TIMEOUT, Meeting
from detkit.registry import REGISTRIES

if TYPE_CHECKING:
    from detkit.data.datasets.base import DetectionDataset

LARGE = 2**24
"""Numbers of the large all-reduce: 64 MB."""
ADVICE = {
    "code": "bring the same version of detkit, and of the files that the config imports, to every machine",
    "config": "start every rank with the same config file and the same key=value words",
    "torch": "install the same torch everywhere",
    "device": "choose one by train.device=cpu or cuda",
    "training data": "the annotation files differ: copy the data set again",
    "validation data": "the annotation files differ: copy the data set again",
    "bad training images": "the image files differ: copy the data set again",
}


def same_everywhere(meeting: Meeting, config: Config, device: torch.device) -> dict[str, str]:
    """What code, config, torch and kind of device every rank has, or ValueError that names who differs.

    Comes before the process group: ranks with different devices would wait for each other in different backends.
    """
    if not meeting.place.is_worker:
        return {}
    facts = {"code": code_hash(config), "config": config.hash(), "torch": torch.__version__, "device": device.type}
    return compare(meeting, "facts", facts)


def preflight(meeting: Meeting, facts: dict[str, str], device: torch.device, backend: str) -> dict[str, str]:
    """Measures the connection of all ranks; what it saw, and the facts that all share, in lines."""
    place = meeting.place
    if not place.is_worker:
        return {}
    with meeting.watched("first all-reduce") as watchdog:
        small = all_reduce_seconds(1, device, watchdog.pulse.beat)
        large = all_reduce_seconds(LARGE, device, watchdog.pulse.beat)
    megabytes = 4 * LARGE / 2**20
    hosts: dict[str, list[str]] = defaultdict(list)
    for rank, host in enumerate(meeting.hosts):
        hosts[host].append(str(rank))
    lines = {
        "ranks": f"{place.world_size} by {NAMES[place.launcher]}; "
        + "; ".join(f"{host}: {', '.join(ranks)}" for host, ranks in hosts.items()),
        "network": f"{backend}, all-reduce of 4 bytes {1e3 * small:.2f} ms, of {megabytes:.0f} MB {1e3 * large:.0f} ms "
        f"({megabytes / 1024 / large:.2f} GB/s)",
        "same": f"code {facts['code']}, config {facts['config']}, torch {facts['torch']}, device {facts['device']}",
    }
    if device.type == "cuda":
        lines["gpus"] = ", ".join(meeting.gather("gpu", torch.cuda.get_device_name(device)))
    return lines


def data_hashes(train_set: DetectionDataset, val_set: DetectionDataset) -> dict[str, str]:
    """What a run was trained and measured on; with `bad_images: skip`, which images it was trained without as well."""
    hashes = {"training data": train_set.content_hash(), "validation data": val_set.content_hash()}
    if train_set.image_options.bad_images == "skip":
        hashes["bad training images"] = ", ".join(map(os.path.basename, train_set.left_out)) or "none"
    return hashes


def check_data(meeting: Meeting, hashes: dict[str, str]) -> dict[str, str]:
    """Raises ValueError that names the rank whose `data_hashes` differ from rank 0's; else a line of them."""
    if not meeting.place.is_worker:
        return {}
    compare(meeting, "data", hashes, COLLECTIVE_TIMEOUT.total_seconds(), "reads its data sets")
    return {"data": ", ".join(f"{name} {value}" for name, value in hashes.items()) + ", the same on all ranks"}


def compare(meeting: Meeting, name: str, facts: dict[str, Any], *wait: Any) -> dict[str, Any]:
    """Rank 0's facts, once everyone has the same ones."""
    found = meeting.gather(name, facts, *wait)
    lines = []
    for key, wanted in found[0].items():
        for rank, other in enumerate(found):
            if other[key] != wanted:
                lines.append(
                    f"{key}: {other[key]} on rank {rank} ({meeting.hosts[rank]}), {wanted} on rank 0 "
                    f"({meeting.hosts[0]}); {ADVICE[key]}"
                )
                break
    if lines:
        raise ValueError("\n".join(lines))
    first: dict[str, Any] = found[0]
    return first


def all_reduce_seconds(count: int, device: torch.device, done: Callable[[], None], repeats: int = 3) -> float:
    """Seconds that summing `count` float32 numbers over all ranks takes; the best of some. done: called after each."""
    values = torch.ones(count, device=device)
    dist.all_reduce(values)  # the first one sets the connections up
    wait_for(device)
    done()
    best = float("inf")
    for _ in range(repeats):
        wait_for(device)
        started = time.perf_counter()
        dist.all_reduce(values)
        wait_for(device)
        best = min(best, time.perf_counter() - started)
        done()
    return best


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def foreign_modules() -> list[tuple[str, Path]]:
    """Names and files of the modules that brought parts, detkit's own and bare files left out."""
    parts = [registry.get(name) for registry in REGISTRIES for name in registry.names()]
    packages = {cls.__module__.partition(".")[0] for cls in parts} - {"detkit", "__main__"}
    found = []
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None) if name.partition(".")[0] in packages else None
        if file and not name.startswith("detkit_import_") and Path(file).suffix == ".py":
            found.append((name, Path(file)))
    return found


def code_hash(config: Config) -> str:
    """Twelve hex digits of detkit's Python files, of the files that the config imports, and of the modules, plugins
    among them, in which parts were registered, with what is loaded of their packages."""
    import detkit

    package = Path(detkit.__file__).parent
    files = [(str(p.relative_to(package)), p) for p in sorted(package.rglob("*.py"))]
    imports = config.to_dict().get("imports") or []
    files += [(os.path.basename(str(i)), Path(str(i))) for i in imports if Path(str(i)).is_file()]
    files += foreign_modules()
    digest = hashlib.sha256(platform.python_version().rpartition(".")[0].encode())
    for name, path in files:
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]

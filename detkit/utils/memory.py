"""Memory that is free."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path


def free_memory() -> int:
    """Bytes that this process could still get of the machine, or of its control group, with swap."""
    system = group = sys.maxsize  # where they set no bound
    with contextlib.suppress(OSError):
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        free = {name: int(kib) << 10 for name, kib in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
        system = free.get("MemAvailable", sys.maxsize) + free.get("SwapFree", 0)
    with contextlib.suppress(OSError, ValueError):  # memory.max may be the word max
        folder = Path("/sys/fs/cgroup")
        limit, used, stat = ((folder / f"memory.{n}").read_text(encoding="utf-8") for n in ("max", "current", "stat"))
        files = re.search(r"^inactive_file (\d+)", stat, re.MULTILINE)
        group = max(0, int(limit) - int(used) + (int(files[1]) if files else 0))
    return min(system, group)

"""Two machines: network namespaces with an address each, joined by a virtual cable that can be cut.

Needs Linux, iproute2 and the right to make namespaces (root).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from detkit.checkpoint import saved_steps

if TYPE_CHECKING:
    from tests.distributed.conftest import Tiny
else:
    Tiny = Any

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]


class Host:
    """A machine: a network namespace with a name and an address."""

    def __init__(self, name: str, number: int, address: str) -> None:
        self.name, self.number, self.address = f"{name}-{os.getpid()}", number, address

    def words(self) -> tuple[str, ...]:
        """What runs a command on this host, which has a name of its own too."""
        set_name = f'hostname host{self.number} && exec "$@"'
        return ("ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", set_name, "sh")

    def kill(self) -> None:
        """Ends every process on it, as a power failure does."""
        found = ip("netns", "pids", self.name).split()
        for process in found:
            os.kill(int(process), signal.SIGKILL)


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Cable:
    """What joins two hosts."""

    def __init__(self) -> None:
        self.hosts = [Host("dk-a", 0, "10.213.7.1"), Host("dk-b", 1, "10.213.7.2")]

    def plug(self) -> None:
        for host in self.hosts:
            ip("netns", "add", host.name)
            ip("-n", host.name, "link", "set", "lo", "up")
        a, b = self.hosts
        ip("-n", a.name, "link", "add", "wire0", "type", "veth", "peer", "name", "wire0", "netns", b.name)
        for host in self.hosts:
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "wire0")
            ip("-n", host.name, "link", "set", "wire0", "up")

    def set(self, state: str) -> None:
        """`down` cuts it, with no word to anyone; `up` mends it."""
        ip("-n", self.hosts[0].name, "link", "set", "wire0", state)

    def remove(self) -> None:
        for host in self.hosts:
            if host.name in ip("netns", "list"):
                host.kill()
                ip("netns", "del", host.name)


@pytest.fixture
def cable() -> Iterator[Cable]:
    if not sys.platform.startswith("linux") or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("needs Linux with iproute2 and util-linux")
    cable = Cable()
    try:
        cable.plug()
    except subprocess.CalledProcessError as error:
        cable.remove()
        pytest.skip(f"no right to make network namespaces: {error.stderr.strip()}")
    yield cable
    cable.remove()


def start(tiny: Tiny, cable: Cable, run: str, nodes: str, port: int, *more: str) -> list[subprocess.Popen[str]]:
    """The same command on both hosts, but for the number of the host."""
    return [start_on(host, tiny, cable, run, nodes, port, *more) for host in cable.hosts]


def start_on(
    host: Host, tiny: Tiny, cable: Cable, run: str, nodes: str, port: int, *more: str
) -> subprocess.Popen[str]:
    words = ("--procs", "1", "--nodes", nodes, "--node-rank", str(host.number))
    rdzv = ("--rdzv", f"{cable.hosts[0].address}:{port}", "train.hang_timeout=6")
    return tiny.start(run, *words, *rdzv, *more, before=host.words())


def any_port() -> int:
    """The namespaces are new, so every port is free there."""
    return random.SystemRandom().randint(20000, 30000)


def test_two_hosts_train_the_run_of_one(tiny: Tiny, whole: str, cable: Cable) -> None:
    processes = start(tiny, cable, "hosts", "2", any_port())
    for process in processes:
        tiny.finish(process, seconds=200)
    tiny.assert_same(whole, "hosts")
    log = (tiny.folder / "hosts" / "log.txt").read_text()
    assert "host0" in log
    assert "host1" in log


def test_a_host_that_dies_without_a_word_leaves_the_other_to_finish(tiny: Tiny, whole: str, cable: Cable) -> None:
    processes = start(tiny, cable, "survivor", "1:2", any_port())
    tiny.wait_for_step("survivor", 12, processes[0])
    cable.set("down")
    cable.hosts[1].kill()
    processes[1].communicate()
    _, error = tiny.finish(processes[0], seconds=300)
    assert "rank 1 on host1" in error
    assert "not responding" in error
    log = (tiny.folder / "survivor" / "log.txt").read_text()
    assert "resuming" in log
    assert log.count("(1 process x") == 1, "the rest is done by one process"
    tiny.assert_same(whole, "survivor", tolerance=1e-4)


def test_a_host_that_comes_back_is_taken_in_and_the_run_is_the_undisturbed_one(
    tiny: Tiny, whole: str, cable: Cable
) -> None:
    port = any_port()
    processes = start(tiny, cable, "replaced", "2", port)
    tiny.wait_for_step("replaced", 12, processes[0])
    cable.hosts[1].kill()
    processes[1].communicate()
    again = start_on(cable.hosts[1], tiny, cable, "replaced", "2", port)
    tiny.finish(processes[0], seconds=300)
    tiny.finish(again, seconds=60)
    tiny.assert_same(whole, "replaced")


def test_a_cut_cable_is_told_on_both_sides_and_the_resumed_run_is_the_undisturbed_one(
    tiny: Tiny, whole: str, cable: Cable
) -> None:
    processes = start(tiny, cable, "cut", "2", any_port(), "--max-restarts", "0")
    tiny.wait_for_step("cut", 12, processes[0])
    cable.set("down")
    started = time.monotonic()
    errors = [process.communicate(timeout=250)[1] for process in processes]
    assert all(process.returncode not in (0, None) for process in processes)
    assert time.monotonic() - started < 240
    assert "rank 1 on host1" in errors[0]
    assert "rank 0 on host0  <- not responding" in errors[1]
    assert "can't be reached from host1 any more" in errors[1]
    assert "--resume" in errors[1]
    for error in errors:
        assert "no progress for 6 s (train.hang_timeout)" in error
        assert "stacks of rank" in error
    assert saved_steps(tiny.folder / "cut")
    cable.set("up")
    for process in start(tiny, cable, "cut", "2", any_port(), "--resume"):
        tiny.finish(process, seconds=200)
    tiny.assert_same(whole, "cut")

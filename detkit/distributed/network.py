"""Questions to the network that end in time: a cut cable answers none."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable


def run_with_timeout(action: Callable[[], object], seconds: float) -> bool:
    """Runs an action that asks the network; returns False if no answer came within `seconds` or the peer is gone.

    torch's store waits for an answer as long as the system sends the question again: a quarter of an hour after a
    cable is cut. The thread that waits is left behind.
    """
    answered = threading.Event()

    def run() -> None:
        with contextlib.suppress(RuntimeError, ValueError):
            action()
            answered.set()

    thread = threading.Thread(target=run, name="detkit store", daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


def wait_for_port(host: str, port: int, seconds: float) -> OSError | None:
    """Waits until something listens at the port; returns the last error if nothing does after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=max(1.0, min(5.0, seconds))).close()
            return None
        except OSError as error:
            if time.monotonic() > deadline:
                return error
            time.sleep(0.1)

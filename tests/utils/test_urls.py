import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detkit.utils.urls import local_path
from tests.refusals import Refuses


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A folder served on the loopback interface."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    (tmp_path / "served/weights.bin").write_bytes(b"weights")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_paths_stay_and_addresses_are_fetched_once(address: Any, tmp_path: Path) -> None:
    assert local_path("some/file.pt") == "some/file.pt"
    found = local_path(f"{address}/weights.bin")
    assert Path(found).read_bytes() == b"weights"
    (tmp_path / "served/weights.bin").unlink()
    assert local_path(f"{address}/weights.bin") == found


def test_an_address_that_is_not_there_is_named(refuses: Refuses, address: Any) -> None:
    with refuses(OSError):
        local_path(f"{address}/gone.bin")

"""What counts as the code of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from detkit.config import load_config
from detkit.distributed.preflight import code_hash
from detkit.registry import SCHEDULES

QUICKSTART = Path(__file__).parents[2] / "configs/quickstart/shapes.yaml"
PART = """
from detkit.registry import SCHEDULES
from detkit.train.schedule import Constant
from plugged_in.helper import FACTOR

@SCHEDULES.register()
class PluggedIn(Constant):
    pass
"""


def test_a_module_that_brings_parts_is_code_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plugged_in"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("FACTOR = 1.0")
    (package / "parts.py").write_text(PART)
    monkeypatch.syspath_prepend(str(tmp_path))
    without = code_hash(load_config(QUICKSTART))
    try:
        with SCHEDULES.temporary():
            config = load_config(QUICKSTART, ["imports=[plugged_in.parts]", "schedule.type=PluggedIn"])
            before = code_hash(config)
            assert before != without
            assert code_hash(config) == before
            (package / "helper.py").write_text("FACTOR = 2.0")
            assert code_hash(config) != before
    finally:
        for name in [name for name in sys.modules if name.startswith("plugged_in")]:
            del sys.modules[name]
    assert code_hash(load_config(QUICKSTART)) == without

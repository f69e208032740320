from __future__ import annotations

from detkit.runs.settings import differing_settings


def test_names_what_differs_and_lets_harmless_settings_pass() -> None:
    old = {"train": {"iterations": 5, "log_every": 1}, "list": [{"a": 1}, {"b": 2}], "gone": {}}
    new = {"train": {"iterations": 9, "log_every": 2}, "list": [{"a": 1}, {"b": 3}, {"c": 4}]}
    assert differing_settings(old, new) == {
        "train.iterations": (5, 9),
        "list.1.b": (2, 3),
        "list.2.c": (None, 4),
        "gone": ({}, None),
    }

from __future__ import annotations

from detkit.train.resume import differences, same


def test_names_what_differs_and_lets_harmless_settings_pass() -> None:
    old = {"train": {"iterations": 5, "log_every": 1}, "list": [{"a": 1}, {"b": 2}], "gone": {}}
    new = {"train": {"iterations": 9, "log_every": 2}, "list": [{"a": 1}, {"b": 3}, {"c": 4}]}
    assert differences(old, new) == {
        "train.iterations": (5, 9),
        "list.1.b": (2, 3),
        "list.2.c": (None, 4),
        "gone": ({}, None),
    }


def test_an_older_runs_hash_is_of_the_training_boxes_alone() -> None:
    assert same("abc", "abc+def")
    assert same("abc+def", "abc+def")
    assert same("abc", None)
    assert not same("abc+def", "abc+xyz")
    assert not same("abx", "abc+def")
    assert not same("ab", "abc+def")

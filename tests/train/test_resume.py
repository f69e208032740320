from __future__ import annotations

from detkit.train.resume import same


def test_an_older_runs_hash_is_of_the_training_boxes_alone() -> None:
    assert same("abc", "abc+def")
    assert same("abc+def", "abc+def")
    assert same("abc", None)
    assert not same("abc+def", "abc+xyz")
    assert not same("abx", "abc+def")
    assert not same("ab", "abc+def")

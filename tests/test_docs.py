"""What the documentation names exists, and a page that names something else is caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_docs

SOUND = """# Page

See [above](#page), `make test` and configs/*.yaml.

```sh
detkit eval runs/a --json x.json  # AP
```
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of one sound page."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.yaml").touch()
    (tmp_path / "Makefile").write_text("test:\n\ttrue\n", encoding="utf-8")
    (tmp_path / "README.md").write_text(SOUND, encoding="utf-8")
    return tmp_path


def test_all_that_the_docs_name_exists() -> None:
    assert check_docs.problems() == []
    assert len(check_docs.pages(check_docs.ROOT)) > 12


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", ""),
        ("(#page)", "(#pages)", "link to #pages: README.md has no such heading"),
        ("(#page)", "(other.md)", "link to other.md: no such file"),
        ("make test", "make tests", "`make tests`: the Makefile has no target tests"),
        ("configs/*.yaml", "configs/b.yaml", "configs/b.yaml: no such file or folder"),
        ("detkit eval", "detkit evaluate", "`detkit evaluate runs/a --json x.json`: no verb evaluate"),
        ("--json x", "--jsn x", "`detkit eval runs/a --jsn x.json`: unrecognized arguments: --jsn x.json"),
    ],
)
def test_what_does_not_exist_is_found(root: Path, old: str, new: str, said: str) -> None:
    (root / "README.md").write_text(SOUND.replace(old, new), encoding="utf-8")
    found = check_docs.problems(root)
    assert len(found) == bool(said)
    assert not said or found[0].startswith(f"README.md: {said}")

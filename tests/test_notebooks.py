"""The notebooks of docs/notebooks: free of outputs in git, and every cell runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import detkit

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat: pip install 'detkit[docs]'")
NOTEBOOKS = sorted((Path(detkit.__file__).parents[1] / "docs/notebooks").glob("*.ipynb"))


def test_there_are_three_notebooks_without_outputs() -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert cells, path
        assert not [cell for cell in cells if cell.outputs or cell.execution_count], f"{path}: clear its outputs"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(detkit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")

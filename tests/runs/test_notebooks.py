"""Notebooks run from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.slow
def test_the_tour_runs_at_a_tiny_size():
    notebook = nbformat.read(NOTEBOOKS / "tour.ipynb", as_version=4)
    first = notebook.cells[1]
    assert 'image_size, images_per_class, epochs = 96, 100, "auto"' in first.source
    first.source = first.source.replace('= 96, 100, "auto"', "= 32, 20, 1")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert any("transfer" in output.get("text", "").lower() for output in outputs)


def test_the_committed_tour_shows_what_a_run_made_and_is_small():
    file = NOTEBOOKS / "tour.ipynb"
    cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert len(cells) == 10
    assert file.stat().st_size < 1_000_000

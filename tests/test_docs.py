"""The tutorial and the Python examples of the documentation run as they are printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from tiny import REPOSITORY, plant

from pipelines.datasets.examples import LABELS

NOTEBOOK = REPOSITORY / "docs/tutorial.ipynb"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.fspath(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}


def python_blocks(page: Path) -> list[str]:
    """The fenced Python blocks of the README, or those of another page that are marked as tested."""
    mark = "" if page.name == "README.md" else "<!-- tested -->\n"
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^{mark}```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name)
def test_the_python_examples_of_a_page_run_in_order(page, tmp_path):
    counts = {f"data/{split}/{label}/animals": 4 for split in ("train", "validation", "test") for label in LABELS}
    plant(tmp_path, counts | {"inbox": 2})
    script = "\n".join(python_blocks(page))
    (tmp_path / "example.py").write_text(re.sub(r"\bepochs=\d+", "epochs=1, image_size=32", script))
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_tutorial_runs_and_is_stored_without_outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.fspath(REPOSITORY))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": os.fspath(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert float(re.search(r"^AUC (\S+)", printed, re.MULTILINE)[1]) > 0.9
    assert (tmp_path / "report/report.html").is_file()

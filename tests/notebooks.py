"""Run the notebooks, each in a fresh kernel and an empty folder, and save what they print: only what ran is shown.

python tests/notebooks.py              # do they run?
python tests/notebooks.py --save       # and write their outputs into the files
"""

from __future__ import annotations

import argparse
import os
import re
import sysconfig
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
TIMEOUT = 240  # seconds a cell: ends what hangs, and lets a busy machine take its time


def execute(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a run that began with nothing."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        client = NotebookClient(
            notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute(env=_environment(Path(folder)))
    return _tidy(notebook)


def _environment(folder: Path) -> dict[str, str]:
    """Return where a kernel finds our commands, and nothing of the user: no data, cache, settings or history."""
    given = {name: value for name, value in os.environ.items() if name not in {"LIS_DATA", "LIS_RECIPES"}}
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    own = {"LIS_CACHE": str(folder / ".cache"), "IPYTHONDIR": str(folder / ".ipython"), "WANDB_MODE": "offline"}
    return given | own | {"PATH": path, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder / ".matplotlib")}


def _tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out what differs from run to run: times, the version of Python, and text in pieces of any size."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return notebook


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join neighbouring pieces of one stream."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == "stream" and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def printed(cell: nbformat.NotebookNode) -> str:
    """Return what a code cell wrote to its standard output."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python tests/notebooks.py")
    parser.add_argument("--save", action="store_true", help="write the outputs into the files")
    parser.add_argument("--only", help="run those with this in their names")
    options = parser.parse_args()
    for path in NOTEBOOKS:
        if re.search(options.only or "", path.name):
            began = time.perf_counter()
            notebook = execute(path)
            if options.save:
                nbformat.write(notebook, path)
            print(f"{path.name}: {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()

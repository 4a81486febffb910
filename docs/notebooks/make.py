"""Write the notebooks of this folder from the cells below, and execute them.

    python docs/notebooks/make.py            # write and execute all, with their outputs
    python docs/notebooks/make.py first_encoder --plain   # write one, without executing it

A cell is Markdown where it begins with `# %% [markdown]`, code where it begins with `# %%`, as in
the percent format of jupytext. The sources are the `.py` files beside this one.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
NAMES = (
    "first_encoder", "benchmark_your_model", "map_from_polygons", "compare_normalisations",
)  # fmt: skip


def read(source: Path) -> NotebookNode:
    """Return the notebook of a source in percent format, without outputs."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python"
    }  # fmt: skip
    parts = re.split(r"^# %%", source.read_text("utf-8"), flags=re.MULTILINE)[1:]
    for number, part in enumerate(parts):
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
            cell = nbformat.v4.new_markdown_cell(text.strip())
        else:
            cell = nbformat.v4.new_code_cell(body.strip())
        cell["id"] = f"cell-{number}"  # the same every time
        notebook.cells.append(cell)
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run all cells in a folder of their own; an error is raised with the cell it is in."""
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    # figures are shown below their cells, whatever the terminal would do with them
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    done: NotebookNode = client.execute(env=environment)
    for cell in done.cells:
        cell.metadata.pop("execution", None)  # times of the day differ from run to run
        # a library asks for a widget, with the path of its file
        outputs = cell.get("outputs", [])
        cell["outputs"] = _joined([o for o in outputs if "TqdmWarning" not in o.get("text", "")])
        if cell.cell_type != "code":
            del cell["outputs"]
    return done


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return outputs in which what was printed in several pieces is one."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.get("name") and output.get("name") == joined[-1].get("name"):
            joined[-1]["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def main() -> None:
    """Write the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--plain", action="store_true", help="do not execute")
    chosen = parser.parse_args()
    for name in chosen.names:
        notebook = read(HERE / f"{name}.py")
        if not chosen.plain:
            with tempfile.TemporaryDirectory() as scratch:
                notebook = execute(notebook, Path(scratch))
        nbformat.write(notebook, HERE / f"{name}.ipynb")
        print(f"wrote {name}.ipynb")


if __name__ == "__main__":
    main()

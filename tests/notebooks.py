"""Execute the notebooks of examples/, and store what they print and draw.

    python -m tests.notebooks [NAME ...]

Run it after a change to a notebook, or to what one prints, and look at the difference. Each
notebook runs from the top in a kernel of its own, without GPU and network. What is stored tells
nothing of the machine: no times, paths or versions.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

EXAMPLES = Path(__file__).parents[1] / "examples"
FORMAT = (4, 5)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
PATIENCE = 300  # seconds for a kernel to start, and for a cell: some ten, on a busy machine more


def find() -> list[Path]:
    """The notebooks, by name."""
    return sorted(EXAMPLES.glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    """A notebook as it is stored."""
    return nbformat.read(path, as_version=FORMAT[0])


def execute(path: Path) -> NotebookNode:
    """The notebook with fresh outputs, tidy; its kernel starts in its folder.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = read(path)
    with tempfile.TemporaryDirectory() as home:
        settings = {
            "IPYTHONDIR": home,  # nobody's own start-up files, and no history
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        client = NotebookClient(
            notebook,
            timeout=PATIENCE,
            startup_timeout=PATIENCE,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(path.parent)}},
            # else the kernel warns that other users of the machine may listen
            config=Config({"KernelManager": {"transport_encryption": "auto"}}),
        )
        client.execute(env=os.environ | settings)
    return tidy(notebook)


def tidy(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what differs from one machine or editor to the next."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = FORMAT
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({})
    return notebook


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """All outputs, in order."""
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def text(output: NotebookNode) -> str:
    """What an output says in words: what was printed, or a value's text."""
    return output.text if output.output_type == "stream" else output.data.get("text/plain", "")


def main(names: list[str]) -> None:
    """Store the outputs of some of the notebooks, or of all."""
    for path in [path for path in find() if not names or path.stem in names]:
        notebook = execute(path)
        for output in outputs(notebook):
            if output.get("name") == "stderr":
                sys.exit(f"{path.name} writes to standard error: {output.text}")
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
        print(f"stored {path.relative_to(EXAMPLES.parent)}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])

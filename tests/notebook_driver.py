"""Execute cells in a real kernel. A program of its own, so that whatever the client opens ends with it.

It reads the cells from stdin, as a JSON list of sources, and writes the outputs of each, and the state of
the widgets, to stdout as JSON. A cell that prints ``interrupt me`` is interrupted as by the stop button.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import nbformat
from nbclient import NotebookClient

LIMIT = 50  # seconds per cell


class Client(NotebookClient):
    """Presses the stop button when a cell prints ``interrupt me``."""

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == "stream" and "interrupt me" in msg["content"]["text"]:
            self.pressed = asyncio.ensure_future(self.km.interrupt_kernel())
        return super().process_message(msg, cell, cell_index)


def main() -> None:
    """Execute all cells, including those after one that fails."""
    cells = [nbformat.v4.new_code_cell(source) for source in json.load(sys.stdin)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    Client(notebook, timeout=LIMIT, kernel_name="python3", allow_errors=True).execute()
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    states = [widget["state"] for widget in widgets.get("state", {}).values()]
    json.dump({"outputs": [cell.outputs for cell in notebook.cells], "widgets": states}, sys.stdout)


if __name__ == "__main__":
    main()

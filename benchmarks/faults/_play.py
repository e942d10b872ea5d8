"""The program that runs one case with one system: ``python -m benchmarks.faults._play SYSTEM CASE FOLDER``.

It writes the outcomes to FOLDER/told, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults import _systems
from benchmarks.faults._table import case_of
from benchmarks.faults._work import work_a_little

from deeds import BAD, Scene, ordinary  # type: ignore[import-not-found]  # isort: skip  # PYTHONPATH has tests/faults


def main(system: str, name: str, folder: str) -> None:
    case = case_of(name)
    scene = Scene(folder, os.getpid())
    items: list[Any] = list(range(20))
    if case.item is not None:
        items[BAD] = case.item(scene)
    systems = _systems.THREADS if case.executor == "threads" else _systems.PROCESSES
    found: dict[int, Any] = {}
    raised = None
    try:
        systems[system](partial(work_a_little, scene=scene, deed=case.deed), items, case.timeout, found)
    except BaseException as error:
        raised = f"{type(error).__name__}: {error}"[:300]
    told = {key: describe(value) for key, value in found.items()}
    text = json.dumps(
        {"outcomes": told, "raised": raised, "ordinary": [shown(ordinary(n)) for n in range(20)]}
    )
    Path(folder, "told").write_text(text)


def describe(value: Any) -> dict[str, Any]:
    if isinstance(value, _systems.Failed):
        return {"ok": False, "shown": f"{type(value.error).__name__}: {shown(value.error)}"}
    return {"ok": True, "shown": shown(value)}


def shown(value: Any) -> str:
    try:
        return repr(value)[:300]
    except Exception:
        return f"<{type(value).__name__}>"


if __name__ == "__main__":
    main(*sys.argv[1:])

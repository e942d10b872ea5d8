"""The process of one system: open it, then measure the case named by each line of stdin.

Run as ``python -m benchmarks._cell_main MODULE SYSTEM``. Each answer is a line of JSON on stdout.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from typing import Any

from benchmarks._question import Question


def main(module: str, system: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the systems print must not mix with the answers
    question: Question = importlib.import_module(module).QUESTION
    with question.systems[system]() as run:
        for line in sys.stdin:
            print(json.dumps(measure(question, run, line.rstrip("\n"))), file=answers)


def measure(question: Question, run: Any, case: str) -> dict[str, Any]:
    """The figures of one measurement, or its error."""
    gc.collect()
    try:
        return {"figures": question.measure(run, question.cases[case])}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main(*sys.argv[1:])

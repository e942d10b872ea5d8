"""The process of one system: opens it, then measures a case for every line on stdin.

Run as ``python -m benchmarks._cell_main MODULE SYSTEM``; answers with a line of JSON each.
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
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the systems print is no answer
    question: Question = importlib.import_module(module).QUESTION
    with question.systems[system]() as run:
        for line in sys.stdin:
            print(json.dumps(measure(question, run, line.rstrip("\n"))), file=answers)


def measure(question: Question, run: Any, case: str) -> dict[str, Any]:
    """The figures, or the error that came instead."""
    gc.collect()
    try:
        return {"figures": question.measure(run, question.cases[case])}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main(*sys.argv[1:])

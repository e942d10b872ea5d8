"""The program that runs cases: it reads their names from a socket, runs them and reports (judge.py)."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable
from concurrent import futures
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from typing import Any

import callers
import leaks
from cases import COROUTINES, COUNT, PROCESS_POOL, PROCESSES, THREAD_POOL, THREADS, Case
from catalogue import CASES
from deeds import BAD, Scene, ordinary, work, work_async

import parallelkit


def items_of(case: Case, scene: Scene) -> Iterable[Any]:
    items: list[Any] = list(range(COUNT))
    if case.item is not None:
        items[BAD] = case.item(scene)
    return items


# Ways to run


def task_of(case: Case, scene: Scene) -> Any:
    return partial(work_async if case.executor == COROUTINES else work, scene=scene, deed=case.deed)


def collect(case: Case, scene: Scene, found: dict[Any, Any], **options: Any) -> None:
    try:
        results = parallelkit.run_parallel(task_of(case, scene), **options)
    except (parallelkit.InputError, parallelkit.RunInterrupted) as error:
        found.update(error.results.outcomes)
        raise
    found.update(results.outcomes)


def stream(case: Case, scene: Scene, found: dict[Any, Any], **options: Any) -> None:
    for outcome in parallelkit.iter_parallel(task_of(case, scene), **options):
        found[outcome.key] = outcome


def beside(case: Case, scene: Scene, found: dict[Any, Any], **options: Any) -> None:
    """Run on an executor that runs other tasks at the same time, which must not be disturbed."""
    innocent: list[Any] = []
    folder = scene.path("beside")
    os.mkdir(folder)
    other = partial(work, scene=scene._replace(folder=folder), deed=None)
    same = {name: options[name] for name in ("executor", "timeout")}
    neighbour = threading.Thread(
        target=lambda: innocent.append(parallelkit.run_parallel(other, range(COUNT), **same))
    )
    neighbour.start()
    try:
        collect(case, scene, found, **options)
    finally:
        neighbour.join()
    assert [ordinary(number) for number in range(COUNT)] == innocent[0].values()


def submit(
    case: Case, scene: Scene, found: dict[Any, Any], *, executor: Any, items: Any, timeout: float
) -> None:
    """Use the interface of ``concurrent.futures``."""
    given = {key: executor.submit(work, item, scene, case.deed) for key, item in enumerate(items)}
    found.update((key, settled(key, future)) for key, future in given.items())


def settled(key: int, future: futures.Future[Any]) -> Any:
    try:
        return parallelkit.Success(key, key, future.result(), 1, 0.0, 0.0, 0.0, "")
    except Exception as error:
        return parallelkit.Failure(key, key, error, 1, 0.0, 0.0, 0.0, "")


def own_executor(case: Case, stack: ExitStack) -> Any:
    """An executor of ours, opened before the run."""
    if case.executor == THREADS:
        return stack.enter_context(parallelkit.ThreadExecutor(4, timeout=case.timeout * PATIENCE))
    return stack.enter_context(parallelkit.ProcessExecutor(2, timeout=case.timeout * PATIENCE))


def executor_of(case: Case, stack: ExitStack) -> Any:
    if case.engine is not None:
        return stack.enter_context(case.engine(None))
    if case.executor == COROUTINES:
        return THREADS
    if case.executor == THREAD_POOL:
        return stack.enter_context(futures.ThreadPoolExecutor(4))
    if case.executor == PROCESS_POOL:
        return stack.enter_context(futures.ProcessPoolExecutor(2, get_context("fork")))
    return own_executor(case, stack) if case.caller in ("executor", "submit", "beside") else case.executor


PATIENCE = float(os.environ.get("PARALLELKIT_FAULTS_PATIENCE", "1"))
"""The factor by which timeouts are longer if rounds.py keeps every core busy."""

WIDTH = {THREADS: 4, PROCESSES: 2, COROUTINES: 4}
WAYS = {"stream": stream, "submit": submit, "beside": beside}
WITHIN = {name: getattr(callers, name) for name in dir(callers) if not name.startswith("_")}


def run(case: Case, scene: Scene) -> dict[Any, Any]:
    """Run a case; return its outcomes by key, as plain dicts, and what the call raised under "raised"."""
    with ExitStack() as stack:
        options: dict[str, Any] = {"items": items_of(case, scene), "timeout": case.timeout * PATIENCE}
        options["executor"] = executor_of(case, stack)
        if isinstance(options["executor"], str):
            options["max_workers"] = WIDTH[case.executor]
        options.update(case.options(scene) if case.options is not None else {})
        found: dict[Any, Any] = {}
        try:
            WAYS.get(case.caller, collect)(case, scene, found, **options)
        except (Exception, KeyboardInterrupt) as error:
            return {**described(found), "raised": describe_error(error)}
        return described(found)


def described(found: dict[Any, Any]) -> dict[Any, Any]:
    return {key_of(key): describe(outcome) for key, outcome in found.items()}


def key_of(key: Any) -> Any:
    return getattr(key, "number", key)


def describe(outcome: Any) -> dict[str, Any]:
    """What the judge needs to know about an outcome, as plain data."""
    if outcome.ok:
        return {"ok": True, "shown": show(outcome.value), "attempts": outcome.attempts}
    return {
        **describe_error(outcome.error),
        "attempts": outcome.attempts,
        "stack": bool(outcome.stack),
        "traceback": outcome.traceback[-2000:],
    }


def describe_error(error: BaseException) -> dict[str, Any]:
    facts = {name: getattr(error, name, None) for name in ("exitcode", "signal", "code", "filename")}
    return {
        "ok": False,
        "type": type(error).__name__,
        "shown": show(error),
        "cause": None if error.__cause__ is None else type(error.__cause__).__name__,
        "notes": [str(note) for note in getattr(error, "__notes__", ())],
        **facts,
    }


def show(thing: Any) -> str:
    """A short text for any value, even if its ``repr`` raises."""
    if isinstance(thing, bytes) and len(thing) > 1000:
        return f"{len(thing)} bytes"
    try:
        text = repr(thing)
        return text if len(text) < 500 else f"{len(text)} characters of {text[:50]}"
    except Exception:
        return f"<{type(thing).__name__}>"


def play(case: Case, folder: str) -> dict[str, Any]:
    scene = Scene(folder, os.getpid())
    began = time.monotonic()
    outcomes = WITHIN.get(case.caller, callers.plain)(partial(run, case, scene))
    took = time.monotonic() - began
    return {"outcomes": list(outcomes.items()), "took": took, "wanted": show(ordinary(0))}


def main() -> None:
    sys.modules["stage"] = sys.modules["__main__"]  # so that workers can import ``run`` by this name
    run.__module__ = "stage"
    cases = {case.id: case for case in CASES}
    if sys.version_info >= (3, 14):
        leaks.start_what_stays()
    with socket.socket(fileno=int(sys.argv[1])) as line, line.makefile("rw") as judge:
        judge.write("{}\n")  # tells that the interpreter has started
        judge.flush()
        for told in judge:
            name, folder = json.loads(told)
            judge.write(json.dumps(play(cases[name], folder)) + "\n")
            judge.flush()


if __name__ == "__main__":
    main()

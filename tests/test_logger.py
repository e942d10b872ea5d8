"""The log: whatever listens to it, and whatever becomes of that, runs go on."""

import io
import logging
import sqlite3
import sys
from contextlib import contextmanager

import pytest

from parallelkit import ThreadExecutor, iter_parallel, run_parallel
from parallelkit._journal._file import Journal


class Deaf(logging.Handler):
    """Cannot take a record, as one whose stream is closed where stderr is closed as well."""

    def emit(self, record):
        raise OSError("nobody hears this")


@contextmanager
def unheard():
    """Nobody hears of what is logged, nor that it was not heard. From a fixture pytest would take stderr back."""
    handler, stderr = Deaf(), sys.stderr
    logging.getLogger().addHandler(handler)
    sys.stderr = io.StringIO()
    sys.stderr.close()
    try:
        yield
    finally:
        sys.stderr = stderr
        logging.getLogger().removeHandler(handler)


def refuse(event):
    raise ValueError("no more of this")


def say(item):
    logging.getLogger("tasks").warning("a word from task %s", item)
    return item


@pytest.mark.parametrize("executor", ["threads", "inline"])
@pytest.mark.parametrize(
    "options", [{"on_event": refuse}, {"progress": {"file": object(), "disable": False}}]
)
def test_what_cannot_be_told_of_a_listener_or_a_bar_costs_no_outcome(executor, options):
    """If a listener or bar fails, and the log does as well, the run goes on without them."""
    with unheard():
        assert [0, 1, 2] == run_parallel(abs, range(3), executor=executor, **options).values()
        assert 3 == len([*iter_parallel(abs, range(3), executor=executor, **options)])


def test_what_cannot_be_told_of_a_value_costs_its_record_alone(tmp_path):
    """If a value cannot be recorded, and the log fails, its task has succeeded all the same."""
    with unheard():
        results = run_parallel(
            lambda item: (item for _ in "x"), ["a", "b"], key=str, checkpoint=tmp_path / "journal"
        )
    assert ["a", "b"] == [next(value) for value in results.values()]


def test_a_run_whose_journal_cannot_be_written_is_stopped_all_the_same(tmp_path, monkeypatch):
    """If the journal cannot be written, and the log fails, the run is stopped, and its results say why."""

    def full(self, records):
        raise sqlite3.OperationalError("the disk is full")

    monkeypatch.setattr(Journal, "write", full)
    with unheard():
        results = run_parallel(abs, [1], key=str, checkpoint=tmp_path / "journal")
    assert "the disk is full" in results.stopped


def test_what_a_task_logs_in_a_process_costs_it_nothing():
    """If the handling of a record fails that a task has logged in a process, the task succeeds."""
    with unheard():
        assert [0, 1] == run_parallel(say, range(2), executor="processes", max_workers=1).values()


def test_a_callback_that_ends_in_no_exception_costs_no_other_call():
    """If a callback raises SystemExit, and the log in which to tell so fails, the next call is made."""
    with unheard(), ThreadExecutor(1) as executor:
        future = executor.submit(abs, -1)
        future.add_done_callback(lambda _: sys.exit())
        assert 2 == executor.submit(abs, -2).result(30)


def test_a_record_names_the_place_where_it_was_made(caplog):
    """A record of our logger names the place where it was made, as one of the standard logger does."""
    run_parallel(abs, [1], on_event=refuse)
    (record,) = caplog.records
    assert ("parallelkit", "_events.py", "_say") == (record.name, record.filename, record.funcName)

"""Random programs, with many options at a time, on every executor: each gives what a plain loop would.

What must come of a program is worked out here a second time, attempt by attempt, as its options are
documented; times and widths do not count. So where two executors differ, one of them differs from the model.
"""

import multiprocessing
import os
import sqlite3
from ast import literal_eval
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program_tasks import ERRORS, VALUES, attempt, attempt_of, come_to

from parallelkit import (
    Checkpoint,
    ConcurrencyLimit,
    InputError,
    ProcessExecutor,
    RateLimit,
    Retry,
    Task,
    TaskCancelled,
    TaskExited,
    TaskFailures,
    ThreadExecutor,
    first_success,
    iter_parallel,
    map_reduce,
    run_parallel,
)

WARM = {
    "ThreadExecutor": lambda: ThreadExecutor(2),
    "ProcessExecutor": lambda: ProcessExecutor(2),
    "ThreadPoolExecutor": lambda: ThreadPoolExecutor(2),
    "ProcessPoolExecutor": lambda: ProcessPoolExecutor(2, multiprocessing.get_context("spawn")),
}
EXAMPLES = {"inline": 250, "threads": 100, "processes": 40, **dict.fromkeys(WARM, 50)}
IN_PROCESSES = ("processes", "ProcessExecutor", "ProcessPoolExecutor")
ENDS = ["arguments", "arguments", *VALUES, "ValueError with a cause", *ERRORS]


class Broken(Exception):
    """What the input raises."""


# Programs


@dataclass(frozen=True)
class Plan:
    """A task: what comes of each attempt (the last of all that follow, too), and what ``then`` makes of its outcome."""

    ends: tuple[str, ...]
    children: tuple["Plan", ...] = ()
    name: str = ""

    def family(self):
        yield self
        for child in self.children:
            yield from child.family()


@dataclass(frozen=True)
class Program:
    """Tasks, how they are given, and options. ``breaks_at``: how many items a generator gives before it raises."""

    plans: tuple[Plan, ...]
    call: str
    form: str
    source: str
    breaks_at: int
    policy: Retry | int
    rerun_failed: bool
    stop: dict
    options: dict = field(default_factory=dict)

    @property
    def breaks(self):
        return self.source == "generator" and self.breaks_at <= len(self.plans)

    @property
    def read(self):
        """What is read, unless the run is stopped before."""
        return self.plans[: self.breaks_at] if self.breaks else self.plans


def plans(most, generations):
    ends = st.lists(st.sampled_from(ENDS), min_size=1, max_size=3).map(tuple)
    children = plans(2, generations - 1) if generations else st.just(())
    return st.lists(st.builds(Plan, ends, children), max_size=most).map(tuple)


def named(plans, prefix="task "):
    return tuple(
        replace(plan, name=f"{prefix}{number}", children=named(plan.children, f"{prefix}{number}."))
        for number, plan in enumerate(plans)
    )


def name_in(item):
    """The name of a task, given as item or as ``Task``."""
    return item.args[0][1] if isinstance(item, Task) else item[1]


def parity(item):
    return len(name_in(item)) % 2


POLICIES = [
    0,
    0,
    1,
    Retry(2, delay=0.001),
    Retry(1, on=ValueError, delay=0),
    Retry(2, on=(OSError, TaskExited), delay=0),
]
LIMITS = [
    ConcurrencyLimit(1),
    [RateLimit(200, per=0.05), ConcurrencyLimit(1, by=parity)],
    RateLimit(200, per=0.05, smooth=True),
]
PROGRAMS = st.builds(
    Program,
    plans=st.sampled_from([0, 0, 1, 2]).flatmap(lambda generations: plans(8, generations)).map(named),
    call=st.sampled_from(["run", "run", "stream", "fold", "race"]),
    form=st.sampled_from(["items", "star", "tasks"]),
    source=st.sampled_from(["list", "generator", "mapping"]),
    breaks_at=st.integers(0, 30),
    policy=st.sampled_from(POLICIES),
    rerun_failed=st.booleans(),
    stop=st.sampled_from([{}, {}, {"on_error": "raise"}, {"max_failures": 1}, {"max_failures": 3}]),
    options=st.fixed_dictionaries(
        {"args": st.sampled_from([(), (1, None)]), "kwargs": st.sampled_from([{}, {"a": 1}])},
        optional={
            "buffersize": st.sampled_from([1, 2, 100]),
            "limits": st.sampled_from(LIMITS),
            "priority": st.just(parity),
            "order": st.sampled_from(["input", "completion"]),
            "timeout": st.just(60),
            "run_timeout": st.just(600),
        },
    ),
).map(
    lambda program: replace(program, form={"fold": "items", "race": "tasks"}.get(program.call, program.form))
)


# The model


def end_of(end, executor, program):
    """What an attempt comes to, an error as it is reported; and whether another try could help."""
    if end == "a lock" and executor in IN_PROCESSES:
        return False, TypeError("cannot be pickled"), False
    try:
        return True, come_to(end, program.options["args"], program.options["kwargs"]), False
    except Exception as error:
        return False, error, True
    except BaseException as error:
        exited = TaskExited(f"the task raised {type(error).__name__}")
        exited.__cause__ = error
        return False, exited, True


def expected(plan, executor, program):
    """Whether a task succeeds, its value or error, and after how many attempts."""
    policy = program.policy if isinstance(program.policy, Retry) else Retry(program.policy, delay=0)
    for number, end in enumerate(chain(plan.ends, plan.ends[-1:] * policy.retries), 1):
        ok, come, again = end_of(end, executor, program)
        if ok or not again or policy.delay_after(number, come, 0.0) is None:
            return ok, come, number
    raise AssertionError("a policy tries no more often than that")


# The play


@dataclass
class Played:
    """What came of a program. ``runs``: how often each task was really called; ``read``: how many items were read."""

    value: object = None
    raised: Exception | None = None
    outcomes: dict = field(default_factory=dict)
    results: object = None
    events: list = field(default_factory=list)
    runs: Counter = field(default_factory=Counter)
    closed: bool = True


def play(program, on, journal):
    """Run a program; ``on`` is what the option ``executor`` is given."""
    played = Played()
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:

        def given(plan):
            item = (folder, plan.name, plan.ends)
            return Task(attempt, item, key=plan.name) if program.form == "tasks" else item

        def generator():
            played.closed = False
            try:
                yield from map(given, program.read)
                if program.breaks:
                    raise Broken("the input")
            finally:
                played.closed = True

        by_name = {plan.name: plan for root in program.plans for plan in root.family()}
        sources = {
            "list": lambda: [*map(given, program.plans)],
            "generator": generator,
            "mapping": lambda: {plan.name: given(plan) for plan in program.plans},
        }
        options = {"executor": on, "retries": program.policy, "on_event": played.events.append}
        options |= program.options | program.stop | {"checkpoint": Checkpoint(journal, program.rerun_failed)}
        if program.form != "tasks" and program.source != "mapping":
            options["key"] = name_in
        if len(by_name) > len(program.plans):
            options["then"] = lambda outcome: [
                Task(attempt, (folder, child.name, child.ends), key=child.name)
                for child in by_name[outcome.key].children
            ]
        if program.form == "star":
            options["star"] = True
        fn = () if program.form == "tasks" else (attempt_of if program.form == "star" else attempt,)
        try:
            CALLS[program.call](played, *fn, sources[program.source](), **options)
        except Exception as error:
            played.raised = error
            played.results = played.results or getattr(error, "results", None)
        if played.results is not None:
            played.outcomes |= played.results.outcomes
        played.runs.update({name: os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)})
    return played


def run(played, *given, **options):
    played.results = run_parallel(*given, **options)


def stream(played, *given, **options):
    with closing(iter_parallel(*given, **options)) as outcomes:
        for outcome in outcomes:
            assert outcome.key not in played.outcomes, "an outcome came twice"
            played.outcomes[outcome.key] = outcome


def fold(played, *given, **options):
    played.value = map_reduce(*given, lambda count, _: count + 1, initial=0, **options)


def race(played, *given, **options):
    played.value = first_success(*given, **options)
    played.outcomes = {played.value.key: played.value}


CALLS = {"run": run, "stream": stream, "fold": fold, "race": race}


# The comparison


def check(program, executor, played, known):
    """Everything that came of a program is what the model says. ``known``: names of tasks that a journal has."""
    family = {plan.name: plan for root in program.plans for plan in root.family()}
    wanted = {name: expected(plan, executor, program) for name, plan in family.items()}
    failing = [come for name, (ok, come, _) in wanted.items() if not ok]
    stopping = bool(program.stop and failing)

    for name, outcome in played.outcomes.items():
        check_outcome(outcome, wanted[name], played.runs[name], stopping, name in known)
    check_raised(program, played, failing, stopping)
    check_events(program, played)
    assert played.closed, "the input was left open"
    assert program.policy or max(played.runs.values(), default=1) == 1

    roots = [plan.name for plan in program.read]
    if program.call in ("run", "stream") and not stopping:
        assert set(roots) <= set(played.outcomes), "a task was lost"
        if not program.breaks:  # an input that breaks ends ``then``, too
            assert set(family) == set(played.outcomes)
    if program.call == "run" and played.results is not None:
        check_results(played.results)
        if program.options.get("order") != "completion":
            assert roots[: len(played.results)] == [name for name in played.results if name in roots]


def check_outcome(outcome, wanted, runs, stopping, known):
    ok, come, number = wanted
    if type(outcome.error) is TaskCancelled:
        assert stopping, "it was cancelled in a run that nothing stopped"
        assert any(option in str(outcome.error) for option in ("max_failures", "on_error"))
        assert outcome.attempts <= number
        return
    assert (ok, 0 if known else number, 0 if known else number) == (outcome.ok, outcome.attempts, runs)
    got = outcome.value if ok else outcome.error
    assert type(come) is type(got)
    if isinstance(come, BaseException):
        assert [*map(str, come.args)] == [*map(str, got.args)] or isinstance(come, (TypeError, TaskExited))
        assert type(come.__cause__) is type(got.__cause__)
    elif ok and isinstance(come, (tuple, dict, bytes)):
        assert come == got
    assert ok or outcome.traceback


def check_raised(program, played, failing, stopping):
    """What came instead of results: an error of the input's, the first failure, or all of them."""
    raised = played.raised
    if isinstance(raised, InputError):
        assert program.breaks
        assert isinstance(raised.__cause__, Broken)
    elif "on_error" in program.stop and failing:
        won = program.call == "race" and raised is None
        if type(raised) is RuntimeError:  # what Python makes of a StopIteration that comes out of a generator
            raised = raised.__cause__
        assert won or type(raised) in set(map(type, failing)), raised
    elif program.call == "race" and not stopping:
        if not program.read:
            assert type(raised) is ValueError
        else:
            assert isinstance(raised, TaskFailures) == (played.value is None)
    elif program.call == "fold" and not program.breaks:
        assert isinstance(raised, TaskFailures) == bool(failing)
        assert failing or played.value == sum(1 for root in program.plans for _ in root.family())
    elif not program.breaks:
        assert raised is None or (stopping and isinstance(raised, TaskFailures)), raised
    else:
        assert stopping or program.call == "race", "an input that raised was not told"


def check_events(program, played):
    """Each start is told once, and so is its end; of what is told, none comes between."""
    open_ones = set()
    for event in played.events:
        if event.kind == "started":
            assert event.index not in open_ones, "a start was told twice"
            open_ones.add(event.index)
        elif event.kind in ("succeeded", "failed", "retrying"):
            assert event.index in open_ones or event.duration is None, "an end was told without its start"
            open_ones.discard(event.index)
    assert not open_ones or program.call in ("stream", "race"), "an end was not told"


def check_journal(played, records):
    """It has what has settled, but for values that cannot be pickled and what was cancelled."""
    for name, outcome in played.outcomes.items():
        lost = type(outcome.value).__name__ == "lock" if outcome.ok else type(outcome.error) is TaskCancelled
        assert records.get(name) is (None if lost else outcome.ok)


def read(journal):
    """Whether each task whose outcome is in a journal has succeeded, by name."""
    with closing(sqlite3.connect(journal)) as records:
        return {literal_eval(key): bool(ok) for key, ok in records.execute("SELECT key, ok FROM outcomes")}


def check_results(results):
    """The figures agree with the outcomes, and so does the log of attempts."""
    outcomes, summary = results.outcomes.values(), results.summary
    failed = [one for one in outcomes if not one.ok]
    assert (len(outcomes), len(failed)) == (summary.tasks, summary.failed + summary.cancelled)
    assert summary.attempts == sum(one.attempts for one in outcomes)
    numbers = defaultdict(list)
    for one in results.attempts:
        if one.started_at is not None:
            numbers[one.index].append(one.number)
    assert all([*range(1, one.attempts + 1)] == numbers[one.index] for one in outcomes)
    assert f"{summary.succeeded} succeeded" in results.report()


@contextmanager
def opened(executor):
    """What the option ``executor`` is given."""
    if executor not in WARM:
        yield executor
    else:
        with WARM[executor]() as pool:
            yield pool


@pytest.mark.all
# Hypothesis does not see what leaks.py has frozen.
@pytest.mark.filterwarnings("ignore:It looks like .register_random")
@pytest.mark.parametrize("executor", ["inline", "threads", "processes", *WARM])
def test_programs_come_to_what_a_plain_loop_would(executor):
    """And once more with the same journal: then only what it lacks is made, and comes to the same."""

    @settings(
        max_examples=EXAMPLES[executor], derandomize=True, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(program=PROGRAMS)
    def compare(program):
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            journal = os.path.join(folder, "journal")
            first = play(program, on, journal)
            check(program, executor, first, known=())
            records = read(journal)
            check_journal(first, records)
            if not program.stop:
                known = {name for name, ok in records.items() if ok or not program.rerun_failed}
                check(program, executor, play(program, on, journal), known)

    with opened(executor) as on:
        compare()

"""Random programs on a fake clock, inline and on several workers, against the exact model of exact_model.py: every outcome,
every event and every instant.

In ``test_programs.py`` times do not count, and in ``test_schedules.py`` order does not; here both do.
"""

import random
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from math import inf

import pytest
from exact_model import KINDS, Cap, Model, Program, Rate, Script, Step, Told
from fakes import Die, Done, Fail, FakeExecutor, Hang

from parallelkit import (
    Checkpoint,
    ConcurrencyLimit,
    RateLimit,
    Retry,
    Task,
    TaskCancelled,
    iter_parallel,
    run_parallel,
)
from parallelkit._scheduler import Scheduler
from parallelkit._scheduling._delayed import Delayed
from parallelkit._scheduling._fifo import Fifo
from parallelkit._scheduling._meters import Cap as Meter
from parallelkit._scheduling._meters import RateLog
from parallelkit._scheduling._ready import Gated
from parallelkit._scheduling._stopping import StopRule
from parallelkit._scheduling._tries import Tries
from parallelkit._world import World, the_world
from parallelkit.testing import FakeClock, inline_runs

STOPS = ("run_timeout", "max_failures", "on_error")
QUICK = range(120)  # programs that take two seconds


# Programs


def make_program(seed):
    """A program with a few of the options, each at random."""
    rng = random.Random(seed)
    some = rng.choice([0, 1, 2, 3, 5, 8, 8, 30])
    depth, in_tasks_form = rng.choice([0, 0, 1, 2]), rng.random() < 0.4
    scripts = [make_script(rng, f"task {number}", depth, in_tasks_form) for number in range(some)]
    stream, order = rng.random() < 0.4, rng.choice(["input", "completion"])
    options = {
        "retries": make_policy(rng),
        "order": order if stream or rng.random() < 0.7 else "key",
        **maybe(rng, 0.4, timeout=[1, 2.5, 5]),
        **maybe(rng, 0.3, run_timeout=[1, 4.5, 10, 30]),
        **maybe(rng, 0.2, on_error=["raise"]),
        **maybe(rng, 0.3, max_failures=[1, 2, 3, 0.2, 0.5]),
        **maybe(rng, 0.3, buffersize=[1, 2, 5, 100]),
    }
    rates = [make_rate(rng) for _ in range(rng.choice([0, 0, 1, 2]))]
    return Program(scripts, options, stream, in_tasks_form, rng.random() < 0.3, depth > 0, rates)


def make_script(rng, name, depth, in_tasks_form):
    kinds = ["", "", "", *KINDS]
    steps = [
        Step(rng.choice([0, 0, 1, 2, 3, 7]), rng.choice(kinds), rng.choice([0, 1, 4, 20, 400]))
        for _ in range(rng.randint(1, 4))
    ]
    if steps[-1].error == "RateLimitException":  # it would be called for ever
        steps[-1] = replace(steps[-1], error="OSError")
    own = {**maybe(rng, 0.25, timeout=[1, 2.5, 5]), **maybe(rng, 0.15, priority=[-2, -1, 0, 1, 2])}
    if rng.random() < 0.25:
        own["retries"] = make_policy(rng)
    count = rng.randint(1, 2) if depth and rng.random() < 0.4 else 0
    children = [make_script(rng, f"{name}.{number}", depth - 1, True) for number in range(count)]
    return Script(name, steps, rng.randint(0, 2), rng.randint(-2, 2), own if in_tasks_form else {}, children)


def make_wide(seed):
    """A program for several workers, some of which die or hang, with caps."""
    program, rng = make_program(seed), random.Random(seed)
    caps = [Cap(rng.randint(1, 3), rng.choice([None, "each", "some"])) for _ in range(rng.choice([0, 1, 2]))]
    limits = [*program.limits, *caps]
    rng.shuffle(limits)
    scripts = [lengthen(script, rng, "timeout" in program.options) for script in program.scripts]
    return replace(program, scripts=scripts, limits=limits, width=rng.randint(1, 5))


def lengthen(script, rng, may_hang):
    """The same task, no call of which takes no time: which of those that start at an instant ends first would matter."""
    seconds = [0.25, 0.5, 1, 1.5, *([inf] if may_hang else [])]
    steps = [replace(step, seconds=step.seconds or rng.choice(seconds)) for step in script.steps]
    if rng.random() < 0.1:
        steps[0] = replace(steps[0], error="WorkerDied")
    return replace(
        script, steps=steps, children=[lengthen(child, rng, may_hang) for child in script.children]
    )


def make_policy(rng):
    if rng.random() < 0.5:
        return rng.choice([0, 0, 1, 2])
    return Retry(
        rng.randint(0, 4),
        on=rng.choice([Exception, OSError, (ValueError, SystemExit), lambda error: isinstance(error, Told)]),
        delay=rng.choice([0, 0.5, 1, 3]),
        factor=rng.choice([1, 2, 3]),
        max_delay=rng.choice([4, 30]),
        **maybe(rng, 0.6, max_time=[0, 2, 5, 11]),
        **maybe(rng, 0.4, budget=[0.0, 0.2]),
    )


def make_rate(rng):
    return Rate(
        rng.randint(1, 3), rng.choice([0.5, 2, 5]), rng.random() < 0.4, rng.choice([None, "each", "some"])
    )


def maybe(rng, chance, **choices):
    """With this chance, an option with one of its values."""
    return {name: rng.choice(values) for name, values in choices.items() if rng.random() < chance}


# Play


class Played:
    """What a program has given: ``outcomes``, ``results`` if collected, ``error`` if raised, ``calls``, ``events``, ``now``."""

    def __init__(self, program, **more):
        self.program, self.scripts, self.more = program, {}, more
        self.calls, self.events = Counter(), []
        self.outcomes, self.results, self.error = [], None, None
        scripts = list(program.scripts)
        for script in scripts:  # grows meanwhile
            self.scripts[script.name] = script
            scripts += script.children
        with world(program.width) as self.clock:
            self.run()
        self.now = self.clock()

    def run(self):
        program, options = self.program, self.options()
        form = [[*map(self.task, program.scripts)]] if program.tasks else [self.fn, program.scripts]
        try:
            if program.stream:
                self.outcomes.extend(iter_parallel(*form, **options))
            else:
                self.results = run_parallel(*form, **options)
                self.outcomes = list(self.results.outcomes.values())
        except Exception as error:
            self.error = error

    def options(self):
        program = self.program
        return {
            **program.options,
            "key": None if program.tasks else lambda script: script.name,
            "limits": list(map(limit_of, program.limits)),
            "priority": (lambda item: script_of(item).priority) if program.prioritized else None,
            "then": self.then if program.grows else None,
            "on_event": self.events.append,
            **self.more,
        }

    def task(self, script):
        return Task(self.fn, script, key=script.name, **script.own)

    def then(self, outcome):
        return map(self.task, self.scripts[outcome.key].children)

    def fn(self, script):
        step = script.steps[min(self.calls[script.name], len(script.steps) - 1)]
        self.calls[script.name] += 1
        if self.program.width:
            return end_of(script.name, step)
        self.clock.advance(step.seconds)
        if step.error:
            raise KINDS[step.error](step.told)
        return script.name

    def ends(self):
        """The names of all tasks, each with the type of its error, or None."""
        return {(one.key, None if one.ok else type(one.error)) for one in self.outcomes}


@contextmanager
def world(width):
    """Run inline, or, if there is a ``width``, on so many simulated workers; gives the clock."""
    if not width:
        with inline_runs() as clock:
            yield clock
        return
    clock = FakeClock()
    engine = FakeExecutor(clock, width, ahead=0)
    token = the_world.set(World(clock, lambda options: options._replace(executor="inline"), lambda: engine))
    try:
        yield clock
    finally:
        the_world.reset(token)


def end_of(name, step):
    """How a call ends on a simulated worker."""
    if step.seconds == inf:
        return Hang()
    if step.error == "WorkerDied":
        return Die(1, step.seconds)
    return Fail(KINDS[step.error](step.told), step.seconds) if step.error else Done(name, step.seconds)


def limit_of(limit):
    by = (lambda item: limit.group(script_of(item))) if limit.by else None
    if isinstance(limit, Cap):
        return ConcurrencyLimit(limit.n, by=by)
    return RateLimit(limit.calls, limit.per, by=by, smooth=limit.smooth)


def script_of(item):
    return item.args[0] if isinstance(item, Task) else item


def many(make):
    """The parameters of a test of thousands of programs."""
    return [pytest.param(make, range(at, at + 500), marks=pytest.mark.all) for at in range(120, 5_000, 500)]


def check(seed, make=make_program, **more):
    """The program of this seed gives what the model says, also with these options; returns what it gave."""
    program = make(seed)
    model, played = Model(program), Played(program, **more)
    raised = model.first_failed if program.options.get("on_error") == "raise" else None
    assert (raised and raised.end) == (played.error and type(played.error).__name__)
    assert round(model.now, 6) == round(played.now, 6)
    assert {task.script.name: task.calls for task in model.tasks if task.calls} == played.calls
    told = [
        (one.kind, round(one.at, 6), one.index, one.delay) for one in played.events if one.key is not None
    ]
    assert Counter(model.events) == Counter(told)
    if not raised:
        check_outcomes(program, model, played.outcomes)
    if played.results is not None:
        cut_off = model.unread or program.grows or any(task.end == "cancelled" for task in model.tasks)
        assert (model.stopped if cut_off else None) == played.results.stopped
        assert sum(task.attempts for task in model.tasks) == played.results.summary.attempts
    return played


def check_outcomes(program, model, outcomes):
    """Each task has its outcome, in the order that was asked for; what was not read is cancelled."""
    read, unread = [task.script.name for task in model.tasks], [script.name for script in model.unread]
    made = [task.script.name for task in model.tasks if task.parent is not None]
    given = [name for name in read if name not in made]
    names = {
        "completion": [task.script.name for task in model.order] + unread,
        "input": read + unread if program.stream else given + unread + made,
        "key": sorted(read + unread),
    }
    assert names[program.options["order"]] == [outcome.key for outcome in outcomes]
    by_key = {outcome.key: outcome for outcome in outcomes}
    for task in model.tasks:
        check_outcome(task, by_key[task.script.name])
    assert all(type(by_key[name].error) is TaskCancelled for name in unread)


def check_outcome(task, outcome):
    assert (task.index, task.parent, task.attempts) == (outcome.index, outcome.parent, outcome.attempts)
    assert round(task.queued, 6) == round(outcome.queued_at, 6)
    if task.end == "":
        assert task.script.name == outcome.value
    elif task.end == "cancelled":
        assert type(outcome.error) is TaskCancelled
        cause = task.error if task.attempts > task.cut_off else None  # of an earlier attempt
        assert type(outcome.error.__cause__).__name__ == (cause or "NoneType")
    else:
        assert task.end == type(outcome.error).__name__
    began = task.attempts if task.end == "cancelled" else task.end != "RateLimitException"
    start = (round(task.start, 6), round(task.seconds, 6)) if began else (None, 0)
    assert start == (outcome.started_at and round(outcome.started_at, 6), round(outcome.duration, 6))


# Tests


@pytest.mark.parametrize(
    ("make", "seeds"), [(make_program, QUICK), (make_wide, range(10)), *many(make_program), *many(make_wide)]
)
def test_programs_give_what_the_model_says(make, seeds):
    """Outcomes, events and instants of random programs are exactly those of the model."""
    for seed in seeds:
        try:
            check(seed, make)
        except Exception as error:
            error.add_note(f"seed {seed}: {make(seed)}")
            raise


@pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, 300), marks=pytest.mark.all)])
def test_a_journal_changes_nothing_and_answers_what_is_asked_again(tmp_path, seeds):
    """A program gives the same with a journal; without a stop it does then what is missing, and then nothing, in no time."""
    for seed in seeds:
        path = tmp_path / f"{seed}.journal"
        first = check(seed, checkpoint=path)
        options = {name: value for name, value in first.program.options.items() if name not in STOPS}
        whole = replace(first.program, options=options)
        rest, again = (Played(whole, checkpoint=Checkpoint(path, rerun_failed=False)) for _ in range(2))
        done = {end for end in first.ends() if end[1] is not TaskCancelled}
        assert not rest.calls.keys() & {name for name, _ in done}
        assert done <= rest.ends() == again.ends()
        assert (0, {}, []) == (again.now, again.calls, again.events)


def do_nothing(self, *args): ...


def describe_last_first(self, index, priority, groups):
    self._traits[index] = (priority + index / 1e6, groups)


def count_one_more(self, now, failed, settled, reason=StopRule.reason):
    return reason(self, now, failed, settled + bool(failed))


def stop_without_running(self, reason, now, running=(), *more, stop=Scheduler.stop):
    stop(self, reason, now, (), *more)


BUGS = {
    "what is tried again goes last": (Fifo, "push_again", lambda self, ticket: self.push([ticket])),
    "of equal priorities the last goes first": (Gated, "describe", describe_last_first),
    "starts that were reported are forgotten": (RateLog, "confirm", lambda self, at, run: self._drop(run)),
    "a pause is forgotten": (RateLog, "pause", do_nothing),
    "a retry starts although max_time is over": (Delayed, "waits", do_nothing),
    "the options of single tasks are ignored": (Tries, "adopt", do_nothing),
    "a share of failures is that of one outcome more": (StopRule, "reason", count_one_more),
}
BUGS_OF_WIDTH = {
    "a cap is one too wide": (Meter, "is_open", lambda self, now: self._running <= self._n),
    "a place that is free again is not passed on": (Gated, "_pass_on", do_nothing),
    "what is cut off counts as never begun": (Scheduler, "stop", stop_without_running),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_model_notices_bugs(bug, monkeypatch):
    """A bug in the scheduler, or in what it decides with, shows in one of these programs."""
    monkeypatch.setattr(*BUGS[bug])
    with pytest.raises(AssertionError):
        for seed in QUICK:
            check(seed)


@pytest.mark.parametrize("bug", BUGS_OF_WIDTH)
def test_the_model_notices_bugs_of_several_workers(bug, monkeypatch):
    """A bug that only several workers bring about shows in one of the programs for them."""
    monkeypatch.setattr(*BUGS_OF_WIDTH[bug])
    with pytest.raises(AssertionError):
        for seed in range(100):
            check(seed, make_wide)

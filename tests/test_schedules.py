"""Random schedules through the real scheduler and loop: whatever ends when, each task ends exactly once.

Completions, failures, deaths, timeouts, retries, stops and slow input come in any order on the fake
clock. What must come of each task is worked out here a second time, from the script alone.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from fakes import (
    Delays,
    Die,
    Done,
    Fail,
    FakeClock,
    FakeExecutor,
    FakeRun,
    Hang,
    Script,
    StrictLedger,
    outcomes_of,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parallelkit import ConcurrencyLimit, RateLimit, Task, TaskCancelled, TaskTimeout, WorkerDied
from parallelkit._executors._contract import Block, Job
from parallelkit._facts import Facts
from parallelkit._input._intake import Portion
from parallelkit._loop import Interrupt, Loop
from parallelkit._marks import OPEN
from parallelkit._progress import Silent
from parallelkit._scheduler import Scheduler

SECONDS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0])
LIMITS = SECONDS.filter(bool)  # a timeout is longer than no time
STEPS = st.one_of(
    st.builds(Done, st.integers(), SECONDS),
    st.builds(
        lambda text, after, final: Fail(OSError(text), after, final),
        st.sampled_from(["", "no", "\n"]),
        SECONDS,
        st.booleans(),
    ),
    st.builds(Die, st.integers(-9, 3).filter(bool), SECONDS),
    st.just(Hang()),
)
KINDS = {Done: "value", Fail: OSError, Die: WorkerDied, Hang: "no end"}
MOST = 3  # tries of a task
LONG = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Steady:
    """A retry policy of so many retries, each after the same delay, and none past ``max_time``."""

    budget = None

    def __init__(self, retries, delay, max_time=None):
        self.retries, self.delay, self.max_time = retries, delay, max_time

    def delay_after(self, number, error, elapsed):
        return self.delay if number <= self.retries else None


@dataclass
class Plot:
    """What is to happen in a run."""

    steps: list[list]
    gaps: list[float]
    dawdling: float
    workers: int
    ahead: float
    buffersize: int | None
    timeout: float | None
    policy: Steady | None
    own_timeouts: dict[int, float]
    options: dict
    cap: int | None
    rate: tuple[int, float] | None
    accident: tuple[float, str] | None
    bad_input_at: int | None

    def limits(self):
        """Limits that apply separately to even and odd tasks."""
        cap = [] if self.cap is None else [ConcurrencyLimit(self.cap, by=parity)]
        return [*cap, *([] if self.rate is None else [RateLimit(self.rate[0], per=self.rate[1], by=parity)])]

    def limit(self, index):
        return self.own_timeouts.get(index, self.timeout)

    @property
    def in_time_only(self):
        """Whether a ``max_time`` bounds the retries of a task."""
        return self.policy is not None and self.policy.max_time is not None

    def ends(self, index):
        """Whether a task ends by itself, even if all its attempts are made."""
        return self.limit(index) is not None or not any(isinstance(step, Hang) for step in self.steps[index])

    def expected(self, index):
        """The kind of outcome, the number of attempts and the duration of the last one, if nothing stops the run."""
        for number, step in enumerate(self.steps[index], 1):
            after = math.inf if isinstance(step, Hang) else step.after
            limit = self.limit(index)
            late = limit is not None and after > limit
            kind = TaskTimeout if late else KINDS[type(step)]
            final = not late and (isinstance(step, (Done, Hang)) or (isinstance(step, Fail) and step.final))
            if final or self.policy is None or number > self.policy.retries:
                return kind, number, limit if late else after
        raise AssertionError("the last step has no try behind it")


class Dawdling(Silent):
    """A bar that takes time, so that things end between the look at what has come and the decision to stop."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def show(self, total, settled, failed, retried):
        self.clock.advance(self.seconds)


def parity(task):
    return task.args[0] % 2


@st.composite
def plots(draw):
    count = draw(st.integers(0, 8))
    max_time = st.none() | st.sampled_from([0.0, 1.0, 2.5, 6.0])
    policy = draw(st.none() | st.builds(Steady, st.integers(0, MOST - 1), SECONDS, max_time))
    plot = Plot(
        steps=[draw(st.lists(STEPS, min_size=MOST, max_size=MOST)) for _ in range(count)],
        gaps=draw(st.just([]) | st.lists(SECONDS, max_size=count)),
        dawdling=draw(st.sampled_from([0.0, 0.0, 0.75])),
        workers=draw(st.integers(1, 4)),
        ahead=draw(st.sampled_from([0, 1, 5, math.inf])),
        buffersize=draw(st.none() | st.integers(1, 6)),
        timeout=draw(st.none() | LIMITS),
        policy=policy,
        own_timeouts=draw(st.dictionaries(st.integers(0, 7), LIMITS, max_size=3)),
        options=draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "end_at": st.sampled_from([0.0, 1.0, 2.5, 7.0]),
                    "raise_first": st.booleans(),
                    "max_failures": st.sampled_from([1, 2, 5, 0.3]),
                },
            )
        ),
        cap=draw(st.none() | st.integers(1, 3)),
        rate=draw(st.none() | st.tuples(st.integers(1, 3), st.sampled_from([0.5, 2.0, 3.0]))),
        accident=draw(
            st.none()
            | st.tuples(
                st.sampled_from([0.0, 0.25, 1.0, 3.0, 6.0]),
                st.sampled_from(["ctrl-c", "close", "break", "wake"]),
            )
        ),
        bad_input_at=draw(st.none() | st.integers(0, count)),
    )
    stops = "end_at" in plot.options or (plot.accident is not None and plot.accident[1] != "wake")
    assume(stops or all(plot.ends(index) for index in range(count)))
    return plot


def play(plot):
    """Drive the run of a plot to its end; return it, and whether Ctrl-C ended it."""
    clock = FakeClock()
    script = Script(dict(enumerate(plot.steps)))
    gaps = deque(plot.gaps)

    def tasks():
        for index in range(len(plot.steps)):
            clock.advance(gaps.popleft() if gaps else 0.0)
            if index == plot.bad_input_at:
                raise LookupError("the input is broken")
            yield Task(script, index, timeout=plot.own_timeouts.get(index))

    run = FakeRun(
        None,
        tasks(),
        workers=plot.workers,
        ahead=plot.ahead,
        buffersize=plot.buffersize,
        clock=clock,
        timeout=plot.timeout,
        policy=plot.policy,
        limits=plot.limits(),
        **plot.options,
    )

    run.loop.bar = Dawdling(clock, plot.dawdling)

    def close():
        run.loop.asked = "closed"
        run.port.wake()

    accidents = {
        "ctrl-c": lambda: run.interrupt(2, None),
        "close": close,
        "break": lambda: run.port.fail(RuntimeError("broken")),
        "wake": run.port.wake,
    }
    if plot.accident is not None:
        clock.call_at(plot.accident[0], accidents[plot.accident[1]])
    try:
        run.drive()
    except KeyboardInterrupt:
        run.loop.stop("interrupted")
        return run, True
    return run, False


def kind_of(outcome):
    return "value" if outcome.ok else type(outcome.error)


def check(plot, run, interrupted):
    count, outcomes = len(plot.steps), run.outcomes  # an outcome that is missing is an AssertionError
    assert run.executor.widest <= plot.workers, "a slot was used twice"
    assert [] == run.port.running() == run.executor.running, "something still runs"
    assert 0 == run.scheduler.open

    broken = plot.bad_input_at is not None and plot.bad_input_at < count
    if run.ledger.stopped is None:
        assert not interrupted
        assert (plot.bad_input_at if broken else count) == len(outcomes), "a task was lost"
    assert (run.intake.error is not None) <= broken

    for index, outcome in enumerate(outcomes):
        seen = (kind_of(outcome), outcome.attempts, round(outcome.duration, 9))
        if seen[0] is TaskCancelled:
            assert run.ledger.stopped is not None, "cancelled in a run that was not stopped"
            assert outcome.attempts <= plot.expected(index)[1]
        elif run.ledger.stopped is None and "end_at" not in plot.options and not plot.in_time_only:
            assert plot.expected(index) == seen
        else:  # near the end of the run, or of its max_time, a failure may be final that would have been tried again
            assert plot.expected(index) == seen or seen[1] < plot.expected(index)[1]
    values = {end.indices[0] for end in run.port.ends if isinstance(end, Block)}
    assert values == {index for index, outcome in enumerate(outcomes) if outcome.ok}, (
        "a committed value was lost"
    )
    check_attempts(plot, run, outcomes)


def check_attempts(plot, run, outcomes):
    """Check the log: every attempt is there once, in order, each retry after its delay."""
    log = [one for one in run.ledger.attempts() if one.started_at is not None]
    for index, outcome in enumerate(outcomes):
        own = [one for one in log if one.index == index]
        assert list(range(1, outcome.attempts + 1)) == [one.number for one in own]
        for before, after in pairwise(own):
            ready_at = before.started_at + before.duration + plot.policy.delay
            assert ready_at <= after.started_at + 1e-9
            if plot.in_time_only and plot.ahead == 0:
                assert after.started_at <= own[0].started_at + plot.policy.max_time + 1e-9
        assert all(outcome.queued_at <= one.started_at for one in own)


def check_limits(plot, run):
    """Check that no group ever exceeds its cap or its rate."""
    for group in (0, 1):
        log = [one for one in run.ledger.attempts() if one.started_at is not None and one.index % 2 == group]
        starts = sorted(one.started_at for one in log)
        if plot.cap is not None:
            ends = [(one.started_at, one.started_at + one.duration) for one in log]
            assert all(sum(first <= at < end for first, end in ends) <= plot.cap for at in starts)
        if plot.rate is not None:
            calls, per = plot.rate
            assert all(early + per <= late for early, late in zip(starts, starts[calls:], strict=False))


def check_width(plot, run):
    """Check that no task waits while there is a free slot and room in its group."""
    log = [one for one in run.ledger.attempts() if one.started_at is not None and one.duration]
    for one in log:
        ready = 0.0 if one.number == 1 else None
        if ready is None or plot.buffersize is not None:
            continue
        edges = sorted(
            {ready, one.started_at, *(t for o in log for t in (o.started_at, o.started_at + o.duration))}
        )
        for first, end in pairwise(edges):
            if ready <= first and end <= one.started_at:
                middle = (first + end) / 2
                busy = [o for o in log if o.started_at <= middle < o.started_at + o.duration]
                of_its_group = sum(o.index % 2 == one.index % 2 for o in busy)
                held_up = len(busy) == plot.workers or (plot.cap is not None and of_its_group == plot.cap)
                assert held_up, "a slot stood idle while a task was ready"


@pytest.fixture(autouse=True)
def _one_by_one(monkeypatch):
    """Take input item by item, so that anything can happen between two items."""
    monkeypatch.setattr("parallelkit._input._intake.PORTION", 0.0)


def check_plot(plot):
    run, interrupted = play(plot)
    check(plot, run, interrupted)
    check_limits(plot, run)
    attempts, limited = len(run.ledger.attempts()), plot.cap is not None or plot.rate is not None
    assert run.port.waits <= (6 if limited else 3) * attempts + 2 * len(plot.steps) + 5, "the loop polls"
    in_no_time = not any(plot.gaps) and not plot.dawdling
    if run.ledger.stopped is None and in_no_time and plot.bad_input_at is None and plot.rate is None:
        check_width(plot, run)


@settings(LONG, max_examples=150)
@given(plots())
def test_every_task_has_one_outcome_and_no_run_hangs(plot):
    """In random schedules, each task that was read has one outcome, as its script says, and no more slots are used than there are."""
    check_plot(plot)


@pytest.mark.all
@pytest.mark.parametrize("part", range(24))
@settings(LONG, max_examples=500)
@given(plot=plots())
def test_every_task_has_one_outcome_and_no_run_hangs_at_length(part, plot):
    """The same holds for many more schedules."""
    check_plot(plot)


# Step by step


@dataclass
class Handed:
    """Input that comes when the machine hands it over."""

    ledger: StrictLedger
    clock: FakeClock
    portions: deque = field(default_factory=deque)
    ended: bool = False

    @property
    def exhausted(self):
        return self.ended and not self.portions

    def next(self, ahead, *, single=False):
        if not self.portions:
            return None
        portion = self.portions.popleft()
        self.ledger.admit(portion.keys, len(portion.items), self.clock())
        return portion


class Machine(RuleBasedStateMachine):
    """Interleaves input, steps of the loop, the clock and stops in any order."""

    @initialize(
        workers=st.integers(1, 3),
        ahead=st.sampled_from([0, 1, math.inf]),
        timeout=st.sampled_from([0.5, 1.0, 4.0]),
        retries=st.integers(0, MOST - 1),
        delay=SECONDS,
    )
    def begin(self, workers, ahead, timeout, retries, delay):
        self.clock = FakeClock()
        self.script_of = {}
        self.executor = FakeExecutor(self.clock, workers, ahead=ahead)
        self.port = self.executor.open(Job(lambda item: self.script_of[item](item)))
        self.ledger = StrictLedger(Facts())
        self.source = Handed(self.ledger, self.clock)
        self.scheduler = Scheduler(self.ledger, timeout=timeout, policy=Steady(retries, delay))
        self.loop = Loop(self.scheduler, self.port, self.source, self.clock)
        self.loop.interrupt = Interrupt(self.port.wake)
        self.going = True
        self.settled = {}

    @rule(steps=st.lists(st.lists(STEPS, min_size=MOST, max_size=MOST), min_size=1, max_size=5))
    @precondition(lambda self: not self.source.ended)
    def hand(self, steps):
        items = [len(self.script_of) + offset for offset in range(len(steps))]
        self.script_of.update((item, Script({item: its})) for item, its in zip(items, steps, strict=True))
        self.source.portions.append(Portion(items))

    @rule()
    def end_input(self):
        self.source.ended = True

    @rule(seconds=SECONDS)
    def pass_time(self, seconds):
        self.clock.advance(seconds)

    @rule(until_news=st.booleans())
    @precondition(lambda self: self.going)
    def step(self, until_news):
        if not until_news or not self.scheduler.open:
            self.port.wake()  # as the caller's thread does when it has read something
        self.going = self.loop.step()

    @rule()
    def close(self):
        self.loop.asked = "closed"

    @rule()
    @precondition(lambda self: self.going)
    def ctrl_c(self):
        self.loop.interrupt(2, None)
        try:
            self.going = self.loop.step()
        except KeyboardInterrupt:
            self.loop.stop("interrupted")
            self.going = False
        assert not self.going, "the flag was passed over"

    @invariant()
    def never_more_runs_than_there_are_slots(self):
        if hasattr(self, "executor"):
            assert self.executor.widest <= self.executor.max_workers

    @invariant()
    def what_is_settled_stays_as_it_is(self):
        if not hasattr(self, "ledger"):
            return
        now = {
            index: kind_of(self.ledger.outcome(index))
            for index in range(len(self.ledger))
            if self.ledger.values[index] is not OPEN
        }
        assert self.settled.items() <= now.items()
        assert len(now) + self.scheduler.open == self.scheduler.admitted == len(self.ledger)
        self.settled = now

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        self.source.ended = True
        if self.going:
            self.loop.drive()
        assert 0 == self.scheduler.open
        handed = len(self.script_of) - sum(len(portion.items) for portion in self.source.portions)
        assert handed == len(outcomes_of(self.ledger))
        cancelled = TaskCancelled in {kind_of(outcome) for outcome in outcomes_of(self.ledger)}
        assert cancelled <= (self.ledger.stopped is not None)


Machine.TestCase.settings = settings(LONG, max_examples=60, stateful_step_count=25)


def test_any_interleaving_of_input_steps_time_and_stops():
    """In any interleaving of input, steps, time and stops, the books are right at every moment."""
    run_machine = Machine.TestCase("runTest")
    run_machine.runTest()


def test_a_group_that_rests_while_its_tasks_are_ready_keeps_its_limit():
    """A limit that forgets idle groups does not forget one that has ready tasks."""
    limit = RateLimit(2, per=0.5, by=lambda item: item % 2)
    script = Script(
        {0: [Fail(OSError()), Done()]}
    )  # its second try goes before 1, which stays ready meanwhile
    run = FakeRun(script, iter(range(6)), workers=1, limits=[limit], policy=Steady(1, 0.0)).drive()
    starts = [(round(one.started_at, 1), one.key) for one in run.ledger.attempts()]
    assert [(0.0, 0), (0.0, 0), (0.0, 1), (0.0, 3), (0.5, 2), (0.5, 4), (0.5, 5)] == sorted(starts)


def test_a_policy_is_asked_once_an_attempt():
    """The retry policy is asked exactly once about each failed attempt."""
    policy = Delays(1.0, 2.0)
    run = FakeRun(Script({0: [Fail(OSError())] * 3}), [0], policy=policy).drive()
    assert [1, 2, 3] == [number for number, _, _ in policy.asked]
    assert 3.0 == run.clock()

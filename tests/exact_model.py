"""An exact model of a run, inline or of several workers: what each task's outcome is, and when everything happens.

Written from the documentation of the options, not from the code of the scheduler: it goes through all tasks at each step.
"""

import math
from dataclasses import dataclass, field
from operator import attrgetter

from parallelkit import Retry, TaskExited, TaskTimeout, WorkerDied

LONGEST_TOLD, SHORTEST_TOLD = 300, 0.01  # seconds
LEAST_RETRIES, LEAST_OUTCOMES = 10, 20  # below which a budget, or a share of failures, stops nothing
MARGIN = 1.005  # of a rate's window
MANY = 1_000  # tasks read ahead of a list
AHEAD = 32  # the same for each worker, where a failure may stop the run


class RateLimitException(Exception):
    """As that of the package ratelimit: the function did not run."""

    def __init__(self, remaining):
        super().__init__("refused")
        self.period_remaining = remaining


RateLimitException.__module__ = "ratelimit.exception"


class Told(Exception):
    """An error that says how long to wait."""

    def __init__(self, seconds):
        super().__init__("told")
        self.retry_after = seconds


KINDS = {  # the types of final errors, and what calls raise; "" stands for a value
    "": None,
    "ValueError": ValueError,
    "OSError": OSError,
    "TaskExited": SystemExit,
    "Told": Told,
    "RateLimitException": RateLimitException,
}


@dataclass(frozen=True)
class Step:
    """What one call does: it takes ``seconds``, and ends with a value or an error of this kind, which may tell how long to wait."""

    seconds: float
    error: str = ""
    told: float = 0


@dataclass(frozen=True)
class Script:
    """A task: what its calls do, one after another (then always the last), its options, and the tasks that ``then`` makes of it."""

    name: str
    steps: list
    group: int = 0
    priority: float = 0
    own: dict = field(default_factory=dict)
    children: list = field(default_factory=list)


@dataclass(eq=False)  # two that are alike count separately
class Rate:
    """A ``RateLimit``; ``by`` is None, "each" (by group), or "some" (group 0 is not limited)."""

    calls: int
    per: float
    smooth: bool
    by: str | None

    def group(self, script):
        """The group of a task; None if the limit does not apply to it."""
        return None if self.by == "some" and not script.group else script.group if self.by else 0


@dataclass(eq=False)
class Cap:
    """A ``ConcurrencyLimit``; ``by`` as of a ``Rate``."""

    n: int
    by: str | None
    group = Rate.group


@dataclass(frozen=True)
class Program:
    """A call. ``options`` are passed on as they are. ``width``: how many workers there are; 0 stands for the caller's own thread."""

    scripts: list
    options: dict
    stream: bool
    tasks: bool  # in the tasks form, with options of their own
    prioritized: bool
    grows: bool
    limits: list
    width: int = 0

    @property
    def ranked(self):
        """Whether priorities decide."""
        return self.prioritized or (self.tasks and any("priority" in one.own for one in self.scripts))

    @property
    def gated(self):
        """Whether the first in line is looked for at each start."""
        return bool(self.grows or self.ranked or self.limits)


class Limiter:
    """One group of a rate."""

    def __init__(self, rate):
        self.calls, self.window, self.smooth = rate.calls, rate.per * MARGIN, rate.smooth
        self.interval = rate.per / rate.calls
        self.starts, self.next, self.paused = [], -math.inf, -math.inf

    def opens_at(self, now):
        """When the next start may be."""
        recent = [at for at in self.starts if at + self.window > now]
        full = sorted(recent)[-self.calls] + self.window if len(recent) >= self.calls else now
        return max(now, self.paused, full, self.next if self.smooth else now)

    def take(self, now):
        """Start now."""
        self.starts.append(now)
        self.next = (now if now - self.next > self.interval else self.next) + self.interval


class Places:
    """One group of a cap."""

    def __init__(self, cap):
        self.n, self.taken = cap.n, 0

    def opens_at(self, now):
        """When the next start may be; infinity, if that depends on others."""
        return now if self.taken < self.n else math.inf

    def take(self, now):
        """Start now."""
        self.taken += 1


@dataclass(eq=False)
class Task:
    """A task that has been read, or made by ``then``. ``end``: "", "cancelled", or the type of its final error."""

    index: int
    script: Script
    parent: str | None
    queued: float
    calls: int = 0
    attempts: int = 0
    first: float | None = None  # the start of its first call
    start: float | None = None  # of its last
    seconds: float = 0
    state: str = "ready"
    due: float = 0
    last: float | None = None  # by when it must have started again
    counted: bool = True  # whether its last call counts as an attempt
    ends: float = 0  # when its call that runs will end
    comes: str | None = None  # the error with which it will
    told: float = 0  # what that says how long to wait
    cut_off: bool = False  # whether it was running when the run was stopped
    error: str | None = None  # of its last call that has ended
    end: str | None = None


class Model:
    """Works out a program: ``tasks``, in the ``order`` in which they were settled, ``events``, ``stopped``, and ``now``, the end."""

    def __init__(self, program):
        self.program, self.options = program, program.options
        self.now, self.stopped, self.first_failed = 0.0, None, None
        self.tasks, self.order, self.events, self.again, self.fresh = [], [], [], [], []
        self.running = []
        self.unread, self.exhausted, self.stride = list(program.scripts), False, 1
        self.started = self.retried = 0
        self.limiters = {}
        while self.stopped is None and self.step():
            pass

    def step(self):
        """Call ``then``, read, give up on what is too late, start what may start, and let time pass; False at the end."""
        again = self.grow() + self.read()
        self.obey()
        if self.stopped is not None:
            return False
        for task in sorted(self.open(), key=attrgetter("due", "index")):
            if task.state == "delayed" and task.due <= self.now:
                task.state = "ready"
                self.again.append(task)
        if late := [task for task in self.open() if task.last is not None and task.last < self.now]:
            again = True
            for task in sorted(late, key=attrgetter("last", "index")):
                self.retried -= task.counted
                self.fail(task)
        while not late and len(self.running) < max(1, self.program.width) and (task := self.next_task()):
            self.start(task)
        if not (self.open() or again) and self.exhausted:
            return False
        self.pass_time(again)
        for task in sorted(self.ending(), key=lambda task: (task.comes is not None, task.ends)):
            self.finish(task)
        self.obey()
        return True

    def pass_time(self, again):
        """Go on to when something happens, unless there may be more to read, or ``then`` to call, now."""
        if self.running and not self.program.width:  # nothing else happens meanwhile
            self.now = self.running[0].ends
        elif not again and not self.ending():
            self.now = min(at for at in self.instants() if at > self.now)

    def ending(self):
        """The tasks whose call has ended by now."""
        return [task for task in self.running if task.ends <= self.now]

    def open(self):
        """The tasks without an outcome."""
        return [task for task in self.tasks if task.end is None]

    def read(self):
        """Read as far ahead as the buffer allows; return whether there was anything."""
        if self.exhausted:
            return False
        input_tasks = [task for task in self.tasks if task.parent is None]
        done = [task for task in input_tasks if task.end is not None]
        if self.program.stream and self.options.get("order") == "input":  # else yielded at once
            done = [task for task in done if all(one.end is not None for one in self.tasks[: task.index])]
        whole = self.program.ranked and len(self.program.scripts)  # any may have to go first
        wary = self.options.get("on_error") == "raise" or "max_failures" in self.options
        least = max(len(done), AHEAD * max(1, self.program.width) if wary else MANY)
        room = (self.options.get("buffersize") or whole or least) - len(input_tasks) + len(done)
        if room <= 0:
            return False
        if any(limit.by for limit in self.program.limits) and not self.program.ranked:
            room = min(
                room, self.stride
            )  # ``by`` is called for what is read: the first tasks need not wait for that
            self.stride = 2 * room
        portion, self.unread = self.unread[:room], self.unread[room:]
        for script in portion:
            self.admit(script)
        self.exhausted = len(portion) < room
        return bool(portion)

    def admit(self, script, parent=None):
        """Add a task."""
        self.tasks.append(Task(len(self.tasks), script, parent, self.now))

    def grow(self):
        """Call ``then``; return whether that gave tasks."""
        before, fresh, self.fresh = len(self.tasks), self.fresh, []
        for task in fresh if self.program.grows else ():
            for child in task.script.children:
                self.admit(child, task.script.name)
        return len(self.tasks) > before

    def obey(self):
        """Stop, if a rule says so and something is left to stop, or an outcome of which ``then`` has not heard."""
        reason = self.reason()
        if reason is None or self.stopped is not None:
            return
        if self.exhausted and not self.open() and not (self.fresh and self.program.grows):
            return
        self.stopped = reason
        for task in self.open():
            task.end, task.cut_off = "cancelled", task in self.running
            if task.cut_off:
                task.seconds = self.now - task.start
            self.order.append(task)
            if task.calls:
                self.tell("failed", task)

    def reason(self):
        """Why the run must stop."""
        failed = sum(task.end not in (None, "") for task in self.tasks)
        settled = len(self.tasks) - len(self.open())
        end, most = self.options.get("run_timeout"), self.options.get("max_failures")
        if end is not None and self.now >= end:
            return f"run_timeout of {end:g} s"
        if failed and self.options.get("on_error") == "raise":
            return "a task failed, and on_error is 'raise'"
        if isinstance(most, int) and failed >= most:
            return f"max_failures of {most} reached"
        if isinstance(most, float) and settled >= LEAST_OUTCOMES and failed >= most * settled:
            return f"max_failures of {most:g} reached: {failed} of {settled} outcomes are failures"
        return None

    def next_task(self):
        """The task to call now, if any: what is tried again goes first, unless limiters and priorities decide."""
        ready = [task for task in self.open() if task.state == "ready"]
        if not self.program.gated:
            return self.again[0] if self.again else ready[0] if ready else None
        for task in sorted(ready, key=lambda task: (-self.priority(task), task.index)):
            limiters = self.limiters_of(task)
            if all(limiter.opens_at(self.now) <= self.now for limiter in limiters):
                for limiter in limiters:
                    limiter.take(self.now)
                return task
        return None

    def priority(self, task):
        """Its own, or that of the option."""
        given = task.script.priority if self.program.prioritized else 0
        return self.own(task).get("priority", given)

    def own(self, task):
        """Its own options."""
        return task.script.own if self.program.tasks or task.parent is not None else {}

    def limiters_of(self, task):
        """The limiters at which it may have to wait."""
        keys = [(limit, limit.group(task.script)) for limit in self.program.limits]
        for key in keys:
            if key not in self.limiters:
                self.limiters[key] = Places(key[0]) if isinstance(key[0], Cap) else Limiter(key[0])
        return [self.limiters[key] for key in keys if key[1] is not None]

    def instants(self):
        """When something may happen."""
        for task in self.open():
            yield task.ends if task.state == "running" else task.due
            if task.last is not None:
                yield math.nextafter(task.last, math.inf)
            if task.state == "ready":
                yield from (limiter.opens_at(self.now) for limiter in self.limiters_of(task))
        if "run_timeout" in self.options:
            yield self.options["run_timeout"]

    def start(self, task):
        """Call the function of a task."""
        self.started += task.error is None
        if task in self.again:
            self.again.remove(task)
        step = task.script.steps[min(task.calls, len(task.script.steps) - 1)]
        task.state, task.start, task.seconds, task.last = "running", self.now, step.seconds, None
        task.first = self.now if task.first is None else task.first
        task.calls += 1
        task.attempts += 1
        task.ends, task.comes, task.told = self.now + step.seconds, step.error or None, step.told
        limit = self.own(task).get("timeout", self.options.get("timeout"))
        if limit is not None and task.ends > self.now + limit:
            task.comes = "TaskTimeout"
            if self.program.width:  # an inline call cannot be cut off
                task.ends, task.seconds = self.now + limit, limit
        self.running.append(task)
        self.tell("started", task)

    def finish(self, task):
        """Decide what follows the end of a call."""
        self.running.remove(task)
        task.error = task.comes
        for limiter in self.limiters_of(task):
            if isinstance(limiter, Places):
                limiter.taken -= 1
        if task.error is None:
            self.settle(task, "")
            self.tell("succeeded", task)
            return
        delay = self.delay_after(task, task.told)
        if task.error == "Told" and task.told <= LONGEST_TOLD:
            for limiter in self.limiters_of(task):
                if isinstance(limiter, Limiter):
                    limiter.paused = max(limiter.paused, self.now + task.told)
        if delay is None:
            self.fail(task)
            return
        self.tell("retrying" if task.counted else "waiting", task, delay)
        self.retried += task.counted
        task.state, task.due = "delayed", self.now + delay

    def delay_after(self, task, told):
        """Seconds until the next call; None if there is none."""
        task.counted = task.error != "RateLimitException"
        policy = self.own(task).get("retries", self.options.get("retries", 0))
        policy = policy if isinstance(policy, Retry) else Retry(policy)
        if not task.counted:
            task.attempts -= 1
            wait = max(SHORTEST_TOLD, told)
        else:
            most = math.inf if policy.budget is None else max(LEAST_RETRIES, policy.budget * self.started)
            spent = task.attempts > policy.retries or self.retried >= most
            if spent or not covers(policy.on, task.error):
                return None
            wait = min(policy.max_delay, policy.delay * policy.factor ** (task.attempts - 1))
            wait = max(wait, told if task.error == "Told" else 0)
        last = math.inf if policy.max_time is None else task.first + policy.max_time
        told_too_long = task.error in ("Told", "RateLimitException") and told > LONGEST_TOLD
        if told_too_long or self.now + wait > min(last, self.options.get("run_timeout", math.inf)):
            return None
        task.last = None if last == math.inf else last
        return wait

    def fail(self, task):
        """Make its last error final."""
        self.settle(task, task.error)
        self.first_failed = self.first_failed or task
        self.tell("failed", task)

    def settle(self, task, end):
        """Give it its outcome."""
        task.end = end
        self.order.append(task)
        self.fresh.append(task)
        if task in self.again:
            self.again.remove(task)

    def tell(self, kind, task, delay=None):
        """Note an event."""
        self.events.append((kind, round(self.now, 6), task.index, delay))


ERRORS = {
    "ValueError": ValueError(),
    "OSError": OSError(),
    "Told": Told(1),
    "TaskTimeout": TaskTimeout(),
    "TaskExited": TaskExited(),
    "WorkerDied": WorkerDied("died"),
}


def covers(on, name):
    """Whether a policy retries after an error of this name; ``TaskExited`` stands for SystemExit here."""
    if not isinstance(on, type | tuple):
        return on(ERRORS[name])
    return isinstance(ERRORS[name], on) or (name == "TaskExited" and issubclass(SystemExit, on))

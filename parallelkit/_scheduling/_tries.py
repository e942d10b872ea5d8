"""Decides what follows a failed attempt: a retry, and when, or the final failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import inf
from operator import call
from typing import Any

from parallelkit._errors import TaskExited
from parallelkit._executors._contract import Block, Ended
from parallelkit._interrupt import UserCall
from parallelkit._lost import Lost, is_a, uncounted
from parallelkit._marks import UNSET
from parallelkit._policies import FREE_RETRIES, Backoff, RetryPolicy, TenacityPolicy, on_text
from parallelkit._raised import add_note, describe_error, is_of_signal, tolerated
from parallelkit._scheduling._retry_after import LONGEST, did_not_run, retry_after
from parallelkit._tasks import Own

MARKED = "parallelkit: "  # the prefix of our note on an error


class Verdict:
    """What follows one failed attempt.

    ``delay``: seconds until the next attempt; None if this was the last. ``start_by``: the instant by which the next
    must have started, if any. ``pause``: seconds for which the task's groups must wait. ``counted``: whether the
    attempt counts as one. ``why``: an addition to the note on its error.
    """

    def __init__(self, lost: Lost) -> None:
        self.lost = lost
        self.delay: float | None = None
        self.start_by: float | None = None
        self.pause: float | None = None
        self.counted = True
        self.why = ""


class Tries:
    """The attempts of the tasks that have failed, or have options of their own; others cost nothing here."""

    def __init__(
        self,
        policy: RetryPolicy | None,
        label: Callable[[int], str],
        end_at: float | None = None,
        call_user: UserCall = call,
    ) -> None:
        self.own: dict[int, Own] = {}
        self.last: dict[int, Lost] = {}  # the last failed attempt of each task that has any
        self.retried = 0
        self.choosy = is_choosy(policy)  # whether a policy looks at values, too
        self._first_start: dict[int, float] = {}
        self._policy = policy
        self._label = label
        self._end_at = end_at
        self._call_user = call_user
        self._cut_off = False  # Ctrl-C came while a policy was being asked

    def __bool__(self) -> bool:
        """Whether anything is known here about any task."""
        return bool(self.last or self.own)

    def adopt(self, own: Mapping[int, Own]) -> None:
        """Add the options that tasks have of their own, by index."""
        self.own.update(own)
        self.choosy = self.choosy or any(is_choosy(options.policy) for options in own.values())

    def sift(self, block: Block) -> tuple[Block, list[Ended]]:
        """Split a block: the values that policies accept, and failed attempts for the rest."""
        good, refused = [], []
        for row in zip(*block, strict=True):
            index, value, started, ended, worker = row
            refusal = self._refusal(index, value)
            if refusal is None:
                good.append(row)
            else:
                refused.append(Ended(index, refusal, "", started, ended, worker))
        return Block(*zip(*good, strict=True)) if good else Block((), (), (), (), ()), refused

    def _refusal(self, index: int, value: Any) -> Exception | None:
        """The error that replaces a value that the task's policy does not accept; None for an accepted value."""
        policy = self._policy_of(index)
        if not isinstance(policy, TenacityPolicy):
            return None
        try:
            refusal: Exception | None = self._answer(
                partial(policy.refusal, self.made(index) + 1, value), None
            )
        except Exception as broken:  # from the user's predicate: the task fails with it, as in tenacity
            if is_of_signal(broken):
                raise
            return broken
        return refusal

    def made(self, index: int) -> int:
        """How many attempts of a task have failed."""
        before = self.last.get(index)
        return 0 if before is None else before.number

    def forget(self, index: int) -> None:
        """Forget a task, which is settled."""
        for table in (self.last, self.own, self._first_start):
            table.pop(index, None)

    def settled(self, indices: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Forget tasks that have succeeded; yield those that took several attempts, and how many."""
        for index in indices if self else ():
            number = self.made(index) + 1
            if number > 1:
                yield index, number
            self.forget(index)

    def judge(self, ended: Ended, now: float, started: int) -> Verdict:
        """Decide what follows a failed attempt; the run has started ``started`` tasks so far."""
        index, number = ended.index, self.made(ended.index) + 1
        error = as_exception(ended.error)
        lost = Lost(error, number, ended.started, ended.ended, ended.worker, ended.traceback, ended.stack)
        verdict = Verdict(lost)
        wait = did_not_run(error)
        if ended.final:
            lost.number -= ended.started is None  # it never began
            if has_left(self._policy_of(index), number):
                verdict.why = not_again("another try cannot help")
        elif wait is not None:
            lost.number -= 1
            verdict.counted = False
            self._wait(verdict, index, wait, now, told=wait)
        else:
            self._retry(verdict, index, now, started)
        note_task(lost, f"{self._label(index)}, attempt {number}{self._of(index)}{verdict.why}")
        if verdict.delay is not None:
            self.retried += verdict.counted
            self.last[index] = lost
        return verdict

    def lapse(self, index: int) -> Lost:
        """Make the last failure of a task final, because its retry could not start in time."""
        lost, policy = self.last[index], self._policy_of(index)
        assert lost.error is not None, "a failed attempt has its error"
        assert policy is not None, "what comes back has a policy"
        assert policy.max_time is not None, "else it would have all the time"
        ran = did_not_run(lost.error) is None  # else the attempt was not counted
        self.retried -= ran
        attempt = f"{self._label(index)}, attempt {lost.number + (not ran)}{self._of(index)}"
        why = not_again(too_late(policy.max_time))
        lost.text = lost.text.removesuffix(f"{MARKED}{attempt}\n")
        note_task(lost, attempt + why)
        return lost if ran else uncounted(lost)

    def _retry(self, verdict: Verdict, index: int, now: float, started: int) -> None:
        lost, policy = verdict.lost, self._policy_of(index)
        assert lost.error is not None, "a failed attempt has its error"
        told = retry_after(lost.error)
        if told is not None and told <= LONGEST:
            verdict.pause = told
        if policy is None or not has_left(policy, lost.number):
            return  # "attempt 3 of 3" in the note says why
        if policy.budget is not None and self.retried >= max(FREE_RETRIES, policy.budget * started):
            verdict.why = not_again(f"budget of {round(policy.budget * 100, 2):g} % is spent")
            return
        try:
            elapsed = lost.ended - self._first_start_of(index, lost)
            delay = self._answer(partial(policy.delay_after, lost.number, lost.error, elapsed), 0.0)
        except Exception as broken:  # from the user's predicate: only this task loses its retries
            if is_of_signal(broken):
                raise
            verdict.why = not_again(f"retries raised {describe_error(broken)}")
            return
        if delay is None:
            covers = f"on={on_text(policy.on)} does not cover it" if isinstance(policy, Backoff) else ""
            verdict.why = not_again(covers or "tenacity says so")
        else:
            self._wait(verdict, index, max(delay, told or 0.0), now, told)

    def _wait(self, verdict: Verdict, index: int, wait: float, now: float, told: float | None) -> None:
        """Grant the wait, or say which limit it would exceed: then the failure is final at once."""
        limit = self._limit_of(index)
        start_by = self._first_start_of(index, verdict.lost) + limit
        if told is not None and told > LONGEST:
            verdict.why = not_again(f"it was told to wait {span(told)}, more than {span(LONGEST)}")
        elif wait == inf:
            verdict.why = not_again("the wait would never end")
        elif now > start_by:  # the run was busy when the attempt failed
            verdict.why = not_again(too_late(limit))
        elif now + wait > start_by:
            verdict.why = not_again(f"the wait of {span(wait)} would go past max_time of {span(limit)}")
        elif self._end_at is not None and now + wait > self._end_at:
            verdict.why = not_again(f"the wait of {span(wait)} would go past run_timeout")
        else:
            verdict.delay, verdict.start_by = wait, None if start_by == inf else start_by

    def start_by(self, index: int) -> float | None:
        """The last instant at which a task may start again; None if it may at any, or has not failed."""
        limit = self._limit_of(index)
        return None if limit == inf or index not in self.last else self._first_start[index] + limit

    def _limit_of(self, index: int) -> float:
        policy = self._policy_of(index)
        return inf if policy is None or policy.max_time is None else policy.max_time

    def _answer(self, question: Callable[[], Any], otherwise: Any) -> Any:
        """Ask a policy; after a Ctrl-C in one, which may hang in user code, return ``otherwise`` without asking.

        The run is about to stop then: a value is accepted, and a failed task waits for a retry, until it is
        cancelled with its error as the cause.
        """
        answer = UNSET if self._cut_off else self._call_user(question)
        self._cut_off = answer is UNSET
        return otherwise if self._cut_off else answer

    def _first_start_of(self, index: int, lost: Lost) -> float:
        return self._first_start.setdefault(index, lost.ended if lost.started is None else lost.started)

    def _policy_of(self, index: int) -> RetryPolicy | None:
        own = self.own.get(index)
        return own.policy if own is not None and own.has_policy else self._policy

    def _of(self, index: int) -> str:
        policy = self._policy_of(index)
        return (
            f" of {policy.retries + 1}" if isinstance(policy, Backoff) else " of 1" if policy is None else ""
        )


def has_left(policy: RetryPolicy | None, number: int) -> bool:
    """Whether the policy allows another attempt after attempt ``number``."""
    return number <= policy.retries if isinstance(policy, Backoff) else policy is not None


def not_again(reason: str) -> str:
    """The addition to a note that says why no retry followed."""
    return f"; not tried again, since {reason}"


def too_late(max_time: float) -> str:
    """Why a retry was not made that ``max_time`` left no time for."""
    return f"max_time of {span(max_time)} was over before it could start"


def span(seconds: float) -> str:
    """Seconds, down to the millisecond.

    >>> span(1000), span(0.8934)
    ('1000 s', '0.893 s')
    """
    return f"{round(seconds, 3):g} s"


def is_choosy(policy: RetryPolicy | None) -> bool:
    """Whether a policy may refuse a value."""
    return isinstance(policy, TenacityPolicy)


def as_exception(error: BaseException) -> Exception:
    """What a task raised, wrapped unless it is an ``Exception``: anything else could end the user's program."""
    if is_a(error, Exception):
        return error
    exited = TaskExited(f"the task raised {describe_error(error)}")
    exited.__cause__ = error
    return exited


def note_task(lost: Lost, note: str) -> None:
    """Add a note on the task to its error, and to its traceback if that came as text, which lacks the note.

    If many tasks raise the same error object, it keeps only the last note.
    """
    error = lost.error
    assert error is not None, "a failed attempt has its error"
    with tolerated():  # the error's class may override any of this
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list):
            notes[:] = [old for old in notes if not str(old).startswith(MARKED)]
    add_note(error, MARKED + note)
    if lost.text:
        lost.text += f"{MARKED}{note}\n"

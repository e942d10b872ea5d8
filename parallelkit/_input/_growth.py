"""``then``: new tasks for the same run, made by the caller from outcomes that have just settled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from parallelkit._errors import InputError
from parallelkit._input._intake import Intake
from parallelkit._input._portion import Portion
from parallelkit._loop import Loop
from parallelkit._raised import describe_error
from parallelkit._tasks import hint_for, is_task

if TYPE_CHECKING:
    from parallelkit._outcomes import Outcome


class Growth:
    """Calls ``then`` with every outcome, in the thread of the loop, and admits the tasks it returns.

    If ``then`` raises or returns something wrong, it is not called again, and the input ends: tasks
    that the run already has are still run.
    """

    def __init__(
        self,
        then: Callable[[Outcome[Any, Any]], Iterable[Any] | None],
        intake: Intake,
        loop: Loop,
        take_settled: Callable[[], list[Outcome[Any, Any]]],
        enter: Callable[[Portion], None],
    ) -> None:
        self.children = 0
        self._then = then
        self._intake = intake
        self._loop = loop
        self._take_settled = take_settled
        self._enter = enter

    def __call__(self) -> bool:
        before = self.children
        for outcome in self._take_settled():
            if self._intake.error is None:
                self._follow(outcome)
        return self.children > before

    def _follow(self, outcome: Outcome[Any, Any]) -> None:
        try:
            with self._loop.interrupt.user_code():
                portion = self._adopt(tasks_of(self._then(outcome)), outcome.key)
        except Exception as error:
            self._intake.fail(f"then raised {describe_error(error, f'for {outcome.key!r}')}", error)
        else:
            if portion.items:
                self.children += len(portion.items)
                self._enter(portion)
                self._loop.admit(portion)

    def _adopt(self, children: list[Any], parent: Any) -> Portion:
        """These tasks; none if ``by`` or ``priority`` raised for one, which ends the input."""
        try:
            return self._intake.adopt(children, parent, self._loop.scheduler.admitted)
        except InputError as error:
            self._intake.end(error)
            return Portion()


def tasks_of(children: Any) -> list[Any]:
    """The tasks that ``then`` returned, as a list; empty for None or False."""
    if not isinstance(children, Iterable):
        if children:
            raise TypeError(
                f"then must return an iterable of tasks, or None, got {children!r}; give it in a list"
            )
        return []
    tasks = list(children)
    for task in tasks:
        if not is_task(task) and not callable(task):
            hint = hint_for(task, "give Task(fn, item), with the function that the item is for")
            raise TypeError(f"then must return callables or Task objects, got {task!r}{hint}")
    return tasks

"""Code of the caller's that is asked something while outcomes are being settled: none of them hangs on its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallelkit._interrupt import Interrupt
from parallelkit._marks import UNSET


class Asking:
    """Asks the caller's code, and keeps a Ctrl-C that cuts it off for the loop's safe point.

    As in ``Interrupt.user_code`` it is raised at once, lest that code hold up the end of the run; but
    further on it would cost the outcomes that are in hand. One that has come before stays a flag. It
    counts also where that code has swallowed it, and so does any KeyboardInterrupt out of there: a run
    within may have ended in it.
    """

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def __call__(self, question: Callable[[], Any]) -> Any:
        """The answer; UNSET where it was cut off."""
        interrupt = self._interrupt
        before, times = interrupt.exposed, interrupt.times
        try:
            try:
                interrupt.exposed = True
                answer = question()
            finally:
                interrupt.exposed = before
        except KeyboardInterrupt:
            pass
        except BaseException:
            if interrupt.times == times:
                raise
        else:
            if interrupt.times == times:
                return answer
        interrupt.exposed, interrupt.asked = before, True
        return UNSET

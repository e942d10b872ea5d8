"""Calls of the caller's code while outcomes are being settled: Ctrl-C cuts off such a call, and no outcome is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallelkit._interrupt import Interrupt
from parallelkit._marks import UNSET


class InterruptibleCall:
    """Calls the caller's code; a Ctrl-C that cuts the call off is kept for the loop's safe point.

    As in ``Interrupt.user_code``, Ctrl-C is raised inside the call at once, so that the code cannot delay the
    end of the run. Raised any further it would lose the outcomes being settled, so it becomes the flag again. A
    Ctrl-C from before the call stays a flag. One that the code swallows counts all the same, and
    so does any KeyboardInterrupt that the code raises: a run nested in it may have ended with that.
    """

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def __call__(self, code: Callable[[], Any]) -> Any:
        """Call it; return what it returns, or UNSET if the call was cut off."""
        interrupt = self._interrupt
        before, times = interrupt.exposed, interrupt.times
        try:
            try:
                interrupt.exposed = True
                returned = code()
            finally:
                interrupt.exposed = before
        except KeyboardInterrupt:
            pass
        except BaseException:
            if interrupt.times == times:
                raise
        else:
            if interrupt.times == times:
                return returned
        interrupt.exposed, interrupt.asked = before, True
        return UNSET

"""A run as its caller has it: checked at once, then driven to its end, or taken as a stream."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from parallelkit._collected import Collected
from parallelkit._outcomes import Outcome
from parallelkit._parts import Parts
from parallelkit._results import Results


class Plan(Parts):
    """A run that has been checked and not begun."""

    __slots__ = ()

    def collect(self) -> Results[Any, Any]:
        """Run to the end, or to the stop, and return or raise what has become of it."""
        return Collected(self).run()

    def stream(self) -> Generator[Outcome[Any, Any], None, None]:
        """The generator of ``iter_parallel``; its body runs from the first ``next()`` on."""
        from parallelkit._streamed import Streamed

        return Streamed(self).outcomes()

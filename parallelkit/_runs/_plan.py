"""A run as ``run_parallel`` and ``iter_parallel`` use it: validated, then collected or streamed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Self

from parallelkit._errors import InputError
from parallelkit._ledger import Ledger
from parallelkit._outcomes import Outcome
from parallelkit._results import Results
from parallelkit._runs._collected import Collected
from parallelkit._runs._parts import Parts


class Plan(Parts):
    """A run that has been validated and not started."""

    __slots__ = ()

    @classmethod
    def make(cls, fn: Any, items: Any, options: dict[str, Any], *, stream: bool = False) -> Self:
        """Validate the call; an InputError that this ends in has results, as those of a run have."""
        try:
            return super().make(fn, items, options, stream=stream)
        except InputError as error:
            error.results = Results(Ledger())
            raise

    def collect(self) -> Results[Any, Any]:
        """Run to the end, or until stopped; return the results, or raise the error that ends the run."""
        return Collected(self).run()

    def stream(self) -> Generator[Outcome[Any, Any], None, None]:
        """The generator of ``iter_parallel``, which starts the run at its first ``next()``."""
        from parallelkit._runs._streamed import Streamed

        return Streamed(self).outcomes()

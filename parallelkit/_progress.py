"""The bar, a tqdm; and a silent one that the loop drives all the same."""

from __future__ import annotations

import sys
from typing import Any

from parallelkit._interrupt import hold_interrupt
from parallelkit._logger import logger
from parallelkit._raised import is_of_signal


class Silent:
    """A bar that shows nothing."""

    def show(self, total: int | None, settled: int, failed: int, retried: int) -> None:
        """The counts as they are now; ``total`` None where it is not known yet."""

    def close(self) -> None:
        """Leave the last state on the screen."""


class Bar(Silent):
    """Counts tasks, not batches; shows what failed and what was tried again; the total may grow.

    Nothing is drawn when stderr is no terminal, unless ``disable=False`` is among the options. A
    bar that fails is logged once and switched off: the run goes on.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._bar: Any = None
        self._broken = False
        self._shown: tuple[int | None, int, int, int] | None = None

    def show(self, total: int | None, settled: int, failed: int, retried: int) -> None:
        counts = (total, settled, failed, retried)
        if not self._broken and counts != self._shown:
            self._shown = counts
            self._guarded(self._draw, *counts)

    def _draw(self, total: int | None, settled: int, failed: int, retried: int) -> None:
        if self._bar is None:
            self._bar = self._make(total)
        bar = self._bar
        if total is None:  # not known here; perhaps the caller knows
            total = self._options.get("total")
        if bar.total != total:
            bar.total = total
            bar.refresh()
        notes = [f"{count} {name}" for name, count in (("failed", failed), ("retried", retried)) if count]
        if notes:
            bar.set_postfix_str(", ".join(notes), refresh=False)
        bar.update(settled - bar.n)
        self._raise_failure()

    def _make(self, total: int | None) -> Any:
        import tqdm

        make: Any = tqdm.tqdm
        disable: bool | None = False
        if not notebook_without_widgets():  # there tqdm.auto would warn, and the text bar see no terminal
            import tqdm.auto

            make, disable = tqdm.auto.tqdm, None
        return careful(make)(**{"total": total, "disable": disable, "unit": "task", **self._options})

    def close(self) -> None:
        if self._bar is not None and not self._broken:
            self._guarded(self._finish)

    def _finish(self) -> None:
        self._bar.refresh()
        self._bar.close()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._bar.failure is not None:
            raise self._bar.failure

    def _guarded(self, draw: Any, *counts: Any) -> None:
        try:
            with hold_interrupt():  # in the midst of it, tqdm would keep its lock for ever
                draw(*counts)
        except Exception as error:
            if is_of_signal(error):
                raise
            self._broken = True
            logger.warning("the progress bar failed and is switched off; the run goes on", exc_info=True)


def notebook_without_widgets() -> bool:
    """Whether this is a notebook's kernel in which the widget bar cannot be shown."""
    if "ipykernel" not in sys.modules:
        return False
    from importlib.util import find_spec

    return find_spec("ipywidgets") is None


def careful(base: Any) -> Any:
    """Bars of that class, whose ``display`` does not raise but notes its failure.

    If it raised, tqdm would keep its lock for ever, and so block every bar of the program.
    """

    class Careful(base):  # type: ignore[misc]  # found at run time
        monitor_interval = 0  # no watching thread, which would outlive the run; other bars keep theirs
        failure: Exception | None = None

        def display(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().display(*args, **kwargs)
            except Exception as error:
                self.failure, self.disable = (
                    error,
                    True,
                )  # disabled: nothing more is drawn, not even at its end
                return None

    return Careful


def open_bar(progress: Any) -> Silent:
    """The bar that the option ``progress`` asks for."""
    if progress is False:
        return Silent()
    return Bar(dict(progress) if isinstance(progress, dict) else {})

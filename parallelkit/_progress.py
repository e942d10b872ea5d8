"""Progress bars: one that uses tqdm, and one that shows nothing."""

from __future__ import annotations

import sys
from typing import Any

from parallelkit._interrupt import hold_interrupt
from parallelkit._keywords import did_you_mean
from parallelkit._raised import is_of_signal


class Silent:
    """A bar that shows nothing, so that the loop need not ask whether there is one."""

    def show(self, total: int | None, settled: int, failed: int, retried: int) -> None:
        """Show the current counts; ``total`` is None while it is unknown."""

    def close(self) -> None:
        """Close the bar, leaving its last state on the screen."""


class Bar(Silent):
    """A tqdm bar that counts tasks (not batches), failures and retries; the total may grow.

    Nothing is drawn if stderr is not a terminal, unless the options include ``disable=False``. If drawing
    fails, that is logged once, the bar is switched off, and the run goes on.
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
        before = self._options.get("initial", 0)
        total = self._options.get("total") if total is None else before + total
        if bar.total != total:
            bar.total = total
            bar.refresh()
        notes = [f"{count} {name}" for name, count in (("failed", failed), ("retried", retried)) if count]
        if notes:
            bar.set_postfix_str(", ".join(notes), refresh=False)
        bar.update(before + settled - bar.n)
        self._raise_failure()

    def _make(self, total: int | None) -> Any:
        import tqdm

        make: Any = tqdm.tqdm
        disable: bool | None = None
        if notebook_without_widgets():  # in one, tqdm.auto warns, and ``disable=None`` finds no terminal
            disable = False
        elif self._options.get("file") in (None, sys.stderr, sys.stdout):  # a widget ignores any other
            import tqdm.auto

            make = tqdm.auto.tqdm
        return recording_failure(make)(
            **{"total": total, "disable": disable, "unit": "task", **self._options}
        )

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
            with hold_interrupt():  # an exception in the middle of it would leave tqdm's lock locked
                draw(*counts)
        except Exception as error:
            if is_of_signal(error):
                raise
            self._broken = True
            from parallelkit._logger import logger

            logger.warning("the progress bar failed and is switched off; the run goes on", exc_info=True)


def notebook_without_widgets() -> bool:
    """Whether this process is a notebook's kernel that cannot show the widget bar."""
    if "ipykernel" not in sys.modules:
        return False
    from importlib.util import find_spec

    return find_spec("ipywidgets") is None


def recording_failure(base: Any) -> Any:
    """A subclass of the bar class ``base`` whose ``display`` records an exception as ``failure`` and returns.

    If ``display`` raised, tqdm would never release its lock, and every bar of the program would block.
    """

    class Recording(base):  # type: ignore[misc]  # found at run time
        monitor_interval = 0  # no monitor thread, which would outlive the run; other bars keep theirs
        failure: Exception | None = None

        def display(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().display(*args, **kwargs)
            except Exception as error:
                self.failure = error
                self.disable = True  # draw nothing more, not even when it is closed
                return None

    return Recording


def check_progress(progress: Any) -> None:
    """Raise TypeError if this is no bool and no dict of a bar's options; tqdm complains only where it draws."""
    if isinstance(progress, bool):
        return
    if not isinstance(progress, dict):
        raise TypeError(f"progress must be a bool or a dict of tqdm's options, got {progress!r}")
    from inspect import signature

    import tqdm

    known = {*signature(tqdm.tqdm.__init__).parameters, "display"} - {"self", "iterable", "kwargs"}
    for name in progress:
        if name not in known:
            hint = did_you_mean(str(name), known) or f"they are {', '.join(sorted(known))}"
            raise TypeError(
                f"progress must be a bool or a dict of tqdm's options, got {name!r} in it; {hint}"
            )


def open_bar(progress: Any) -> Silent:
    """The bar that the option ``progress`` asks for."""
    if progress is False:
        return Silent()
    return Bar(dict(progress) if isinstance(progress, dict) else {})

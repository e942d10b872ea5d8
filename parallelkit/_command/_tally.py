"""What a command remembers of the outcomes that it has written: counts, and kinds of failure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from parallelkit._journal._payload import SOURCE
from parallelkit._lost import is_of_stop
from parallelkit._outcomes import Outcome
from parallelkit._raised import describe_error
from parallelkit._report._failures import shape
from parallelkit._report._format import clip, count, encodable, key_text, number, seconds

KINDS = 200  # kinds of failure that are counted separately
SHOWN = 5  # kinds that the summary shows
KEYS = 3  # keys that are shown of each kind
WIDTH = 200  # characters that are shown of a message
WORTH_SAYING = 1.0  # seconds from which on the parallelism of a run is more than noise
LEAST_WIDTH = 0.1  # least parallelism that is shown; below it, a limit held the run back

RED, GREEN, PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"


@dataclass
class Kind:
    """Failures that are alike: the text of the first, their number, and the keys of a few."""

    text: str
    failed: int = 0
    keys: list[Any] = field(default_factory=list)


@dataclass
class Tally:
    """Counts outcomes, in flat memory. ``cut_off``: tasks that had begun when the run was stopped."""

    succeeded: int = 0
    failed: int = 0
    cut_off: int = 0
    recalled: int = 0
    retries: int = 0
    busy: float = 0.0
    kinds: dict[tuple[type[BaseException] | None, str], Kind] = field(default_factory=dict)

    def count(self, outcome: Outcome[Any, Any]) -> bool:
        """Count an outcome; return whether to write it, which is not so for a task that the run's stop cancelled."""
        if not outcome.ok and is_of_stop(outcome.error):
            self.cut_off += outcome.attempts > 0
            return False
        self.busy += outcome.duration
        self.retries += max(0, outcome.attempts - 1)
        self.recalled += outcome.worker == SOURCE
        if outcome.ok:
            self.succeeded += 1
        else:
            self.failed += 1
            self._note(outcome.key, outcome.error)
        return True

    def _note(self, key: Any, error: BaseException) -> None:
        text = encodable(describe_error(error))
        name: tuple[type[BaseException] | None, str] = (type(error), shape(text))
        if name not in self.kinds and len(self.kinds) >= KINDS:
            name, text = (None, ""), "of other kinds"
        kind = self.kinds.setdefault(name, Kind(clip(text, WIDTH)))
        kind.failed += 1
        if len(kind.keys) < KEYS:
            kind.keys.append(key)

    def stop(self, why: str, read: int | None) -> str:
        """Say why the run was stopped, and what that has left undone. ``read``: as in ``_undone``."""
        return f"stopped: {why}{self._undone(read)}"

    def _undone(self, read: int | None) -> str:
        """Say what a stop has left undone. ``read``: how many items the input has; None if it was not read to its end."""
        begun = [f"{self.cut_off:,} that had begun"] if self.cut_off else []
        if read is None:
            return f"; not done: {' and '.join([*begun, 'the rest of the input'])}"
        left = read - self.succeeded - self.failed - self.cut_off
        rest = [f"{left:,} that had not{'' if begun else ' begun'}"] if left else []
        return f"; not done: {' and '.join(begun + rest)}" if begun or rest else ""

    def summary(self, wall: float, stopped: str | None, read: int | None, colour: bool) -> Iterator[str]:
        """Yield the few lines of the summary. ``read``: as in ``_undone``."""
        good, bad, plain = (GREEN, RED, PLAIN) if colour else ("", "", "")
        tasks = count(self.succeeded + self.failed, "task")
        failed = f"{bad if self.failed else ''}{self.failed:,} failed{plain if self.failed else ''}"
        parts = [f"{good}{self.succeeded:,} succeeded{plain}", failed]
        parts += [f"{self.recalled:,} from the checkpoint"] if self.recalled else []
        parts += [count(self.retries, "retry")] if self.retries else []
        known = wall >= WORTH_SAYING and not self.retries  # the time of retried attempts is not in ``busy``
        at_a_time = self.busy / wall if known else 0.0
        width = f"; ran {number(at_a_time, 2)} at a time" if at_a_time >= LEAST_WIDTH else ""
        yield f"{tasks} in {seconds(wall)}: {', '.join(parts)}{width}"
        if stopped is not None:
            yield self.stop(stopped, read)
        kinds = sorted(self.kinds.values(), key=lambda kind: -kind.failed)
        for kind in kinds[:SHOWN]:
            keys = ", ".join(key_text(key, 40) for key in kind.keys) + (", …" if kind.failed > KEYS else "")
            yield f"  {kind.failed:,} × {kind.text}  (key {keys})"
        if len(kinds) > SHOWN:
            yield f"  and {count(len(kinds) - SHOWN, 'further kind')} of failure"

"""A parser of command lines that takes options anywhere, and says which option an unknown one was meant to be."""

from __future__ import annotations

import argparse

from parallelkit._keywords import WORKERS, did_you_mean

ELSEWHERE = {
    **{name.replace("_", "-"): "max-workers" for name in (*WORKERS, "P", "j", "concurrency", "parallel")},
    **dict.fromkeys(("journal", "resume"), "checkpoint"),
    **dict.fromkeys(("limit", "limits", "rate-limit"), "rate"),
    "html": "report",
}
"""What our options are called in Python, in xargs and in other tools, without the dashes."""


class Intermixed(argparse.ArgumentParser):
    """Takes options between and after the inputs, too, as Unix tools do."""

    _mixing = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # as its base class, which has overloads
        """As the base class, which calls this method again while it mixes."""
        if self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False
        if unknown:  # reported here, to show the usage of this command, not of the whole program
            # After an unknown option, inputs that are right are unknown, too: leave these out.
            options = [word for word in unknown if word.startswith("-")]
            hint = self._nearest(options[0]) if options else ""
            self.error(f"unrecognized arguments: {' '.join(options or unknown)}{hint and f'; {hint}'}")
        return found, unknown

    def _nearest(self, option: str) -> str:
        """Ask whether another option was meant, compared without the dashes, by which any two options are alike."""
        known = [name[2:] for name in self._option_string_actions if name.startswith("--")]
        word = option.lstrip("-").partition("=")[0].rstrip("0123456789")
        return did_you_mean(word, known, ELSEWHERE).replace("'", "'--", 1)

"""Ctrl-C comes to tests, and to the programs that they start, also where those are run in the background."""

import signal


def let_interrupts_in():
    """A shell without jobs has SIGINT ignored by what it starts in the background, and so by all that this starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

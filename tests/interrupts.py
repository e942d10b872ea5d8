"""Make Ctrl-C work in tests, and in the programs that they start, even if pytest runs in the background."""

import signal


def let_interrupts_in():
    """Stop ignoring SIGINT: a shell without job control lets background commands ignore it, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

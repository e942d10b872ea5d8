"""Which process the kernel ends when memory runs out: a worker, not the program that it works for.

The kernel's OOM killer ends the process that uses most. That would often be the program, which holds the data, although
a task in a worker asked for too much.
"""

from __future__ import annotations

import os

HANDICAP = 500
"""Thousandths of the memory. With all of them, workers would be ended for any other program's leak."""


def go_first() -> None:
    """Count, with all children to come, as if this process used half of the memory more than it does.

    Where that cannot be set (no /proc, a sandbox), the kernel's choice stays what it is without us.
    """
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, b"%d" % min(1000, int(os.read(fd, 16)) + HANDICAP))
    except OSError:
        return
    finally:
        os.close(fd)

"""The package's logger. Its handlers and filters may fail without harm to a run."""

from __future__ import annotations

import logging
from typing import Any

from parallelkit._raised import tolerated


class Logger(logging.LoggerAdapter[logging.Logger]):
    """Ignores what a handler or filter raises. Standard handlers ignore their own errors, unless stderr is closed."""

    def log(self, level: int, msg: object, *args: Any, **more: Any) -> None:
        with tolerated():
            super().log(level, msg, *args, stacklevel=2, **more)  # 2: the caller of this method


logger = Logger(logging.getLogger("parallelkit"))

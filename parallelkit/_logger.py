"""The package's logger. Whatever listens to it may fail: what is said there costs no run anything."""

from __future__ import annotations

import logging
from typing import Any

from parallelkit._raised import tolerated


class Logger(logging.LoggerAdapter[logging.Logger]):
    """Passes over what a handler or filter raises, as the standard one does where no closed stderr raises once more."""

    def log(self, level: int, msg: object, *args: Any, **more: Any) -> None:
        with tolerated():
            super().log(level, msg, *args, stacklevel=2, **more)  # past this method


logger = Logger(logging.getLogger("parallelkit"))

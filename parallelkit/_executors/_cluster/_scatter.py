"""Scatters bytes that are too large to travel with a batch: dask's workers keep them, and a batch refers to their key.

The client's event loop does this, so that neither the run's thread, which watches timeouts, nor the
one that waits for news waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

AGAIN = 0.1  # seconds until the next try, if a worker left while it received something


class Scatterer:
    """``failed`` is called in the event loop's thread, with the error, if dask cannot take something at all."""

    def __init__(self, client: Any, failed: Callable[[Exception], None]) -> None:
        self._client = client
        self._failed = failed
        self._closed = False

    def send(self, blob: bytes, arrived: Callable[[Any], None], everywhere: bool = False) -> None:
        """Send bytes to one worker, or to all; then ``arrived`` is called with dask's future, in the event loop's thread."""
        scattering = self._scatter(blob, arrived, everywhere)
        asyncio.run_coroutine_threadsafe(scattering, self._client.loop.asyncio_loop)

    async def _scatter(self, blob: bytes, arrived: Callable[[Any], None], everywhere: bool) -> None:
        try:
            while not self._closed:
                try:
                    (future,) = await self._client.scatter(
                        [blob], broadcast=everywhere, hash=False, asynchronous=True
                    )
                except OSError:  # a worker has left; if it was the scheduler, the run is about to end
                    await asyncio.sleep(AGAIN)
                    continue
                if not self._closed:  # else the future is dropped, and dask forgets the bytes
                    arrived(future)
                return
        except Exception as error:
            self._failed(error)

    def close(self) -> None:
        """Call ``arrived`` no more. What is under way is not cancelled, because a worker might then keep it for ever."""
        self._closed = True

"""Bytes too large to travel with a batch: dask's workers keep them, and a batch names them.

They are on their way in the client's event loop, and nobody waits for them: not the run's thread, which
has timeouts to watch, nor the one that listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

AGAIN = 0.1  # seconds until the next try where a worker has gone while it got something


class Freight:
    """``failed`` is called, in the event loop's thread, with what keeps dask from taking something at all."""

    def __init__(self, client: Any, failed: Callable[[Exception], None]) -> None:
        self._client = client
        self._failed = failed
        self._closed = False

    def send(self, blob: bytes, arrived: Callable[[Any], None], everywhere: bool = False) -> None:
        """Have it kept by a worker, or by each; ``arrived`` is called with dask's future, in the event loop's thread."""
        journey = self._carry(blob, arrived, everywhere)
        asyncio.run_coroutine_threadsafe(journey, self._client.loop.asyncio_loop)

    async def _carry(self, blob: bytes, arrived: Callable[[Any], None], everywhere: bool) -> None:
        try:
            while not self._closed:
                try:
                    (future,) = await self._scatter(blob, everywhere)
                except OSError:  # a worker has gone meanwhile; should it be the scheduler, the run ends
                    await asyncio.sleep(AGAIN)
                    continue
                if not self._closed:  # else dask forgets it at once
                    arrived(future)
                return
        except Exception as error:
            self._failed(error)

    def _scatter(self, blob: bytes, everywhere: bool) -> Awaitable[list[Any]]:
        options = {"broadcast": everywhere, "hash": False, "asynchronous": True}
        scattering: Awaitable[list[Any]] = self._client.scatter([blob], **options)
        return scattering

    def close(self) -> None:
        """Nothing arrives any more. What is on its way is not cut off: a worker might keep it for ever."""
        self._closed = True

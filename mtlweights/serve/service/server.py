"""uvicorn, with a deadline for headers and an end that loses no request."""

from __future__ import annotations

import asyncio
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..trained import TrainedModel
from . import logs
from .application import application
from .guard import Guard
from .limits import Limits

CONNECTIONS = 1024  #: open at once; more are answered with 503

_LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def _protocol(seconds: float) -> type[H11Protocol]:
    class Hurried(H11Protocol):
        """A connection that is closed where the headers of its first request take too long."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.deadline = self.loop.call_later(seconds, self._late)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self.deadline.cancel()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.deadline.cancel()
            self.deadline = self.loop.call_later(seconds, self._late)

        def connection_lost(self, exc: Exception | None) -> None:
            self.deadline.cancel()
            super().connection_lost(exc)

        def _late(self) -> None:
            if not self.transport.is_closing():
                if self.conn.trailing_data[0]:  # else it is idle, and closing says enough
                    self.transport.write(_LATE)
                self.transport.close()

    return Hurried


class Server(uvicorn.Server):
    """At the first signal it says that it is not ready, and closes ``drain`` seconds later."""

    def __init__(self, config: uvicorn.Config, guard: Guard) -> None:
        super().__init__(config)
        self.guard = guard
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: Any = None) -> None:
        """As uvicorn's."""
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain, then end; a second signal ends at once."""
        first, self.guard.draining = not self.guard.draining, True
        if not first or self.loop is None:
            super().handle_exit(sig, frame)
            return
        logs.LOGGER.info("stopping")
        drain = self.guard.limits.drain
        self.loop.call_soon_threadsafe(
            lambda: asyncio.get_running_loop().call_later(drain, super(Server, self).handle_exit, sig, None)
        )


def serve(
    model: TrainedModel,
    host: str,
    port: int,
    limits: Limits,
    token: str | None = None,
    level: str = "info",
) -> None:
    """Serve a model until a signal; requests that were taken are answered before the end."""
    logs.start(level)
    guard = application(model, limits, token)
    config = uvicorn.Config(
        guard,
        host=host,
        port=port,
        http=_protocol(limits.seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=max(1, round(limits.seconds)),
        timeout_graceful_shutdown=60,
    )
    Server(config, guard).run()

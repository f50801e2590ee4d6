"""What stands before the model: token, rate, size and time of a request; and the log of all of them."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .limits import Limits, Rates
from .logs import LOGGER
from .metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = frozenset({"/health", "/ready", "/metrics"})  #: what needs no token: probes and Prometheus have none


class Refused(Exception):
    """A request that goes no further: status, message, headers."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


class Guard:
    """ASGI middleware around an application."""

    def __init__(self, app: Any, limits: Limits, metrics: Metrics, token: str | None) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.token = None if token is None else token.encode()
        self.rates = Rates(limits.rate)
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, request = time.perf_counter(), 500, secrets.token_hex(8)

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request.encode())]
                own += [(b"connection", b"close")] if self.draining else []
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        try:
            await self.app(scope, await self._checked(scope, receive), sending)
        except Refused as refused:
            status = refused.status
            await _refuse(refused, sending)
        finally:
            seconds = time.perf_counter() - start
            self.metrics.request(scope["path"], status, seconds)
            self._log(scope, status, seconds, request)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """What gives the application the request's body, which is here and within the limits."""
        if scope["path"] in OPEN:
            return receive
        headers = dict(scope["headers"])
        if self.token is not None and not self._knows(headers.get(b"authorization", b"")):
            raise Refused(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
        wait = self.rates.take(str((scope.get("client") or ("",))[0]))
        if wait:
            raise Refused(429, "too many requests", {"Retry-After": str(math.ceil(wait))})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limits.body:
            raise self._too_large()
        try:
            body = await asyncio.wait_for(self._read(receive), self.limits.seconds)
        except asyncio.TimeoutError:
            raise Refused(408, f"the body took longer than {self.limits.seconds:g} s", _CLOSE) from None
        return _replay(body, receive)

    def _knows(self, header: bytes) -> bool:
        """Whether the header holds the token; takes as long for a wrong one."""
        scheme, _, given = header.partition(b" ")
        return hmac.compare_digest(given.strip(), self.token or b"") and scheme.lower() == b"bearer"

    async def _read(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(499, "the client left")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limits.body:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(parts)

    def _too_large(self) -> Refused:
        return Refused(413, f"a request has at most {self.limits.body} bytes", _CLOSE)

    def _log(self, scope: Scope, status: int, seconds: float, request: str) -> None:
        """A line without anything of the body, the query or the headers."""
        row = {"event": "request", "id": request, "method": scope["method"][:20], "path": scope["path"][:100]}
        row |= {"status": status, "ms": round(1e3 * seconds, 2)}
        row["client"] = str((scope.get("client") or ("",))[0])
        LOGGER.log(10 if scope["path"] in OPEN else 20, row)


_CLOSE = {"Connection": "close"}


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(refused: Refused, send: Send) -> None:
    content = json.dumps({"detail": str(refused)}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **refused.headers}
    raw = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": content})

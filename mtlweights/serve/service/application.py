"""The application: its paths, and the model behind them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from ... import __version__
from ..readings import Reading, read
from ..samples import sample
from ..sources import named
from ..trained import TrainedModel
from .batching import Batcher, Full
from .guard import Guard
from .limits import Limits
from .metrics import Metrics
from .schemas import answer_type, request_type


def application(model: TrainedModel, limits: Limits | None = None, token: str | None = None) -> Guard:
    """An ASGI application that answers for a model.

    ``POST /predict`` takes ``{"inputs": [...]}`` and gives ``{"predictions": [...]}``; ``/health`` says that
    the process lives, ``/ready`` that it takes requests; ``/metrics`` is for Prometheus, ``/docs`` to read.

    Args:
        limits: see `Limits`.
        token: clients must send it as ``Authorization: Bearer TOKEN``, but to ``/health``, ``/ready``
            and ``/metrics``.

    Raises:
        ValueError: an empty token.
    """
    limits = limits or Limits()
    if token is not None and not token.strip():
        raise ValueError("the token is empty: expected a secret of a line.")
    metrics = Metrics(model.tasks)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher = Batcher(model, limits.queue, metrics)
        worker = asyncio.create_task(batcher.run())
        model.predict(sample(model, 4))  # the first batch is slow
        app.state.batcher = batcher
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker
        batcher.close()

    app = FastAPI(title=model.problem or "mtlweights", version=__version__, lifespan=lifespan)
    guard = Guard(app, limits, metrics, token)
    _add_predict(app, model, limits)
    _add_state(app, guard)
    app.add_exception_handler(RequestValidationError, _invalid)
    return guard


def _add_predict(app: FastAPI, model: TrainedModel, limits: Limits) -> None:
    asked: Any = request_type(model, limits)

    async def predict(request: Request, given: Any) -> Response:
        readings = _readings(model, given.model_dump(by_alias=True)["inputs"], limits)
        try:
            answers = await request.app.state.batcher.answer(readings)
        except Full:
            raise HTTPException(503, "too many examples wait", {"Retry-After": "1"}) from None
        content = json.dumps({"predictions": answers}, ensure_ascii=False).encode()
        return Response(content, media_type="application/json")

    predict.__annotations__["given"] = asked
    app.post("/predict", response_model=answer_type(model.tasks), summary="Predict")(predict)


def _readings(model: TrainedModel, inputs: list[Any], limits: Limits) -> list[Reading]:
    found = []
    for number, given in enumerate(inputs):
        try:
            value = given if model.kind == "table" else named(given, model.kind)
            reading = read(model.kind, value, model.features)
            sides = reading.input if model.kind == "pair" else (reading.input,)
            if model.kind != "table" and max(map(len, sides)) > limits.words:
                raise ValueError(f"a text has at most {limits.words} words")
        except ValueError as error:
            raise HTTPException(422, f"inputs[{number}]: {error}") from None
        found.append(reading)
    return found


def _add_state(app: FastAPI, guard: Guard) -> None:
    @app.get("/health", summary="Whether the process lives")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Whether it takes requests")
    async def ready() -> dict[str, str]:
        if guard.draining or not hasattr(app.state, "batcher"):
            raise HTTPException(503, "not ready")
        return {"status": "ready"}

    @app.get("/metrics", summary="For Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(guard.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """What is wrong and where, without what was sent: answers land in others' logs."""
    assert isinstance(error, RequestValidationError)
    found = [{key: fault[key] for key in ("loc", "msg", "type")} for fault in error.errors()[:10]]
    return JSONResponse({"detail": found}, 422)

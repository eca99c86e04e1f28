"""Health, models and metrics: the routes that people and orchestrators read."""

from typing import Any

import orjson
from fastapi import APIRouter, Response

from app.repository import report
from app.repository.manager import Manager, Status
from app.telemetry import metrics as exposition
from app.telemetry.metrics import Metrics

_SERVING = (Status.OK, Status.DEGRADED)


def router(manager: Manager, metrics: Metrics) -> APIRouter:
    """The control routes."""
    routes = APIRouter()

    @routes.get("/healthz", tags=["health"], summary="Whether it serves, and the state of every model")
    async def healthz() -> Response:
        status, reason = manager.status()
        models: dict[str, dict[str, Any]] = {}
        for entry in manager.entries():
            state = {"state": entry.state.value, "reason": entry.reason}
            models.setdefault(entry.name, {})[str(entry.version)] = state
        body = {"status": status.value, "models": models}
        if reason:
            body["reason"] = reason
        return _json(body, 200 if status in _SERVING else 503)

    @routes.get("/livez", tags=["health"], summary="The process is alive")
    async def livez() -> Response:
        return _json({"status": "alive"})

    @routes.get("/readyz", tags=["health"], summary="The first load is over, and it takes traffic")
    async def readyz() -> Response:
        status, reason = manager.status()
        if status in _SERVING:
            return _json({"status": "ready"})
        return _json({"error": f"{status.value}: {reason}"}, 503)

    @routes.get("/models", tags=["models"], summary="What is loaded")
    async def models() -> Response:
        entries = [report.brief(entry) for entry in manager.entries()]
        return _json({"default_model": manager.default_name(), "models": entries})

    @routes.get("/models/{model}", tags=["models"], summary="One model: specs, conversion report, profile")
    async def model(model: str) -> Response:
        return _json(report.full(manager.entry(model)))

    @routes.get("/metrics", tags=["health"], summary="Prometheus metrics of all workers together")
    async def prometheus() -> Response:
        return Response(metrics.render(), media_type=exposition.CONTENT_TYPE)

    return routes


def _json(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n", status, media_type="application/json")

"""Health, models and metrics: the routes that people and orchestrators read."""

from typing import Any

import orjson
from fastapi import APIRouter, Response

from app.repository import report
from app.repository.manager import Manager, Status
from app.server.paths import target_of
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
        return list_models(manager)

    @routes.get("/models/{model}", tags=["models"], summary="One model: specs, conversion report, profile")
    async def model(model: str) -> Response:
        return show_model(manager, model)

    @routes.get("/models/{model}/versions/{version}", tags=["models"], summary="One version of a model")
    async def model_version(model: str, version: str) -> Response:
        return _json(report.full(manager.entry(target_of({"model": model, "version": version}))))

    @routes.get("/metrics", tags=["health"], summary="Prometheus metrics of all workers together")
    async def prometheus() -> Response:
        return Response(metrics.render(), media_type=exposition.CONTENT_TYPE)

    return routes


def list_models(manager: Manager) -> Response:
    """What is loaded, a line each."""
    entries = [report.brief(entry) for entry in manager.entries()]
    return _json({"default_model": manager.default_name(), "models": entries})


def show_model(manager: Manager, model: str) -> Response:
    """All of one model.

    Raises:
        NotFound: there is none of that name.
    """
    return _json(report.of_versions(manager.versions(model), manager.labels(model)))


def _json(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n", status, media_type="application/json")

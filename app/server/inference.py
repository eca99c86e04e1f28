"""Open Inference v2 over HTTP beside its predictions, with Triton's extensions: health, metadata, what there is."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import APIRouter, HTTPException, Request, Response

from app.errors import InvalidArgument, Unavailable
from app.protocols import json_values
from app.protocols.call import JSON, SHOWN
from app.repository.manager import Manager, Target
from app.server import inference_info
from app.server.dispatch import LOAD, UNLOAD
from app.server.incoming import ClientGone, Incoming
from app.server.model_control import Control
from app.server.paths import target_of
from app.telemetry.metrics import Metrics

_MOST_BODY = 1 << 20
"""Bytes of the body of anything here."""

_NOT_HERE = {
    ("/v2/logging",): "log settings are not supported: the server takes them as options, --log-level and --log-format",
    ("/v2/trace/setting", "/v2/models/{model}/trace/setting", "/v2/models/{model}/versions/{version}/trace/setting"):
        "tracing is not supported: GET /metrics has the time of each phase of requests",
    tuple(
        f"/v2/{kind}sharedmemory{region}/{do}"
        for kind in ("system", "cuda")
        for region in ("", "/region/{region}")
        for do in ("status", "register", "unregister")
    ): "shared memory is not supported: send tensors in the request, as JSON or behind it as bytes",
    tuple(
        f"/v2/models/{{model}}{version}/{do}"
        for version in ("", "/versions/{version}")
        for do in ("generate", "generate_stream")
    ): "generating text is not supported: POST to .../infer",
}  # fmt: skip
"""Paths of Triton's that always answer 501, and why."""


_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "It is not there, does not serve, or may not be ordered; the message says why",
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
}


def router(manager: Manager, metrics: Metrics, control: Control) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Open Inference"], responses=_RESPONSES)
    _add_server(routes, manager)
    _add_models(routes, manager, metrics)
    _add_repository(routes, manager, control)
    for paths, why in _NOT_HERE.items():
        for path in paths:
            routes.add_api_route(path, _refusing(why), methods=["GET", "POST"], include_in_schema=False)
    return routes


def _add_server(routes: APIRouter, manager: Manager) -> None:
    @routes.get("/v2", summary="The server's name, version and extensions of the protocol")
    async def server() -> Response:
        return _json(inference_info.server_metadata())

    @routes.get("/v2/health/live", summary="The process is alive")
    async def live() -> Response:
        return _json(inference_info.is_live())

    @routes.get("/v2/health/ready", summary="The first load is over, and something serves")
    async def ready() -> Response:
        if not inference_info.is_server_ready(manager):
            status, reason = manager.status()
            raise Unavailable(f"the server is not ready: {status.value}: {reason}")
        return _json({"ready": True})


def _add_models(routes: APIRouter, manager: Manager, metrics: Metrics) -> None:
    @routes.get("/v2/models", summary="The names of the models that are served, as KServe has it")
    async def models() -> Response:
        names = sorted({entry.name for entry in manager.entries() if entry.loaded is not None})
        return _json({"models": names})

    @routes.get("/v2/models/stats", summary="What requests to all models have added up to")
    async def all_statistics() -> Response:
        return _json(inference_info.statistics(manager, metrics, None, None))

    async def metadata(target: Target) -> Response:
        return _json(inference_info.model_metadata(manager, target))

    async def is_ready(target: Target) -> Response:
        if not inference_info.is_ready(manager, target):
            # Says why.
            manager.find(target)
            raise Unavailable("the server is shutting down", retry_after=1)
        return _json({"name": target.model, "ready": True})

    async def config(target: Target) -> Response:
        return _json(inference_info.model_config(manager, target))

    async def statistics(target: Target) -> Response:
        return _json(inference_info.statistics(manager, metrics, target.model, target.version))

    said: dict[str, tuple[Callable[[Target], Awaitable[Response]], str]] = {
        "": (metadata, "inputs and outputs"),
        "/ready": (is_ready, "readiness"),
        "/config": (config, "configuration in Triton's words"),
        "/stats": (statistics, "statistics"),
    }
    for ending, (answer, what) in said.items():
        _add_place(routes, ending, answer, what)


def _add_place(routes: APIRouter, ending: str, answer: Callable[[Target], Awaitable[Response]], what: str) -> None:
    """The same of a model and of one version of it."""

    @routes.get(f"/v2/models/{{model}}{ending}", summary=f"A model's {what}")
    async def of_model(model: str) -> Response:
        return await answer(Target(model))

    @routes.get(f"/v2/models/{{model}}/versions/{{version}}{ending}", summary=f"The {what} of one version")
    async def of_version(model: str, version: str) -> Response:
        return await answer(target_of({"model": model, "version": version}))


def _add_repository(routes: APIRouter, manager: Manager, control: Control) -> None:
    @routes.post("/v2/repository/index", summary="All versions of all models, and their states")
    async def index(request: Request) -> Response:
        asked = await _asked(request)
        ready = asked.get("ready", False)
        if type(ready) is not bool:
            raise InvalidArgument(f"Unable to parse 'ready': expected true or false, found {_shown(ready)}")
        return _json(inference_info.repository_index(manager, ready))

    async def order(request: Request, do: str, model: str) -> Response:
        control.check(request)
        with inference_info.ordered(do, model):
            parameters = (await _asked(request)).get("parameters", {})
            if type(parameters) is not dict:
                raise InvalidArgument(f"Unable to parse 'parameters': expected an object, found {_shown(parameters)}")
            for name in parameters:
                if name != "unload_dependents":
                    raise InvalidArgument(
                        f"load parameter {name[:SHOWN]!r} is not supported: a model is served as it lies in its "
                        "folder, with the model.toml there"
                    )
            await control.carry_out(request, do, model)
        return Response(status_code=200)

    @routes.post(
        "/v2/repository/models/{model}/load",
        summary="Serve a model again, or a new version now",
        include_in_schema=control.allowed,
    )
    async def load(request: Request, model: str) -> Response:
        return await order(request, LOAD, model)

    @routes.post(
        "/v2/repository/models/{model}/unload", summary="Serve a model no more", include_in_schema=control.allowed
    )
    async def unload(request: Request, model: str) -> Response:
        return await order(request, UNLOAD, model)

    async def of_repository(repository: str) -> Response:
        raise InvalidArgument(
            f"unknown repository {repository[:SHOWN]!r}: there is one, without a name: /v2/repository/index, "
            "/v2/repository/models/..."
        )

    for path in ("index", "models/{model}/load", "models/{model}/unload"):
        routes.add_api_route(
            f"/v2/repository/{{repository}}/{path}", of_repository, methods=["POST"], include_in_schema=False
        )


async def _asked(request: Request) -> dict[str, Any]:
    """What the body says, which may be empty.

    Raises:
        InvalidArgument: it is no JSON object.
        TooLarge
    """
    try:
        body = await Incoming(request.receive).read(dict(request.scope["headers"]), _MOST_BODY)
    except ClientGone:
        raise InvalidArgument("the body: the connection closed before it was whole") from None
    if not body:
        return {}
    document = json_values.parse(body)
    if type(document) is not dict:
        raise InvalidArgument(f"the body: expected an object, found {_shown(document)}")
    return document


def _shown(value: Any) -> str:
    return json_values.describe(value)


def _refusing(why: str) -> Callable[[], Awaitable[Response]]:
    async def refuse() -> Response:
        raise HTTPException(501, why)

    return refuse


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body), media_type=JSON)

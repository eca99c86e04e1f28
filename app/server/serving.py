"""TensorFlow Serving's REST beside its predictions: a model's status and metadata, and what is malformed.

The list of models, and `name` and `ready` in a model's status, are of KServe's V1 protocol, which has the same paths.
"""

import re
from typing import Any

import orjson
from fastapi import APIRouter, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import InvalidArgument, printable
from app.protocols.call import SHOWN, Wire
from app.repository.manager import Manager, Target
from app.server import serving_info
from app.server.errors import error_body
from app.server.paths import target_of

_PLACES = ("", "/versions/{version}", "/labels/{label}")

_PREDICTION = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
    r":(?P<verb>predict|classify|regress)",
    re.IGNORECASE,
)
_WIRES = {"predict": Wire.SERVING_PREDICT, "classify": Wire.SERVING_CLASSIFY, "regress": Wire.SERVING_REGRESS}


_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "There is no such model, version or label, or it does not serve; the message says why",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
}


def router(manager: Manager) -> APIRouter:
    """The routes that say what there is."""
    routes = APIRouter(tags=["TensorFlow Serving"], responses=_RESPONSES)

    @routes.get("/v1/models", summary="The names of the models that are served, as KServe's V1 protocol has it")
    async def models() -> Response:
        names = sorted({entry.name for entry in manager.entries() if entry.loaded is not None})
        return _json({"models": names})

    async def status(target: Target) -> Response:
        _check_name(target)
        said = serving_info.model_status(manager, target)
        ready = serving_info.is_ready(manager, target.model or "")
        return _json({**said, "name": target.model, "ready": ready})

    async def metadata(target: Target) -> Response:
        _check_name(target)
        return _json(serving_info.model_metadata(manager, target))

    @routes.get("/v1/models/{model}", summary="The state of a model's versions")
    async def model_status(model: str) -> Response:
        return await status(Target(model))

    @routes.get("/v1/models/{model}/versions/{version}", summary="The state of one version")
    async def version_status(model: str, version: str) -> Response:
        return await status(target_of({"model": model, "version": version}, Wire.SERVING_PREDICT))

    @routes.get("/v1/models/{model}/labels/{label}", summary="The state of the version that has a label")
    async def label_status(model: str, label: str) -> Response:
        return await status(Target(model, label=label))

    @routes.get("/v1/models/{model}/metadata", summary="A model's signatures")
    async def model_metadata(model: str) -> Response:
        return await metadata(Target(model))

    @routes.get("/v1/models/{model}/versions/{version}/metadata", summary="One version's signatures")
    async def version_metadata(model: str, version: str) -> Response:
        return await metadata(target_of({"model": model, "version": version}, Wire.SERVING_PREDICT))

    @routes.get("/v1/models/{model}/labels/{label}/metadata", summary="The signatures of the version that has a label")
    async def label_metadata(model: str, label: str) -> Response:
        return await metadata(Target(model, label=label))

    return routes


class Malformed:
    """All other requests below `/v1/`: refused in the original's words, but for what is posted in other letters.

    Args:
        predictions: what answers a prediction, by its wire format.
    """

    def __init__(self, predictions: dict[Wire, ASGIApp]) -> None:
        self._predictions = predictions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _PREDICTION.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        if found is not None:
            parts = found.groupdict()
            predict = self._predictions.get(_WIRES[parts.pop("verb").lower()])
            if predict is not None:
                scope["path_params"] = {name: value for name, value in parts.items() if value is not None}
                await predict(scope, receive, send)
                return
        path = printable(scope["path"][:200])
        message = f"Malformed request: {scope['method']} {path}; GET /docs lists what there is"
        await Response(error_body(message), 400, media_type="application/json")(scope, receive, send)


def _check_name(target: Target) -> None:
    """Refuse what has a verb behind the name, and is to be posted."""
    if ":" in (target.model or ""):
        raise InvalidArgument(f"Malformed request: GET /v1/models/{(target.model or '')[:SHOWN]}: expected POST")


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n", media_type="application/json")

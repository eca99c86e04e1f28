"""Every method of the gRPC server by its path, and what grpc.aio calls for each."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from app.errors import LitepoolError, Unavailable, without_trace
from app.protocols.call import SHOWN, Wire
from app.server.app import Services
from app.server.errors import new_request_id
from app.server.h2.relay import TOLD
from app.server.rpc import health, inference, model_service, prediction, reflection, stream
from app.server.rpc.calls import Stream, Unary, awaited, described
from app.server.rpc.health import Health
from app.server.rpc.hot import PATHS, Hot
from app.server.rpc.messages import SERVICES, Method, methods
from app.server.rpc.ordering import Control
from app.server.rpc.status import Refused, status_of
from app.settings import Settings

log = logging.getLogger(__name__)

_PUSHBACK = "grpc-retry-pushback-ms"
"""By which a client that tries again of itself is told when. Source: gRPC's proposal A6, client retries."""


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Calls by their paths.

    Args:
        ending: set when the server ends.
    """

    def __init__(
        self,
        services: Services,
        settings: Settings,
        hot: dict[Wire, Hot],
        checks: Health,
        ending: asyncio.Event,
    ) -> None:
        self._handlers = {
            **_of_models(services, settings, hot),
            **{path: _unary_handler(call, path) for path, call in checks.calls},
            **{path: _stream_handler(stream, path) for path, stream in checks.streams},
        }
        reflect = reflection.reflecting((*SERVICES, health.FULL_NAME), ending)
        for path in reflection.PATHS:
            self._handlers[path] = _stream_handler(reflect, path)

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        return self._handlers.get(path) or _refusal(self.unknown(path) or "")

    def unknown(self, path: str) -> str | None:
        """What there is to say of a path that nothing here has; None of others."""
        if path in self._handlers:
            return None
        paths = [known[1:].split("/") for known in (*self._handlers, stream.PATH)]
        service, _, method = path[1:].rpartition("/")
        have = [name for of, name in paths if of == service]
        if have:
            return f"{service} has no method {method[:SHOWN]!r}; it has {', '.join(have)}"
        known = ", ".join(dict.fromkeys(of for of, _ in paths))
        return f"no service {service[:SHOWN]!r}: the services here are {known}"


def _of_models(services: Services, settings: Settings, hot: dict[Wire, Hot]) -> dict[str, Any]:
    manager = services.manager
    control = Control(services.orders, settings.model_control)
    open_inference = inference.Inference(manager, services.metrics, control)
    reload_models = model_service.Reload(manager, control, settings.models_dir)
    own: dict[str, Callable[[Method], Unary]] = {
        "GetModelMetadata": lambda method: described(method, lambda asked: prediction.metadata(manager, asked)),
        "MultiInference": lambda method: prediction.multi_inference(method, hot),
        "GetModelStatus": lambda method: described(method, lambda asked: model_service.model_status(manager, asked)),
        "HandleReloadConfigRequest": lambda method: described(method, reload_models),
    }
    predicting = {PATHS[wire]: awaited(call) for wire, call in hot.items()}
    handlers = {}
    for service in SERVICES:
        for method in methods(service):
            if method.path == stream.PATH:
                # The lane's alone.
                continue
            call = predicting.get(method.path) or own.get(method.name, open_inference.call)(method)
            handlers[method.path] = _unary_handler(call, method.path)
    return handlers


def _unary_handler(call: Unary, path: str) -> Any:
    async def handle(message: bytes, context: Any) -> bytes:
        try:
            return await call(message, context.time_remaining)
        except Exception as error:  # noqa: BLE001  the caller is told whatever happens, and the log of a bug
            status, text, metadata = _told(error, path)
        await context.abort(status, text, metadata)
        raise AssertionError

    return grpc.unary_unary_rpc_method_handler(handle)


def _stream_handler(call: Stream, path: str) -> Any:
    async def handle(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        try:
            async for answer in call(messages, context.time_remaining):
                yield answer
            return
        except Exception as error:  # noqa: BLE001  the caller is told whatever happens, and the log of a bug
            status, text, metadata = _told(error, path)
        await context.abort(status, text, metadata)

    return grpc.stream_stream_rpc_method_handler(handle)


def _refusal(text: str) -> Any:
    async def handle(_: AsyncIterator[bytes], context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text, (TOLD,))

    return grpc.stream_stream_rpc_method_handler(handle)


def _told(error: Exception, path: str) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """The status of a call that failed, what there is to say, and the metadata behind it."""
    if isinstance(error, LitepoolError | Refused):
        metadata: tuple[tuple[str, str], ...] = (TOLD,)
        if isinstance(error, Unavailable) and error.retry_after is not None:
            metadata = (TOLD, (_PUSHBACK, str(round(error.retry_after * 1000))))
        return status_of(error), without_trace(error).message, metadata
    identity = new_request_id()
    log.error("request %s to %s failed", identity, path, exc_info=error)
    return grpc.StatusCode.INTERNAL, f"the server failed on this request; its log has it as request {identity}", (TOLD,)

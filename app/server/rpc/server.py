"""The gRPC server of one worker: grpc.aio on the worker's own loop, with every service."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from app.errors import LitepoolError, Unavailable, without_trace
from app.protocols.call import Wire
from app.server.app import Services
from app.server.errors import new_request_id
from app.server.rpc import inference, model_service, prediction, stream
from app.server.rpc.calls import Unary, awaited, described
from app.server.rpc.health import FULL_NAME as HEALTH
from app.server.rpc.health import Health
from app.server.rpc.hot import PATHS, Elsewhere, Hot, hot_calls
from app.server.rpc.messages import POOL, SERVICES, Method, methods
from app.server.rpc.ordering import Control
from app.server.rpc.status import Refused, status_of
from app.settings import Settings

log = logging.getLogger(__name__)

for _file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
    # For whoever asks what these services are.
    POOL.AddSerializedFile(_file.serialized_pb)

_MOST = 1 << 20
"""Calls that may come in one turn of the loop: beyond 1,000 gRPC would begin to cancel them."""

_PUSHBACK = "grpc-retry-pushback-ms"
"""By which a client that tries again of itself is told when. Source: gRPC's proposal A6, client retries."""


class RpcServer:
    """Made when the worker's services are there.

    Args:
        elsewhere: of a worker that is not alone.
    """

    def __init__(self, services: Services, settings: Settings, elsewhere: Elsewhere | None = None) -> None:
        self.hot: dict[Wire, Hot] = hot_calls(services.dataplane, elsewhere)
        self._ending = asyncio.Event()
        self._health = Health(services.manager, self._ending)
        self._looks: set[asyncio.Task[None]] = set()
        self._server = grpc.aio.server(
            handlers=(_Handlers(_handlers(services, settings, self.hot)),),
            # How many calls there may be the lane says, connection by connection; all come here on one.
            options=(
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.server.max_pending_requests", _MOST),
                ("grpc.server.max_pending_requests_hard_limit", _MOST),
            ),
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, HEALTH, reflection.SERVICE_NAME), self._server, POOL)

    async def start(self, *addresses: str) -> None:
        """Listen on addresses like `127.0.0.1:8500` or `unix:/run/some.sock`.

        Raises:
            OSError: one of them cannot be had.
        """
        for address in addresses:
            try:
                self._server.add_insecure_port(address)
            except RuntimeError as error:
                raise OSError(f"{address} cannot be listened on for gRPC: {error}") from None
        await self._health.look()
        await self._server.start()

    def refresh(self) -> None:
        """Take over what is served now; to be called on the loop whenever that changes."""
        for call in self.hot.values():
            call.refresh()
        look = asyncio.ensure_future(self._health.look())
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    async def retire(self) -> None:
        """Tell whoever asks that the server takes no more traffic, and end the calls that would last."""
        await self._health.enter_graceful_shutdown()
        self._ending.set()

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and answer those under way; what takes longer than so many seconds is cut off."""
        await self.retire()
        await self._server.stop(seconds)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Calls by their paths."""

    def __init__(self, handlers: dict[str, Any]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


def _handlers(services: Services, settings: Settings, hot: dict[Wire, Hot]) -> dict[str, Any]:
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


def _told(error: Exception, path: str) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """The status of a call that failed, what there is to say, and the metadata behind it."""
    if isinstance(error, LitepoolError | Refused):
        metadata: tuple[tuple[str, str], ...] = ()
        if isinstance(error, Unavailable) and error.retry_after is not None:
            metadata = ((_PUSHBACK, str(round(error.retry_after * 1000))),)
        return status_of(error), without_trace(error).message, metadata
    identity = new_request_id()
    log.error("request %s to %s failed", identity, path, exc_info=error)
    return grpc.StatusCode.INTERNAL, f"the server failed on this request; its log has it as request {identity}", ()

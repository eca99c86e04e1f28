"""Open Inference's `GRPCInferenceService`, but for the calls that predict."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from app.errors import InvalidArgument, NotFound
from app.protocols.call import SHOWN
from app.repository.manager import Manager, Status
from app.server import inference_info
from app.server.dispatch import LOAD, UNLOAD
from app.server.rpc.calls import Left, Unary, described
from app.server.rpc.hot import named
from app.server.rpc.messages import Method
from app.server.rpc.ordering import Control
from app.server.rpc.status import Refused
from app.telemetry.metrics import Metrics

_IGNORED_PARAMETERS = frozenset({"unload_dependents"})

NOT_HERE = {
    **dict.fromkeys(
        (
            "SystemSharedMemoryStatus",
            "SystemSharedMemoryRegister",
            "SystemSharedMemoryUnregister",
            "CudaSharedMemoryStatus",
            "CudaSharedMemoryRegister",
            "CudaSharedMemoryUnregister",
        ),
        "shared memory is not supported: send tensors in raw_input_contents",
    ),
    "TraceSetting": "tracing is not supported: GET /metrics has the time of each phase of requests",
    "LogSettings": "log settings are not supported: the server takes them as options, --log-level and --log-format",
}
"""Calls that are always refused, and why."""


class Inference:
    """The calls, from a request's message to the answer as JSON has it."""

    def __init__(self, manager: Manager, metrics: Metrics, control: Control) -> None:
        self._manager = manager
        self._metrics = metrics
        self._control = control
        self._calls: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }

    def call(self, method: Method) -> Unary:
        """What answers a method's requests."""
        if method.name in NOT_HERE:
            return _refusing(NOT_HERE[method.name])
        return described(method, self._calls[method.name])

    async def _server_live(self, _: Any) -> Any:
        return {"live": True}

    async def _server_ready(self, _: Any) -> Any:
        return {"ready": self._manager.status()[0] in (Status.OK, Status.DEGRADED)}

    async def _model_ready(self, request: Any) -> Any:
        target = named(request.name, request.version)
        try:
            ready = inference_info.is_ready(self._manager, target)
        except NotFound:
            # As Triton says it, whose clients ask this before they load a model.
            ready = False
        return {"ready": ready}

    async def _server_metadata(self, _: Any) -> Any:
        return inference_info.server_metadata()

    async def _model_metadata(self, request: Any) -> Any:
        return inference_info.model_metadata(self._manager, named(request.name, request.version))

    async def _model_config(self, request: Any) -> Any:
        target = named(request.name, request.version)
        return {"config": inference_info.model_config(self._manager, target)}

    async def _statistics(self, request: Any) -> Any:
        version = named(request.name, request.version).version if request.name else None
        return inference_info.statistics(self._manager, self._metrics, request.name or None, version)

    async def _index(self, request: Any) -> Any:
        _check_repository(request)
        return {"models": inference_info.repository_index(self._manager, request.ready)}

    async def _load(self, request: Any) -> Any:
        await self._order(LOAD, request)
        return {}

    async def _unload(self, request: Any) -> Any:
        await self._order(UNLOAD, request)
        return {}

    async def _order(self, do: str, request: Any) -> None:
        self._control.check_allowed()
        _check_repository(request)
        with inference_info.ordered(do, request.model_name):
            for name in sorted(request.parameters.keys() - _IGNORED_PARAMETERS):
                raise InvalidArgument(
                    f"load parameter {name[:SHOWN]!r} is not supported: a model is served as it lies in its folder, "
                    "with the model.toml there"
                )
            await self._control.carry_out(do, named(request.model_name, "").model or "")


def _check_repository(request: Any) -> None:
    """Refuse to look into another repository than the one that there is, which has no name.

    Raises:
        InvalidArgument
    """
    if request.repository_name:
        raise InvalidArgument(
            f"unknown repository {request.repository_name[:SHOWN]!r}: there is one, without a name; leave "
            "repository_name out"
        )


def _refusing(why: str) -> Unary:
    async def call(_: bytes, __: Left) -> bytes:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, why)

    return call

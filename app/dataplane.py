"""The one road from a request's bytes to the answer's, for every protocol and every edge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Protocol

from app.errors import LitepoolError, UnsupportedFormat
from app.protocols import npy
from app.protocols.call import Call
from app.protocols.predict_json import PredictJson
from app.repository.manager import Manager
from app.runtime.job import Abandoned, Job
from app.runtime.servable import Servable
from app.telemetry.metrics import Metrics, ModelMetrics
from app.tensors import Array

JSON = "application/json"

_OFFLOAD_BYTES = 256 * 1024
"""A body of this size takes about a millisecond to decode, which the loop does not wait for."""

_JSON_TYPES = frozenset({"", JSON, "text/json", "application/x-www-form-urlencoded"})
"""What a JSON body may be called. The last is what curl says of any body when it is told nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful reply."""

    body: bytes
    media_type: str


Deliver = Callable[[Answer | LitepoolError], None]
"""How an edge gets its reply; called once, on the loop's thread, perhaps before `predict` returns."""


class Codec(Protocol):
    """Bytes to arrays and back, for one signature."""

    def decode(self, body: bytes) -> Call: ...
    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes: ...


class Bound:
    """A servable with everything that its requests need, made once."""

    __slots__ = ("json", "metrics", "npy", "servable")

    def __init__(self, servable: Servable, metrics: ModelMetrics) -> None:
        self.servable = servable
        self.metrics = metrics
        self.json = PredictJson(servable.signature)
        self.npy = npy.Npy(servable.signature)


class Exchange(Job):
    """One request of `/predict` on its way. Keep it to `abandon` it when the client has gone."""

    __slots__ = (
        *("_answer", "_body", "_bound", "_call", "_decode_ns", "_decoder"),
        *("_deliver", "_encode_ns", "_encoder", "_media_type", "_started"),
    )

    def __init__(
        self, bound: Bound, body: bytes, decoder: Codec, encoder: Codec, media_type: str, deliver: Deliver
    ) -> None:
        super().__init__()
        self._bound = bound
        self._body = body
        self._decoder = decoder
        self._encoder = encoder
        self._media_type = media_type
        self._deliver = deliver
        self._call: Call | None = None
        self._answer = b""
        self._started = perf_counter_ns()
        self._decode_ns = 0
        self._encode_ns = 0

    def prepare(self) -> None:
        if self._call is None:
            start = perf_counter_ns()
            call = self._call = self._decoder.decode(self._body)
            self.inputs = call.inputs
            self.rows = call.rows
            self._body = b""
            self._decode_ns = perf_counter_ns() - start

    def accept(self, outputs: Sequence[Array]) -> None:
        assert self._call is not None
        start = perf_counter_ns()
        self._answer = self._encoder.encode(self._call, outputs)
        self._encode_ns = perf_counter_ns() - start

    def finish(self, error: Exception | None) -> None:
        phases = (
            self._decode_ns,
            self.queue_ns,
            self.invoke_ns,
            self._encode_ns,
            perf_counter_ns() - self._started,
        )
        metrics = self._bound.metrics
        if error is None:
            metrics.record("OK", self.rows, phases)
            self._deliver(Answer(self._answer, self._media_type))
        elif isinstance(error, LitepoolError):
            metrics.record(error.code.value, 0, phases)
            self._deliver(error)
        else:
            assert isinstance(error, Abandoned)
            metrics.record("CANCELLED", 0, phases)


class DataPlane:
    """Serves requests from what the manager has loaded. For the event loop's thread only.

    Args:
        request_timeout: seconds that a request may wait for its model.
    """

    def __init__(self, manager: Manager, metrics: Metrics, request_timeout: float) -> None:
        self._manager = manager
        self._metrics = metrics
        self._timeout_ns = round(request_timeout * 1e9)
        self._bound: dict[str, Bound] = {}

    def predict(self, model: str | None, body: bytes, content_type: str, accept: str, deliver: Deliver) -> Job | None:
        """Answer a request of `/predict`.

        Args:
            model: a name from the path; None for the default model.
            content_type: the request's, as sent; empty when it has none.
            accept: the media types that the caller takes, as sent.
            deliver: gets the answer or the error.

        Returns:
            The job, if it is still under way.
        """
        try:
            bound = self._bind(self._manager.find(model))
        except LitepoolError as error:
            self._metrics.unknown.record(error.code.value, 0, ())
            deliver(error)
            return None
        try:
            exchange = self._exchange(bound, body, content_type, accept, deliver)
        except LitepoolError as error:
            bound.metrics.record(error.code.value, 0, ())
            deliver(error)
            return None
        try:
            inline = len(body) < _OFFLOAD_BYTES
            if inline:
                exchange.prepare()
            bound.servable.submit(exchange, inline)
        except LitepoolError as error:
            exchange.finish(error)
            return None
        return exchange

    def _bind(self, servable: Servable) -> Bound:
        bound = self._bound.get(servable.name)
        if bound is None or bound.servable is not servable:
            metrics = self._metrics.model(servable.name, servable.version)
            bound = self._bound[servable.name] = Bound(servable, metrics)
        return bound

    def _exchange(self, bound: Bound, body: bytes, content_type: str, accept: str, deliver: Deliver) -> Exchange:
        kind = content_type.partition(";")[0].strip().lower()
        decoder: Codec
        if kind in _JSON_TYPES:
            decoder = bound.json
        elif kind == npy.MEDIA_TYPE:
            decoder = bound.npy
        else:
            raise UnsupportedFormat(f"Content-Type: expected {JSON} or {npy.MEDIA_TYPE}, found {content_type[:80]!r}")
        if npy.MEDIA_TYPE in accept:
            bound.npy.check_encodes()
            exchange = Exchange(bound, body, decoder, bound.npy, npy.MEDIA_TYPE, deliver)
        else:
            exchange = Exchange(bound, body, decoder, bound.json, JSON, deliver)
        exchange.deadline = perf_counter_ns() + self._timeout_ns
        return exchange

"""The one road from a request's bytes to the answer's, for every protocol and every edge."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Protocol

import orjson

from app.errors import Internal, InvalidArgument, LitepoolError, UnsupportedFormat
from app.protocols import npy
from app.protocols.call import Call
from app.protocols.predict_json import PredictJson
from app.repository.loader import Loaded
from app.repository.manager import Manager
from app.runtime.job import Abandoned, Job
from app.runtime.servable import Servable
from app.telemetry.metrics import Metrics, ModelMetrics
from app.tensors import Array

log = logging.getLogger(__name__)

JSON = "application/json"

_OFFLOAD_BYTES = 256 * 1024
"""A body of this size takes about a millisecond to decode, which the loop does not wait for."""

_OFFLOAD_BYTES_POOLED = 16 * 1024
"""The same for a model that runs on a pool thread anyway: there decoding costs nobody else anything. Smaller bodies are
decoded at once, so that their records can share an invoke."""

_JSON_TYPES = frozenset({"", JSON, "text/json", "application/x-www-form-urlencoded"})
"""What a JSON body may be called. The last is what curl says of any body when it is told nothing."""


class Caller(Protocol):
    """Whoever waits for a reply: one of these is called, once, on the loop's thread, perhaps before `run` returns."""

    def answer(self, body: bytes, media_type: str) -> None: ...
    def refuse(self, error: LitepoolError) -> None: ...


class Codec(Protocol):
    """Bytes to arrays and back, for one signature."""

    def decode(self, body: bytes) -> Call: ...
    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Route:
    """What serves a request, how it is decoded and how its answer is encoded."""

    bound: "Bound"
    decoder: Codec
    encoder: Codec
    media_type: str


class Bound:
    """A servable with everything that its requests need, made once."""

    __slots__ = ("_json", "_npy", "_usual", "inline_bytes", "metrics", "servable")

    def __init__(self, servable: Servable, metrics: ModelMetrics) -> None:
        self.servable = servable
        self.metrics = metrics
        self.inline_bytes = _OFFLOAD_BYTES if servable.plan.inline_rows else _OFFLOAD_BYTES_POOLED
        self._json = PredictJson(servable.signature)
        self._npy = npy.Npy(servable.signature)
        usual = Route(self, self._json, self._json, JSON)
        self._usual = {(kind, accept): usual for kind in (JSON, "") for accept in ("*/*", JSON, "")}

    def route(self, content_type: str, accept: str) -> Route:
        """Choose the codecs by the request's headers.

        Raises:
            UnsupportedFormat: there is none for the body, or none that can hold the answer.
        """
        usual = self._usual.get((content_type, accept))
        if usual is not None:
            return usual
        kind = content_type.partition(";")[0].strip().lower()
        decoder: Codec
        if kind in _JSON_TYPES:
            decoder = self._json
        elif kind == npy.MEDIA_TYPE:
            decoder = self._npy
        else:
            raise UnsupportedFormat(f"Content-Type: expected {JSON} or {npy.MEDIA_TYPE}, found {content_type[:80]!r}")
        if not wants(accept, npy.MEDIA_TYPE):
            return Route(self, decoder, self._json, JSON)
        self._npy.check_encodes()
        return Route(self, decoder, self._npy, npy.MEDIA_TYPE)


def wants(accept: str, media_type: str) -> bool:
    """Whether an Accept header names a media type, and does not refuse it with `q=0`."""
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name == media_type:
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False


def _drop_bad_samples(loaded: Loaded, bound: Bound) -> None:
    """Leave out samples that the model does not take, so that the documentation shows only what works."""
    samples = loaded.opened.samples
    for index, sample in reversed(list(enumerate(samples))):
        try:
            bound.route(JSON, "").decoder.decode(orjson.dumps(sample.request))
        except InvalidArgument as error:
            log.warning("%s: samples.json[%d] is left out: %s", loaded.servable.name, index, error.message)
            del samples[index]


class Exchange(Job):
    """One request of `/predict` on its way. Keep it to `abandon` it when the client has gone."""

    _answer = b""
    _call: Call | None = None
    _decode_ns = 0
    _encode_ns = 0

    def __init__(self, route: Route, body: bytes, caller: Caller, timeout_ns: int) -> None:
        self._route = route
        self._body = body
        self._caller = caller
        self._started = perf_counter_ns()
        self.deadline = self._started + timeout_ns

    def prepare(self) -> None:
        if self._call is None:
            start = perf_counter_ns()
            call = self._call = self._route.decoder.decode(self._body)
            self.inputs, self.rows, _ = call
            self._body = b""
            self._decode_ns = perf_counter_ns() - start

    def accept(self, outputs: Sequence[Array]) -> None:
        assert self._call is not None
        start = perf_counter_ns()
        self._answer = self._route.encoder.encode(self._call, outputs)
        self._encode_ns = perf_counter_ns() - start

    def finish(self, error: Exception | None) -> None:
        total_ns = perf_counter_ns() - self._started
        route = self._route
        metrics = route.bound.metrics
        if error is None:
            metrics.answered((self.rows, self._decode_ns, self.queue_ns, self.invoke_ns, self._encode_ns, total_ns))
            self._caller.answer(self._answer, route.media_type)
            return
        phases = (self._decode_ns, self.queue_ns, self.invoke_ns, self._encode_ns, total_ns)
        if isinstance(error, LitepoolError):
            metrics.refused(error.code.value, phases)
            self._caller.refuse(error)
        else:
            assert isinstance(error, Abandoned)
            metrics.refused("CANCELLED", phases)


class DataPlane:
    """Serves requests from what the manager has loaded. For the event loop's thread only.

    Args:
        request_timeout: seconds that a request may wait for its model.
    """

    def __init__(self, manager: Manager, metrics: Metrics, request_timeout: float) -> None:
        self._manager = manager
        self._metrics = metrics
        self._timeout_ns = round(request_timeout * 1e9)
        self._bound: dict[str | None, Bound] = {}

    def predict(self, model: str | None, body: bytes, content_type: str, accept: str, caller: Caller) -> Job | None:
        """Answer a request of `/predict`; the arguments are those of `route` and of `run`."""
        try:
            route = self.route(model, content_type, accept)
        except LitepoolError as error:
            bound = self._bound.get(model)
            (bound.metrics if bound is not None else self._metrics.unknown).refused(error.code.value)
            caller.refuse(error)
            return None
        return self.run(route, body, caller)

    def route(self, model: str | None, content_type: str, accept: str) -> Route:
        """What serves requests with these headers, until `refresh` is called. Looking for it counts as no request.

        Args:
            model: a name from the path; None for the default model.
            content_type: the request's, as sent; empty when it has none.
            accept: the media types that the caller takes, as sent.

        Raises:
            NotFound, Unavailable: nothing does.
            UnsupportedFormat: there is no codec for it.
        """
        bound = self._bound.get(model)
        if bound is None:
            raise self._why_not(model)
        return bound.route(content_type, accept)

    def run(self, route: Route, body: bytes, caller: Caller) -> Job | None:
        """Answer a request.

        Args:
            caller: gets the answer or the error.

        Returns:
            The job, if it is still under way.
        """
        exchange = Exchange(route, body, caller, self._timeout_ns)
        try:
            inline = len(body) < route.bound.inline_bytes
            if inline:
                exchange.prepare()
            route.bound.servable.submit(exchange, inline)
        except LitepoolError as error:
            exchange.finish(error)
            return None
        return exchange

    def refresh(self) -> None:
        """Take over what the manager serves now; to be called after each change of it."""
        known = {bound.servable: bound for bound in self._bound.values()}
        bounds: dict[str | None, Bound] = {}
        for loaded in self._manager.serving():
            servable = loaded.servable
            bound = known.get(servable)
            if bound is None:
                bound = Bound(servable, self._metrics.model(servable.name, servable.version))
                _drop_bad_samples(loaded, bound)
            bounds[servable.name] = bound
        default = self._manager.default_name()
        if default in bounds:
            bounds[None] = bounds[default]
        self._bound = bounds

    def _why_not(self, model: str | None) -> LitepoolError:
        """Why nothing is bound for this name."""
        try:
            self._manager.find(model)
        except LitepoolError as error:
            return error
        return Internal(f"model {model!r} is loaded and not yet bound")

"""The one road from a request's bytes to the answer's, for every protocol and every edge."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import NamedTuple, Protocol

import orjson

from app.errors import Internal, InvalidArgument, LitepoolError, ModelError, NotFound, UnsupportedFormat, without_trace
from app.protocols import npy
from app.protocols.call import Call, Codec
from app.protocols.predict_json import PredictJson
from app.protocols.real import Real
from app.repository.loader import Loaded, Opened
from app.repository.manager import Manager, Target
from app.repository.samples import differs
from app.runtime import batching
from app.runtime.job import Abandoned, Job, Step
from app.runtime.runners import AnyRunner
from app.runtime.servable import Servable
from app.telemetry.metrics import Metrics, ModelMetrics
from app.tensors import Array, Signature

log = logging.getLogger(__name__)

JSON = "application/json"

_OFFLOAD_BYTES = 256 * 1024
"""A body of this size takes about a millisecond to decode, which the loop does not wait for."""

_OFFLOAD_BYTES_POOLED = 16 * 1024
"""The same for a model that runs on a pool thread anyway: there decoding costs nobody else anything. Smaller bodies are
decoded at once, so that their records can share an invoke."""

_JSON_TYPES = frozenset({"", JSON, "text/json", "application/x-www-form-urlencoded"})
"""What a JSON body may be called. The last is what curl says of any body when it is told nothing."""


NUMBERS = ("raw", "real")
_SHOWN = 80


class Caller(Protocol):
    """Whoever waits for a reply: one of these is called, once, on the loop's thread, perhaps before `run` returns."""

    def answer(self, body: bytes, media_type: str) -> None: ...
    def refuse(self, error: LitepoolError) -> None: ...


class Wants(NamedTuple):
    """What a request's headers ask for, each as sent and empty where there is none.

    Args:
        accept: the media types that the caller takes.
        signature: of the model's signatures one, by `Litepool-Signature`; without it the default.
        numbers: `raw` or `real`, by `Litepool-Numbers`: what the numbers of quantized tensors are.
    """

    content_type: str = ""
    accept: str = ""
    signature: str = ""
    numbers: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """What serves a request, how it is decoded and how its answer is encoded."""

    bound: "Bound"
    decoder: Codec
    encoder: Codec
    media_type: str


class Codecs:
    """Those of one signature, as its integers are or with real numbers in place of quantized ones."""

    def __init__(self, signature: Signature, real: bool) -> None:
        self.seen = signature.real() if real else signature
        self.npy = npy.Npy(self.seen)
        self.by_json: Codec = PredictJson(self.seen)
        self.by_npy: Codec = self.npy
        if real and signature.scaled:
            self.by_json, self.by_npy = Real(self.by_json, signature), Real(self.npy, signature)


class Bound:
    """A servable with everything that its requests need, made once."""

    __slots__ = ("_codecs", "_usual", "inline_bytes", "metrics", "servable")

    def __init__(self, servable: Servable, metrics: ModelMetrics, numbers: str) -> None:
        self.servable = servable
        self.metrics = metrics
        self.inline_bytes = _OFFLOAD_BYTES if servable.plan.inline_rows else _OFFLOAD_BYTES_POOLED
        self._codecs = {word: Codecs(servable.signature, word == "real") for word in NUMBERS}
        self._codecs[""] = self._codecs[numbers]
        codec = self._codecs[""].by_json
        usual = Route(self, codec, codec, JSON)
        self._usual: dict[tuple[str, str], Route] = {
            (kind, accept): usual for kind in (JSON, "") for accept in ("*/*", JSON, "")
        }

    def close(self) -> None:
        """Break the circle of it and its routes."""
        self._usual.clear()

    def route(self, wants: Wants) -> Route:
        """Choose the codecs by the request's headers.

        Raises:
            UnsupportedFormat: there is none for the body, or none that can hold the answer.
            InvalidArgument: `numbers` is no word of ours.
        """
        if not wants.numbers:
            usual = self._usual.get((wants.content_type, wants.accept))
            if usual is not None:
                return usual
        codecs = self._codecs.get(wants.numbers)
        if codecs is None:
            words = " or ".join(NUMBERS)
            raise InvalidArgument(f"Litepool-Numbers: expected {words}, found {wants.numbers[:_SHOWN]!r}")
        kind = wants.content_type.partition(";")[0].strip().lower()
        if kind in _JSON_TYPES:
            decoder = codecs.by_json
        elif kind == npy.MEDIA_TYPE:
            decoder = codecs.by_npy
        else:
            raise UnsupportedFormat(
                f"Content-Type: expected {JSON} or {npy.MEDIA_TYPE}, found {wants.content_type[:_SHOWN]!r}"
            )
        if not accepts(wants.accept, npy.MEDIA_TYPE):
            return Route(self, decoder, codecs.by_json, JSON)
        codecs.npy.check_encodes()
        return Route(self, decoder, codecs.by_npy, npy.MEDIA_TYPE)


class Version:
    """All signatures of a loaded version."""

    def __init__(self, loaded: Loaded, metrics: ModelMetrics) -> None:
        self.metrics = metrics
        numbers = loaded.opened.config.numbers
        self._bounds = {name: Bound(servable, metrics, numbers) for name, servable in loaded.servables.items()}
        self._default = next(iter(self._bounds.values()))

    def close(self) -> None:
        """Let go of everything, so that it leaves the memory with its last request and not with some later one."""
        for bound in self._bounds.values():
            bound.close()

    def bound(self, signature: str) -> Bound:
        """One signature's; with the empty name the default one's.

        Raises:
            NotFound: there is no such signature.
        """
        if not signature:
            return self._default
        found = self._bounds.get(signature)
        if found is None:
            servable = self._default.servable
            raise NotFound(
                f"model {servable.name!r} has no signature {signature[:_SHOWN]!r}; its signatures are "
                f"{', '.join(map(repr, self._bounds))}"
            )
        return found


def accepts(accept: str, media_type: str) -> bool:
    """Whether an Accept header names a media type, and does not refuse it with `q=0`."""
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name == media_type:
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False


def try_samples(opened: Opened, runner: Callable[[], AnyRunner]) -> None:
    """Run a model's samples as requests, and leave out those that it does not take: they are shown as examples.

    Args:
        runner: gives what runs one sample.

    Raises:
        ModelError: an answer is not the one that the sample gives.
    """
    offered, samples = opened.default, opened.samples
    codec = Codecs(offered.signature, opened.config.numbers == "real").by_json
    for index, sample in reversed(list(enumerate(samples))):
        try:
            # Not by orjson, which has no numbers that are not finite.
            call = codec.decode(json.dumps(sample.request).encode())
            own = runner().of(offered.signature.name)
            outputs = batching.run(own, offered.contract.batching, call.inputs, call.rows)
            answer = orjson.loads(codec.encode(call, outputs))
        except LitepoolError as error:
            log.warning("%s: samples.json[%d] is left out: %s", opened.source.name, index, error.message)
            del samples[index]
            continue
        if sample.answer is not None:
            tolerance = opened.config.allowed_difference if sample.tolerance is None else sample.tolerance
            difference = differs(answer, sample.answer, tolerance)
            if difference is not None:
                raise ModelError(f"samples.json[{index}] is answered otherwise: {difference}")


class Exchange(Job):
    """One request of `/predict` on its way. Keep it to `abandon` it when the client has gone."""

    _answer = b""
    _call: Call | None = None
    _decode_ns = 0
    _encode_ns = 0

    def __init__(self, route: Route, body: bytes, caller: Caller, timeout_ns: int, step: Step | None) -> None:
        if step is not None:
            self.sequence = step
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
            self._caller.refuse(without_trace(error))
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
        self._versions: dict[Target, Version] = {}
        self._known: dict[int, Version] = {}

    @property
    def targets(self) -> Iterable[Target]:
        """All that requests can ask for now."""
        return self._versions

    def predict(
        self, target: Target, wants: Wants, body: bytes, caller: Caller, step: Step | None = None
    ) -> Job | None:
        """Answer a request of `/predict`; the arguments are those of `route` and of `run`."""
        try:
            route = self.route(target, wants)
        except LitepoolError as error:
            version = self._versions.get(target)
            (version.metrics if version is not None else self._metrics.unknown).refused(error.code.value)
            caller.refuse(without_trace(error))
            return None
        return self.run(route, body, caller, step)

    def route(self, target: Target, wants: Wants) -> Route:
        """What serves requests with these headers, until `refresh` is called. Looking for it counts as no request.

        Raises:
            NotFound, Unavailable: nothing does.
            UnsupportedFormat, InvalidArgument: there is no codec for it.
        """
        version = self._versions.get(target)
        if version is None:
            raise self._why_not(target)
        return version.bound(wants.signature).route(wants)

    def run(self, route: Route, body: bytes, caller: Caller, step: Step | None = None) -> Job | None:
        """Answer a request.

        Args:
            caller: gets the answer or the error.
            step: its place in a sequence, if it belongs to one.

        Returns:
            The job, if it is still under way.
        """
        exchange = Exchange(route, body, caller, self._timeout_ns, step)
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
        known: dict[int, Version] = {}
        versions: dict[Target, Version] = {}
        for target, loaded in self._manager.targets().items():
            identity = id(loaded.servable)
            version = known.get(identity) or self._known.get(identity)
            if version is None:
                version = Version(loaded, self._metrics.model(loaded.servable.name, loaded.servable.version))
            known[identity] = versions[target] = version
        for identity in self._known.keys() - known.keys():
            self._known[identity].close()
        self._known, self._versions = known, versions

    def _why_not(self, target: Target) -> LitepoolError:
        """Why nothing is bound for this."""
        try:
            self._manager.find(target)
        except LitepoolError as error:
            return error
        return Internal(f"model {target.model!r} is loaded and not yet bound")

"""The one road from a request's bytes to the answer's, for every protocol and every edge."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, NamedTuple, Protocol, cast

import orjson

from app.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    LitepoolError,
    ModelError,
    NotFound,
    Unavailable,
    UnsupportedFormat,
    without_trace,
)
from app.protocols import coding, npy, words
from app.protocols.call import JSON, SHOWN, Answer, Call, Codec, HeadedCodec, Identity, OtherSignature, Wire
from app.protocols.real import Real
from app.protocols.wires import MAKERS
from app.repository.loader import Loaded, Opened
from app.repository.manager import Manager, Target
from app.repository.samples import differs
from app.runtime import batching
from app.runtime.job import Abandoned, Job, Step
from app.runtime.runners import AnyRunner
from app.runtime.servable import Servable
from app.telemetry.metrics import Metrics, ModelMetrics
from app.tensors import STRING, Array, Signature

log = logging.getLogger(__name__)

_OFFLOAD_BYTES = 256 * 1024
"""A body of this size takes about a millisecond to decode, which the loop does not wait for."""

_OFFLOAD_BYTES_POOLED = 16 * 1024
"""The same for a model that runs on a pool thread anyway: there decoding costs nobody else anything. Smaller bodies are
decoded at once, so that their records can share an invoke."""

_JSON_TYPES = frozenset({"", JSON, "text/json", "application/x-www-form-urlencoded"})
"""What a JSON body may be called. The last is what curl says of any body when it is told nothing."""


NUMBERS = ("raw", "real")


class Caller(Protocol):
    """Whoever waits for a reply: one of these is called, once, on the loop's thread, perhaps before `run` returns.

    `media_type` is that of bytes; an `Answer` has its own.
    """

    def answer(self, body: bytes | Answer, media_type: str) -> None: ...
    def refuse(self, error: LitepoolError) -> None: ...


class NotHere(Exception):
    """A request belongs to a sequence that another worker keeps, by what its body says.

    Args:
        sequence: the name.
    """

    def __init__(self, sequence: str) -> None:
        super().__init__(sequence)
        self.sequence = sequence


class Wants(NamedTuple):
    """What a request's path and headers ask for, each header as sent and empty where there is none.

    Args:
        accept: the media types that the caller takes.
        signature: of the model's signatures one, by `Litepool-Signature`; without it the default.
        numbers: `raw` or `real`, by `Litepool-Numbers`: what the numbers of quantized tensors are.
        coding: how the body is compressed, by `Content-Encoding`.
        accept_coding: how the answer may be, by `Accept-Encoding`.
        head_length: bytes of JSON that a body with binary tensors begins with, by `Inference-Header-Content-Length`.
    """

    content_type: str = ""
    accept: str = ""
    signature: str = ""
    numbers: str = ""
    coding: str = ""
    accept_coding: str = ""
    head_length: str = ""
    wire: Wire = Wire.PREDICT


class Limits(NamedTuple):
    """What an edge knows of a request beside its body.

    Args:
        timeout_ns: how long its caller waits, in nanoseconds; None where only the server's own limit holds.
        size: bytes of the body, where that has been taken apart already; else -1.
        elsewhere: whether another worker keeps the sequence of such a name, which the body may be found to belong to:
            then `NotHere` is raised. None where the sequence is ours in any case.
    """

    timeout_ns: int | None = None
    size: int = -1
    elsewhere: Callable[[str], bool] | None = None


_USUAL = Limits()


@dataclass(frozen=True, slots=True)
class Route:
    """What serves a request, how it is decoded and how its answer is encoded.

    Args:
        inline_bytes: a body smaller than this is decoded on the loop.
    """

    bound: "Bound"
    decoder: Codec
    encoder: Codec
    media_type: str
    inline_bytes: int
    wants: Wants


class Codecs:
    """Those of one signature, as its integers are or with real numbers in place of quantized ones."""

    def __init__(self, identity: Identity, signature: Signature, real: bool) -> None:
        self.seen = signature.real() if real else signature
        self._identity = identity
        self._own = signature if real and signature.scaled else None
        self._made: dict[Wire, Codec] = {}
        self._npy = npy.Npy(self.seen)
        self.by_npy = self._real(self._npy)

    def of(self, wire: Wire) -> Codec:
        """The one of a wire format, made when it is first asked for.

        Raises:
            InvalidArgument: such requests have no sense for this signature.
        """
        codec = self._made.get(wire)
        if codec is None:
            codec = self._made[wire] = self._real(MAKERS[wire](self._identity, self.seen))
        return codec

    def infer_reader(self, head_length: str) -> Codec:
        """What decodes requests of Open Inference under a head that gives such a length."""
        plain = self.of(Wire.INFER)
        rest = plain.codec if isinstance(plain, Real) else plain
        return self._real(cast("HeadedCodec", rest).reading(head_length))

    def check_encodes_npy(self) -> None:
        """Refuse a signature whose answers no `.npy` file holds.

        Raises:
            UnsupportedFormat
        """
        self._npy.check_encodes()

    def _real(self, codec: Codec) -> Codec:
        return codec if self._own is None else Real(codec, self._own)


class Bound:
    """A servable with everything that its requests need, made once."""

    __slots__ = ("_codecs", "_most", "_strings", "_usual", "inline_bytes", "metrics", "servable", "version")

    def __init__(self, version: "Version", servable: Servable, identity: Identity, numbers: str, most: int) -> None:
        self.version: Version | None = version
        self.servable = servable
        self.metrics = version.metrics
        self.inline_bytes = _OFFLOAD_BYTES if servable.plan.inline_rows else _OFFLOAD_BYTES_POOLED
        self._most = most
        self._strings = any(spec.dtype == STRING for spec in servable.signature.inputs)
        self._codecs = {word: Codecs(identity, servable.signature, word == "real") for word in NUMBERS}
        self._codecs[""] = self._codecs[numbers]
        codec = self._codecs[""].of(Wire.PREDICT)
        usual = Route(self, codec, codec, JSON, self.inline_bytes, Wants())
        self._usual: dict[tuple[str, str], Route] = {
            (kind, accept): usual for kind in (JSON, "") for accept in ("*/*", JSON, "")
        }

    def close(self) -> None:
        """Break the circles of it, its routes and its version."""
        self._usual.clear()
        self.version = None

    def route(self, wants: Wants) -> Route:
        """Choose the codecs by what a request's path and headers ask for.

        Raises:
            UnsupportedFormat: there is none for the body, or none that can hold the answer.
            InvalidArgument: a header is wrong, or such requests have no sense for this signature.
        """
        codecs = self._codecs.get(wants.numbers)
        if codecs is None:
            words = " or ".join(NUMBERS)
            raise InvalidArgument(f"Litepool-Numbers: expected {words}, found {wants.numbers[:SHOWN]!r}")
        if wants.wire is Wire.PREDICT:
            if not (wants.numbers or wants.coding or wants.accept_coding):
                usual = self._usual.get((wants.content_type, wants.accept))
                if usual is not None:
                    return usual
            decoder, encoder, media_type = self._by_media_types(codecs, wants)
        else:
            decoder = encoder = codecs.of(wants.wire)
            media_type = JSON
        inline_bytes = self.inline_bytes
        if wants.head_length and wants.wire is Wire.INFER:
            decoder = codecs.infer_reader(wants.head_length)
            if int(wants.head_length) < inline_bytes and not self._strings:
                # Tensors as bytes are looked at where they lie.
                inline_bytes = self._most + 1
        if found := coding.coding_of(wants.coding):
            decoder = coding.Inflating(decoder, found, self._most)
            # A thousand times as much may come of it.
            inline_bytes = 0
        if wanted := coding.wanted_coding(wants.accept_coding):
            encoder = coding.Deflating(encoder, wanted, media_type)
        return Route(self, decoder, encoder, media_type, inline_bytes, wants)

    def _by_media_types(self, codecs: Codecs, wants: Wants) -> tuple[Codec, Codec, str]:
        """Of `/predict`: the decoder, the encoder, and the media type of its answers."""
        kind = wants.content_type.partition(";")[0].strip().lower()
        if kind in _JSON_TYPES:
            decoder = codecs.of(Wire.PREDICT)
        elif kind == npy.MEDIA_TYPE:
            decoder = codecs.by_npy
        else:
            raise UnsupportedFormat(
                f"Content-Type: expected {JSON} or {npy.MEDIA_TYPE}, found {wants.content_type[:SHOWN]!r}"
            )
        if not accepts(wants.accept, npy.MEDIA_TYPE):
            return decoder, codecs.of(Wire.PREDICT), JSON
        codecs.check_encodes_npy()
        return decoder, codecs.by_npy, npy.MEDIA_TYPE


class Version:
    """All signatures of a loaded version."""

    def __init__(self, loaded: Loaded, metrics: ModelMetrics, most: int) -> None:
        self.metrics = metrics
        opened = loaded.opened
        self._bounds = {
            name: Bound(self, servable, identity_of(opened, servable.signature), opened.config.numbers, most)
            for name, servable in loaded.servables.items()
        }
        self._default = next(iter(self._bounds.values()))

    @property
    def keeps_state(self) -> bool:
        """Whether its requests may belong to sequences."""
        return self._default.servable.sequences is not None

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
                f"model {servable.name!r} has no signature {signature[:SHOWN]!r}; its signatures are "
                f"{', '.join(map(repr, self._bounds))}"
            )
        return found


def identity_of(opened: Opened, signature: Signature) -> Identity:
    """What answers of one signature say of the model."""
    labels = opened.config.class_labels
    if isinstance(labels, list):
        labels = {signature.outputs[0].name: labels} if labels and len(signature.outputs) == 1 else {}
    return Identity(opened.source.name, opened.source.version, labels)


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
    codec = Codecs(identity_of(opened, offered.signature), offered.signature, opened.config.numbers == "real").of(
        Wire.PREDICT
    )
    for index, sample in reversed(list(enumerate(samples))):
        try:
            # Not by orjson, which has no numbers that are not finite.
            call = codec.decode(json.dumps(sample.request).encode())
            own = runner().of(offered.signature.name)
            outputs = batching.run(own, offered.contract.batching, call.inputs, call.rows)
            text = codec.encode(call, outputs)
            assert isinstance(text, bytes)
            answer = orjson.loads(text)
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
    """One request on its way. Keep it to `abandon` it when the client has gone."""

    _answer: bytes | Answer = b""
    _call: Call | None = None
    _decode_ns = 0
    _encode_ns = 0
    turned = False
    """Whether it was begun again with another signature."""

    def __init__(self, route: Route, body: Any, size: int, caller: Caller, timeout_ns: int, step: Step | None) -> None:
        if step is not None:
            self.sequence = step
        self._route = route
        self._body = body
        self._size = size
        self._caller = caller
        self._started = perf_counter_ns()
        self.deadline = self._started + timeout_ns

    def begin(self, elsewhere: Callable[[str], bool] | None) -> None:
        """Decode, unless that is work for another thread, and submit.

        Raises:
            LitepoolError: it is refused.
            NotHere: `elsewhere` says so of the sequence that the body names.
        """
        route = self._route
        servable = route.bound.servable
        inline = self._size < route.inline_bytes
        if inline or servable.sequences is not None:
            self.prepare()
            if elsewhere is not None and self.sequence is not None and elsewhere(self.sequence.name):
                raise NotHere(self.sequence.name)
        servable.submit(self, inline)

    def prepare(self) -> None:
        if self._call is None:
            start = perf_counter_ns()
            route = self._route
            call = self._call = route.decoder.decode(self._body)
            self.inputs, self.rows, _, _, timeout_ns, place = call
            self._body = None
            if timeout_ns:
                self.deadline = min(self.deadline, self._started + timeout_ns)
                # Of a body that is decoded on a pool thread this is not known before it has waited.
                self.check_wanted(start)
            # Triton takes a sequence's name for any model, and does nothing with it where there is no state.
            if place is not None and route.bound.servable.sequences is not None:
                self.sequence = Step(*place)
            self._decode_ns = perf_counter_ns() - start

    def accept(self, outputs: Sequence[Array]) -> None:
        assert self._call is not None
        start = perf_counter_ns()
        self._answer = self._route.encoder.encode(self._call, outputs)
        self._encode_ns = perf_counter_ns() - start

    def finish(self, error: Exception | None) -> None:
        if type(error) is OtherSignature and not self.turned:
            error = self._turn_to(error)
            if error is None:
                return
        total_ns = perf_counter_ns() - self._started
        route = self._route
        metrics = route.bound.metrics
        if error is None:
            metrics.answered(
                (self.rows, self.invokes, self._decode_ns, self.queue_ns, self.invoke_ns, self._encode_ns, total_ns)
            )
            self._caller.answer(self._answer, route.media_type)
            return
        phases = (self._decode_ns, self.queue_ns, self.invoke_ns, self._encode_ns, total_ns)
        if isinstance(error, LitepoolError):
            if isinstance(error, DeadlineExceeded):
                error.message = words.expired(route.wants.wire) + error.message
            metrics.refused(error.code.value, phases)
            self._caller.refuse(without_trace(error))
        else:
            assert isinstance(error, Abandoned)
            metrics.refused("CANCELLED", phases)

    def _turn_to(self, other: OtherSignature) -> Exception | None:
        """Begin again with the signature that the body names; the error if there is none, or it is refused."""
        version = self._route.bound.version
        if version is None:
            return Unavailable("the model was replaced while the request waited: try again", retry_after=1)
        try:
            self._route = version.bound(other.name).route(self._route.wants)
            self.queued_at = 0
            self.turned = True
            self.begin(None)
        except NotFound as error:
            # The format's own text first, which says that it is the signature.
            return InvalidArgument(f"{words.no_signature(self._route.wants.wire, other.name)}; {error.message}")
        except LitepoolError as error:
            return error
        return None


class DataPlane:
    """Serves requests from what the manager has loaded. For the event loop's thread only.

    Args:
        request_timeout: seconds that a request may wait for its model.
        most: bytes of the largest body that is taken.
    """

    def __init__(self, manager: Manager, metrics: Metrics, request_timeout: float, most: int) -> None:
        self._manager = manager
        self._metrics = metrics
        self._timeout_ns = round(request_timeout * 1e9)
        self._most = most
        self._versions: dict[Target, Version] = {}
        self._known: dict[int, Version] = {}

    @property
    def targets(self) -> Iterable[Target]:
        """All that requests can ask for now."""
        return self._versions

    def keeps_state(self, target: Target) -> bool:
        """Whether requests for a target may belong to sequences; False where nothing serves it."""
        version = self._versions.get(target)
        return version is not None and version.keeps_state

    def predict(
        self,
        target: Target,
        wants: Wants,
        body: Any,
        caller: Caller,
        step: Step | None = None,
        limits: Limits = _USUAL,
    ) -> Job | None:
        """Answer a request; the arguments are those of `route` and of `run`."""
        try:
            route = self.route(target, wants)
        except LitepoolError as error:
            version = self._versions.get(target)
            (version.metrics if version is not None else self._metrics.unknown).refused(error.code.value)
            caller.refuse(without_trace(error))
            return None
        return self.run(route, body, caller, step, limits)

    def route(self, target: Target, wants: Wants) -> Route:
        """What serves requests with these headers, until `refresh` is called. Looking for it counts as no request.

        Raises:
            NotFound, Unavailable: nothing does.
            UnsupportedFormat, InvalidArgument: there is no codec for it.
        """
        version = self._versions.get(target)
        if version is None:
            raise self._why_not(target, wants.wire)
        return version.bound(wants.signature).route(wants)

    def run(
        self, route: Route, body: Any, caller: Caller, step: Step | None = None, limits: Limits = _USUAL
    ) -> Job | None:
        """Answer a request.

        Args:
            body: bytes, or what the format's reader has made of them.
            caller: gets the answer or the error.
            step: its place in a sequence, if it belongs to one by its headers.

        Returns:
            The job, if it is still under way.

        Raises:
            NotHere: as `limits` have it.
        """
        timeout_ns, size, elsewhere = limits
        if timeout_ns is None or timeout_ns > self._timeout_ns:
            timeout_ns = self._timeout_ns
        exchange = Exchange(route, body, len(body) if size < 0 else size, caller, timeout_ns, step)
        try:
            exchange.begin(elsewhere)
        except LitepoolError as error:
            exchange.finish(error)
            return exchange if exchange.turned else None
        return exchange

    def refresh(self) -> None:
        """Take over what the manager serves now; to be called after each change of it."""
        known: dict[int, Version] = {}
        versions: dict[Target, Version] = {}
        for target, loaded in self._manager.targets().items():
            identity = id(loaded.servable)
            version = known.get(identity) or self._known.get(identity)
            if version is None:
                metrics = self._metrics.model(loaded.servable.name, loaded.servable.version)
                version = Version(loaded, metrics, self._most)
            known[identity] = versions[target] = version
        for identity in self._known.keys() - known.keys():
            self._known[identity].close()
        self._known, self._versions = known, versions

    def _why_not(self, target: Target, wire: Wire) -> LitepoolError:
        """Why nothing is bound for this, in the words of the format's own server first."""
        try:
            self._manager.find(target)
        except NotFound as error:
            theirs = words.missing(wire, *target)
            return NotFound(theirs + error.message) if theirs else error
        except LitepoolError as error:
            return error
        return Internal(f"model {target.model!r} is loaded and not yet bound")

"""A loaded version with all that its requests need: for each wire format, who decodes and who encodes."""

import re
from dataclasses import dataclass
from typing import NamedTuple, cast

from app.errors import InvalidArgument, NotFound, UnsupportedFormat
from app.protocols import coding, npy
from app.protocols.call import JSON, SHOWN, Codec, HeadedCodec, Identity, Wire
from app.protocols.real import Real
from app.protocols.wires import MAKERS
from app.repository.loader import Loaded, Opened
from app.runtime.servable import Servable
from app.telemetry.metrics import ModelMetrics
from app.tensors import STRING, Signature

_OFFLOAD_BYTES = 256 * 1024
"""A body of this size takes about a millisecond to decode, which the loop does not wait for."""

_OFFLOAD_BYTES_POOLED = 16 * 1024
"""The same for a model that runs on a pool thread anyway: there decoding costs nobody else anything. Smaller bodies are
decoded at once, so that their records can share an invoke."""

_JSON_TYPES = frozenset({"", JSON, "text/json", "application/x-www-form-urlencoded"})
"""What a JSON body may be called. The last is what curl says of any body when it is told nothing."""


NUMBERS = ("raw", "real")


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

"""The calls that predict: from a message's bytes to the dataplane, without an await and without protobuf's library.

What a call is for stands at the beginning of its message, and of that alone there is a look here; the rest is for the
wire format's codec. Nothing here knows how calls come or how answers go: grpc.aio's server and the express lane use
the same functions.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from app.bound import Route, Wants
from app.dataplane import Caller, DataPlane, Limits, NotHere
from app.errors import InvalidArgument, LitepoolError
from app.protocols import protobuf
from app.protocols.call import SHOWN, Wire
from app.repository.manager import Target
from app.repository.version import version_of
from app.runtime.job import Job

PREDICTION = "tensorflow.serving.PredictionService"
INFERENCE = "inference.GRPCInferenceService"

PATHS = {
    Wire.GRPC_PREDICT: f"/{PREDICTION}/Predict",
    Wire.GRPC_CLASSIFY: f"/{PREDICTION}/Classify",
    Wire.GRPC_REGRESS: f"/{PREDICTION}/Regress",
    Wire.GRPC_INFER: f"/{INFERENCE}/ModelInfer",
}

_KEPT = 1024
_LONGEST_KEPT = 512
"""Beginnings of messages kept, and bytes of the longest of them: half a megabyte at the very most."""

Start = Callable[[bytes, float | None, Caller], Job | None]
"""Runs one call: its message, the seconds that the caller still waits (None: for ever), and who gets the answer, which
may be before it returns. Returned is the job if it is still under way: set `abandoned` when nobody waits any more."""


class Forward(Protocol):
    """Has the worker that keeps a sequence answer a call; the job is abandoned like any other."""

    def __call__(self, wire: Wire, sequence: str, message: bytes, seconds: float | None, caller: Caller) -> Job: ...


class Elsewhere(NamedTuple):
    """The sequences of a worker that is not alone.

    Args:
        has: whether another worker keeps the sequence of such a name.
    """

    has: Callable[[str], bool]
    forward: Forward


class Sought(NamedTuple):
    """What the beginning of a message asks for; `signature` is empty where it does not say."""

    target: Target
    signature: str = ""


class Hot:
    """One of the calls, in one worker; itself a `Start`.

    Args:
        elsewhere: None if all sequences are this worker's.
    """

    def __init__(self, wire: Wire, dataplane: DataPlane, elsewhere: Elsewhere | None = None) -> None:
        self._wire = wire
        self._wants = Wants(wire=wire)
        self._dataplane = dataplane
        self._elsewhere = elsewhere
        self._has = elsewhere.has if elsewhere is not None else None
        self._infer = wire is Wire.GRPC_INFER
        self._routes: dict[bytes, Route] = {}
        """By the bytes that a message begins with: clients send the same few again and again."""

    def refresh(self) -> None:
        """Look for what serves a call anew; to be called whenever that changes."""
        self._routes.clear()

    def __call__(self, message: bytes, seconds: float | None, caller: Caller) -> Job | None:
        limits = Limits(None if seconds is None else max(0, round(seconds * 1e9)), elsewhere=self._has)
        try:
            beginning = message[: beginning_of_infer(message) if self._infer else beginning_of_serving(message)]
            route = self._routes.get(beginning)
            if route is None:
                sought = (sought_by_infer if self._infer else sought_by_serving)(message, beginning)
                found = self._route(sought)
                if found is None:
                    # Counted as a request that was refused.
                    return self._dataplane.predict(sought.target, self._wants, message, caller, limits=limits)
                route = found
                if 0 < len(beginning) <= _LONGEST_KEPT:
                    if len(self._routes) >= _KEPT:
                        del self._routes[next(iter(self._routes))]
                    self._routes[beginning] = route
            return self._dataplane.run(route, message, caller, limits=limits)
        except NotHere as stranger:
            assert self._elsewhere is not None
            return self._elsewhere.forward(self._wire, stranger.sequence, message, seconds, caller)
        except LitepoolError as error:
            caller.refuse(error)
            return None

    def _route(self, sought: Sought) -> Route | None:
        """What serves a call; None where nothing does."""
        # A signature that is not there the codec refuses, in the words of its format.
        for signature in {sought.signature: 0, "": 0}:
            try:
                return self._dataplane.route(sought.target, self._wants._replace(signature=signature))
            except LitepoolError:
                continue
        return None


def hot_calls(dataplane: DataPlane, elsewhere: Elsewhere | None = None) -> dict[Wire, Hot]:
    """All of them."""
    return {wire: Hot(wire, dataplane, elsewhere) for wire in PATHS}


# Serializers write fields in the order of their numbers. Of a message that is written otherwise the beginning has no
# bytes, and all fields are looked at.


def beginning_of_serving(message: bytes) -> int:
    """Where a request's `model_spec`, its field 1, ends; 0 if that does not come first."""
    if len(message) > 1 and message[0] == 10 and message[1] < 128:
        return 2 + message[1]
    return 0


def sought_by_serving(message: bytes, beginning: bytes) -> Sought:
    """What a request of TensorFlow Serving is for.

    Raises:
        InvalidArgument: it does not say.
    """
    spec = None
    for number, kind, value in protobuf.fields(memoryview(beginning or message), "the request"):
        if number == 1 and kind == protobuf.LENGTH:
            spec = value
    if spec is None:
        raise InvalidArgument("Missing ModelSpec: the request has no `model_spec`, whose `name` is the model's")
    return sought_by_spec(spec)  # type: ignore[arg-type]


def sought_by_spec(spec: memoryview) -> Sought:
    """What a `ModelSpec` names.

    Raises:
        InvalidArgument: no model, or no version that can be one.
    """
    name, signature, label, version = "", "", None, None
    for number, kind, value in protobuf.fields(spec, "model_spec"):
        if kind != protobuf.LENGTH:
            continue
        if number == 1:
            name = protobuf.text(value, "model_spec.name")
        elif number == 2:
            # Of a oneof the last that is written holds.
            version, label = 0, None
            for inner, inner_kind, number_given in protobuf.fields(value, "model_spec.version"):  # type: ignore[arg-type]
                if inner == 1 and inner_kind == protobuf.VARINT:
                    version = protobuf.signed(number_given)  # type: ignore[arg-type]
        elif number == 3:
            signature = protobuf.text(value, "model_spec.signature_name")
        elif number == 4:
            label, version = protobuf.text(value, "model_spec.version_label"), None
    if not name:
        raise InvalidArgument("ModelSpec has no name specified: `model_spec.name` is the model's")
    return Sought(Target(name, version, label), signature)


def beginning_of_infer(message: bytes) -> int:
    """Where a request's `model_name` and `model_version`, its fields 1 and 2, end; 0 if they do not come first."""
    if len(message) > 1 and message[0] == 10 and message[1] < 128:
        end = 2 + message[1]
        if len(message) > end and message[end] == 18:
            return end + 2 + message[end + 1] if len(message) > end + 1 and message[end + 1] < 128 else 0
        return end
    return 0


def sought_by_infer(message: bytes, beginning: bytes) -> Sought:
    """What a `ModelInferRequest` is for.

    Raises:
        InvalidArgument: it does not say, or in no way that can be.
    """
    name = version = ""
    for number, kind, value in protobuf.fields(memoryview(beginning or message), "the request"):
        if number == 1 and kind == protobuf.LENGTH:
            name = protobuf.text(value, "model_name")
        elif number == 2 and kind == protobuf.LENGTH:
            version = protobuf.text(value, "model_version")
    return Sought(named(name, version))


def named(name: str, version: str) -> Target:
    """What Open Inference's calls name: a model, and of its versions one as text.

    Raises:
        InvalidArgument: no model, or a version that is no number.
    """
    if not name:
        raise InvalidArgument("the request names no model: expected its name in `model_name`")
    number = version_of(version) if version else None
    if version and number is None:
        raise InvalidArgument(
            f"failed to get model version from specified version string {version[:SHOWN]!r}: version should be an "
            "integral value > 0"
        )
    return Target(name, number)

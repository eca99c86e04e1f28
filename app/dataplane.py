"""The one road from a request's bytes to the answer's, for every protocol and every edge."""

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter_ns
from typing import NamedTuple, Protocol

from app.bound import Route, Version, Wants
from app.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    LitepoolError,
    NotFound,
    Unavailable,
    without_trace,
)
from app.protocols import words
from app.protocols.call import Answer, Call, OtherSignature, Wire
from app.repository.manager import Manager, Target
from app.runtime.job import Abandoned, Job, Step
from app.telemetry.metrics import Metrics
from app.tensors import Array


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


class Limits(NamedTuple):
    """What an edge knows of a request beside its body.

    Args:
        timeout_ns: how long its caller waits, in nanoseconds; None where only the server's own limit holds.
        elsewhere: whether another worker keeps the sequence of such a name, which the body may be found to belong to:
            then `NotHere` is raised. None where the sequence is ours in any case.
    """

    timeout_ns: int | None = None
    elsewhere: Callable[[str], bool] | None = None


_USUAL = Limits()


class Exchange(Job):
    """One request on its way. Keep it to `abandon` it when the client has gone."""

    _answer: bytes | Answer = b""
    _call: Call | None = None
    _decode_ns = 0
    _encode_ns = 0
    turned = False
    """Whether it was begun again with another signature."""

    def __init__(self, route: Route, body: bytes, caller: Caller, timeout_ns: int, step: Step | None) -> None:
        if step is not None:
            self.sequence = step
        self._route = route
        self._body = body
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
        inline = len(self._body) < route.inline_bytes or (route.lies is not None and route.lies(self._body))
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
            self._body = b""
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
        route = self._route
        if error is None:
            total_ns = perf_counter_ns() - self._started
            route.bound.metrics.answered(
                (self.rows, self.batch, self._decode_ns, self.queue_ns, self.invoke_ns, self._encode_ns, total_ns)
            )
            self._caller.answer(self._answer, route.media_type)
        elif type(error) is OtherSignature and not self.turned:
            other = self._turn_to(error)
            if other is not None:
                self._refuse(other)
        else:
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        total_ns = perf_counter_ns() - self._started
        route = self._route
        metrics = route.bound.metrics
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
        body: bytes,
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
        self, route: Route, body: bytes, caller: Caller, step: Step | None = None, limits: Limits = _USUAL
    ) -> Job | None:
        """Answer a request.

        Args:
            caller: gets the answer or the error.
            step: its place in a sequence, if it belongs to one by its headers.

        Returns:
            The job, if it is still under way.

        Raises:
            NotHere: as `limits` have it.
        """
        timeout_ns, elsewhere = limits
        if timeout_ns is None or timeout_ns > self._timeout_ns:
            timeout_ns = self._timeout_ns
        exchange = Exchange(route, body, caller, timeout_ns, step)
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

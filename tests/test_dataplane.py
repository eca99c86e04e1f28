import gc
import gzip
import io
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import bound
from app.bound import Wants
from app.dataplane import DataPlane, Limits, NotHere
from app.errors import (
    DeadlineExceeded,
    InvalidArgument,
    LitepoolError,
    NotFound,
    QueueFull,
    TooLarge,
    Unavailable,
    UnsupportedFormat,
)
from app.protocols import call as call_module
from app.protocols.call import JSON, OCTETS, Call, Form, Identity, OtherSignature, Place, Wire
from app.protocols.wires import MAKERS
from app.repository.loader import Loaded, Opened
from app.repository.manager import Manager, Target
from app.runtime.job import Step
from app.runtime.pool import Pool
from app.runtime.servable import Servable
from app.telemetry.metrics import Metrics
from app.tensors import Array, Signature
from tests import tflite
from tests.loops import PATIENCE, Loop
from tests.servables import FAR, Recorded, make_servables, rows

NPY = "application/x-npy"
ONE = b'{"instance": [1, 2, 3, 4]}'
ANY = Target()
MOST = 1 << 20


@dataclass
class Answer:
    body: bytes
    media_type: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Caller:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.replies: list[Answer | LitepoolError] = []

    def answer(self, body: bytes | call_module.Answer, media_type: str) -> None:
        if isinstance(body, call_module.Answer):
            self.replies.append(Answer(b"".join(body.pieces), body.media_type, body.headers))
        else:
            self.replies.append(Answer(body, media_type))

    def refuse(self, error: LitepoolError) -> None:
        self.replies.append(error)


class Shelf:
    """What the data plane asks of a manager: the servables, and why others are none."""

    def __init__(self) -> None:
        self.loaded: dict[Target, Loaded] = {}
        self.refusals: dict[Target, LitepoolError] = {}

    def targets(self) -> dict[Target, Loaded]:
        return self.loaded

    def find(self, target: Target) -> Loaded:
        raise self.refusals[target]


def loaded_of(servables: dict[str, Servable], numbers: str = "raw") -> Loaded:
    """A version that serves, with as much of it as the data plane looks at."""
    config = SimpleNamespace(numbers=numbers, class_labels=[])
    opened = SimpleNamespace(config=config, source=SimpleNamespace(name="m", version=1))
    return Loaded(cast("Opened", opened), servables)


class House:
    """A data plane that serves one model, and what it has delivered."""

    def __init__(self, folder: Path, pool: Pool) -> None:
        self.loop = Loop()
        self.shelf = Shelf()
        self.metrics = Metrics(lambda seconds, flush: None)
        self.plane = DataPlane(cast("Manager", self.shelf), self.metrics, 30.0, MOST)
        self.caller = Caller()
        self._folder = folder
        self._pool = pool

    @property
    def replies(self) -> list[Answer | LitepoolError]:
        return self.caller.replies

    def serve(self, model: bytes, **options: Any) -> Servable:
        return self.put(self.load(model, **options)).servable

    def load(self, model: bytes, *, numbers: str = "raw", **options: Any) -> Loaded:
        return loaded_of(make_servables(self._folder, model, self.loop, self._pool, **options), numbers)

    def put(self, loaded: Loaded) -> Loaded:
        """Serve it, and nothing else, by its name and as the default."""
        self.shelf.loaded = dict.fromkeys((Target(), Target("m"), Target("m", 1)), loaded)
        self.plane.refresh()
        return loaded

    def predict(
        self, body: bytes, target: Target = ANY, *, step: Step | None = None, accept: str = "*/*", **wants: Any
    ) -> Any:
        """The one reply to a request."""
        before = len(self.replies)
        self.plane.predict(target, Wants(**{"content_type": JSON, "accept": accept, **wants}), body, self.caller, step)
        self.loop.settle()
        self.loop.run_until(lambda: len(self.replies) > before)
        assert len(self.replies) == before + 1
        return self.replies[-1]

    def counted(self) -> dict[tuple[str, str], float]:
        """How many requests, by model and outcome."""
        return {
            (sample.labels["model"], sample.labels["code"]): sample.value
            for family in text_string_to_metric_families(self.metrics.render().decode())
            for sample in family.samples
            if sample.name == "litepool_requests_total"
        }

    def records(self) -> float:
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.metrics.render().decode())
            for sample in family.samples
            if sample.name == "litepool_records_total"
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    pool = Pool(1)
    yield House(tmp_path, pool)
    pool.close()


def hold(servable: Servable) -> threading.Event:
    """Keep the pool's thread busy until the event is set."""
    entered, opened = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert opened.wait(PATIENCE)

    servable.submit(Recorded(rows(0), decoded=False, prepare=wait), inline=False)
    assert entered.wait(PATIENCE)
    return opened


def saved(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# Answers


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (ONE, {"prediction": [3, 5, 7, 9]}),
        (b'{"instances": [[1, 2, 3, 4], {"x": [0, 0, 0, 0]}]}', {"predictions": [[3, 5, 7, 9], [1, 1, 1, 1]]}),
        (b'{"inputs": {"x": [[1, 2, 3, 4]]}}', {"outputs": [[3, 5, 7, 9]]}),
    ],
)
@pytest.mark.parametrize("model", [None, "m"])
def test_a_request_in_json_is_answered_in_json(house: House, body: bytes, expected: object, model: str | None) -> None:
    house.serve(tflite.affine())

    reply = house.predict(body, Target(model))

    assert reply.media_type == "application/json"
    assert orjson.loads(reply.body) == expected


def test_several_inputs_and_outputs_go_by_their_names(house: House) -> None:
    house.serve(tflite.two_in_two_out())

    reply = house.predict(b'{"instance": {"right": [1, 1, 1], "left": [1, 2, 3]}}')

    assert orjson.loads(reply.body) == {"prediction": {"difference": [0, 1, 2], "total": [9]}}


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "application/json", "Application/JSON", "application/json; charset=utf-8", "text/json"),
        "application/x-www-form-urlencoded",
    ],
)
def test_json_goes_by_several_names(house: House, content_type: str) -> None:
    house.serve(tflite.affine())

    assert orjson.loads(house.predict(ONE, content_type=content_type).body) == {"prediction": [3, 5, 7, 9]}


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "image/png", "multipart/form-data"])
def test_another_media_type_is_refused_with_those_that_are_taken(house: House, content_type: str) -> None:
    house.serve(tflite.affine())

    reply = house.predict(ONE, content_type=content_type)

    assert isinstance(reply, UnsupportedFormat)
    assert reply.message == f"Content-Type: expected application/json or {NPY}, found '{content_type}'"


@pytest.mark.parametrize("content_type", [NPY, "Application/X-NPY", f"{NPY}; version=1"])
def test_npy_goes_in_and_json_comes_out_unless_npy_is_asked_for(house: House, content_type: str) -> None:
    house.serve(tflite.affine())
    array = np.array([[1, 2, 3, 4]], np.float32)

    plain = house.predict(saved(array), content_type=content_type)
    binary = house.predict(saved(array), content_type=content_type, accept=f"{NPY}, */*;q=0.1")

    assert (plain.media_type, orjson.loads(plain.body)) == (JSON, {"predictions": [[3, 5, 7, 9]]})
    assert binary.media_type == NPY
    assert np.load(io.BytesIO(binary.body)).tolist() == [[3, 5, 7, 9]]


def test_a_request_in_json_may_be_answered_in_npy(house: House) -> None:
    house.serve(tflite.affine())

    assert np.load(io.BytesIO(house.predict(ONE, accept=NPY).body)).tolist() == [3, 5, 7, 9]


def test_npy_is_refused_before_anything_is_run_where_there_are_several_outputs(house: House) -> None:
    house.serve(tflite.two_in_two_out())

    reply = house.predict(b"not even JSON", accept=NPY)

    assert isinstance(reply, UnsupportedFormat)
    assert "'difference', 'total'" in reply.message


# Refusals


def test_a_bad_body_is_refused_with_its_place(house: House) -> None:
    house.serve(tflite.affine())

    reply = house.predict(b'{"instances": [[1, 2, 3, 4], [1, 2, true, 4]]}')

    assert isinstance(reply, InvalidArgument)
    assert reply.message == "instances[1][2]: expected one float32 number for input 'x', found true"


@pytest.mark.parametrize("refusal", [NotFound("no model 'q'; the models are m"), Unavailable("loading", retry_after=2)])
@pytest.mark.parametrize("name", [None, "q"])
def test_a_model_that_is_not_served_is_refused_in_the_manager_s_words(
    house: House, refusal: LitepoolError, name: str | None
) -> None:
    house.serve(tflite.affine())
    house.shelf.loaded = {}
    house.plane.refresh()
    house.shelf.refusals[Target(name)] = refusal

    assert house.predict(ONE, Target(name)) is refusal


def test_a_model_that_is_gone_is_refused_from_the_next_refresh_on(house: House) -> None:
    house.serve(tflite.affine())
    assert isinstance(house.predict(ONE), Answer)

    house.shelf.loaded = {}
    house.shelf.refusals[Target()] = gone = NotFound("gone")
    house.plane.refresh()

    assert house.predict(ONE) is gone


def test_a_model_that_was_loaded_again_answers_anew(house: House) -> None:
    house.serve(tflite.affine(2.0, 1.0))
    first = house.predict(ONE)
    house.serve(tflite.affine(10.0, 0.0))

    assert orjson.loads(first.body) == {"prediction": [3, 5, 7, 9]}
    assert orjson.loads(house.predict(ONE).body) == {"prediction": [10, 20, 30, 40]}


def test_a_call_that_finds_the_queue_full_is_refused_and_counted(house: House) -> None:
    servable = house.serve(tflite.affine(), inline_us=0.0, queue_size=1)
    opened = hold(servable)

    waiting = house.plane.predict(Target(), Wants(JSON), ONE, house.caller)
    assert house.plane.predict(Target(), Wants(JSON), ONE, house.caller) is None
    (refused,) = house.replies
    opened.set()
    house.loop.run_until(lambda: len(house.replies) == 2)

    assert isinstance(refused, QueueFull)
    assert waiting is not None
    assert isinstance(house.replies[1], Answer)
    assert house.counted() == {("m", "OK"): 1, ("m", "UNAVAILABLE"): 1}


@pytest.mark.parametrize(("change", "code"), [("abandoned", "CANCELLED"), ("late", "DEADLINE_EXCEEDED")])
def test_a_call_that_is_not_wanted_any_more_is_not_answered_with_a_prediction(
    house: House, change: str, code: str
) -> None:
    servable = house.serve(tflite.affine(), inline_us=0.0)
    opened = hold(servable)

    job = house.plane.predict(Target(), Wants(JSON), ONE, house.caller)
    assert job is not None
    assert 0 < job.deadline < FAR
    if change == "abandoned":
        job.abandoned = True
    else:
        job.deadline = 0
    opened.set()
    house.loop.run_until(lambda: bool(house.counted().get(("m", code))))

    if change == "abandoned":
        assert house.replies == []
    else:
        assert isinstance(house.replies[0], DeadlineExceeded)
    assert house.records() == 0


# Lanes and counts


def test_a_large_body_is_decoded_off_the_loop(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "_OFFLOAD_BYTES", len(ONE))
    house.serve(tflite.affine())

    job = house.plane.predict(Target(), Wants(JSON), ONE, house.caller)

    assert job is not None
    assert job.queued_at > 0
    house.loop.run_until(lambda: bool(house.replies))
    (reply,) = house.replies
    assert isinstance(reply, Answer)
    assert orjson.loads(reply.body) == {"prediction": [3, 5, 7, 9]}


def test_a_large_body_that_is_bad_is_refused_like_a_small_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "_OFFLOAD_BYTES", 1)
    house.serve(tflite.affine())

    reply = house.predict(b'{"instance": [1, 2, null, 4]}')

    assert isinstance(reply, InvalidArgument)
    assert reply.message.startswith("instance[2]: ")


def test_requests_are_counted_by_outcome_and_records_by_those_that_succeed(house: House) -> None:
    house.serve(tflite.affine())
    house.shelf.refusals[Target("q")] = NotFound("no model 'q'")
    bodies: list[Callable[[], Any]] = [
        lambda: house.predict(ONE),
        lambda: house.predict(b'{"instances": [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]]}'),
        lambda: house.predict(b"{}"),
        lambda: house.predict(b"[]"),
        lambda: house.predict(ONE, content_type="text/plain"),
        lambda: house.predict(ONE, Target("q")),
    ]
    for body in bodies:
        body()

    assert house.counted() == {
        ("m", "OK"): 2,
        ("m", "INVALID_ARGUMENT"): 2,
        ("m", "UNSUPPORTED_FORMAT"): 1,
        ("", "NOT_FOUND"): 1,
    }
    assert house.records() == 4


# Routes


@pytest.mark.parametrize("content_type", ["", JSON, "text/json; charset=utf-8"])
def test_a_route_that_was_found_once_serves_any_number_of_bodies(house: House, content_type: str) -> None:
    house.serve(tflite.affine())
    route = house.plane.route(Target("m"), Wants(content_type, "*/*"))

    for body in (ONE, b"{}", b'{"instances": [[0, 0, 0, 0]]}'):
        house.plane.run(route, body, house.caller)
    house.loop.settle()

    assert route.media_type == JSON
    first, refused, second = house.replies
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert [orjson.loads(first.body), orjson.loads(second.body)] == [
        {"prediction": [3, 5, 7, 9]},
        {"predictions": [[1, 1, 1, 1]]},
    ]
    assert isinstance(refused, InvalidArgument)
    assert house.counted() == {("m", "OK"): 2, ("m", "INVALID_ARGUMENT"): 1}


def test_a_route_is_of_the_model_and_the_media_types_that_were_asked_for(house: House) -> None:
    house.serve(tflite.affine())

    route = house.plane.route(Target(), Wants(NPY, f"text/html, {NPY}"))
    house.plane.run(route, saved(np.array([[1, 2, 3, 4]], np.float32)), house.caller)
    house.loop.settle()

    (reply,) = house.replies
    assert isinstance(reply, Answer)
    assert (reply.media_type, route.media_type) == (NPY, NPY)
    assert np.load(io.BytesIO(reply.body)).tolist() == [[3, 5, 7, 9]]
    assert route.bound is house.plane.route(Target("m"), Wants(JSON)).bound


@pytest.mark.parametrize(
    ("model", "content_type", "accept", "refusal"),
    [
        ("q", JSON, "", NotFound),
        (None, "text/plain", "", UnsupportedFormat),
        ("m", "image/png", NPY, UnsupportedFormat),
    ],
)
def test_looking_for_a_route_that_there_is_not_is_no_request(
    house: House, model: str | None, content_type: str, accept: str, refusal: type[LitepoolError]
) -> None:
    house.serve(tflite.affine())
    house.shelf.refusals[Target("q")] = NotFound("no model 'q'")

    with pytest.raises(refusal):
        house.plane.route(Target(model), Wants(content_type, accept))

    assert house.counted() == {}
    assert isinstance(house.predict(ONE, Target(model), content_type=content_type, accept=accept), refusal)
    assert list(house.counted().values()) == [1], "it is counted once it is one"


# Versions and labels


def serve_versions(house: House) -> dict[int, Loaded]:
    """Version 1 is y = 2x + 1 and has the label `stable`; version 2 is y = 10x, and has none; it is the default.

    Versions of the same number differ to the data plane by what was loaded, so that both may say that they are 1.
    """
    versions = {1: house.load(tflite.affine()), 2: house.load(tflite.affine(10.0, 0.0))}
    house.shelf.loaded = {
        Target(): versions[2],
        Target("m"): versions[2],
        Target("m", 1): versions[1],
        Target("m", 2): versions[2],
        Target("m", label="stable"): versions[1],
    }
    house.plane.refresh()
    return versions


OLD, NEW = {"prediction": [3, 5, 7, 9]}, {"prediction": [10, 20, 30, 40]}


def test_a_version_and_a_label_are_each_answered_by_what_they_name(house: House) -> None:
    serve_versions(house)

    answers = {target: orjson.loads(house.predict(ONE, target).body) for target in house.plane.targets}

    assert answers == {
        Target(): NEW,
        Target("m"): NEW,
        Target("m", 1): OLD,
        Target("m", 2): NEW,
        Target("m", label="stable"): OLD,
    }


def test_a_label_moves_from_one_refresh_to_the_next(house: House) -> None:
    versions = serve_versions(house)
    stable = Target("m", label="stable")
    route = house.plane.route(stable, Wants(JSON))

    house.shelf.loaded[stable] = versions[2]
    assert orjson.loads(house.predict(ONE, stable).body) == OLD, "not before it is refreshed"
    house.plane.refresh()

    assert orjson.loads(house.predict(ONE, stable).body) == NEW
    assert house.plane.route(Target("m", 1), Wants(JSON)) is route, "what has not changed is not made anew"


def test_a_version_that_is_not_there_is_refused_in_the_manager_s_words(house: House) -> None:
    serve_versions(house)
    house.shelf.refusals[Target("m", 7)] = gone = NotFound("model 'm' has no version 7; its versions are 1, 2")

    assert house.predict(ONE, Target("m", 7)) is gone
    assert house.counted() == {("", "NOT_FOUND"): 1}


# Signatures


def test_a_signature_is_chosen_by_its_name_and_without_one_it_is_the_default(house: House) -> None:
    house.serve(tflite.two_signatures())
    both = b'{"instance": {"left": [1, 2], "right": [10, 20]}}'

    assert orjson.loads(house.predict(both, signature="add").body) == {"prediction": [11, 22]}
    assert orjson.loads(house.predict(ONE).body) == OLD
    assert orjson.loads(house.predict(ONE, signature="serving_default").body) == OLD
    assert isinstance(house.predict(ONE, signature="add"), InvalidArgument)


@pytest.mark.parametrize("signature", ["Add", "add ", "add" * 1000, "\ufffd", "0"])
def test_a_signature_that_there_is_not_is_refused_with_those_that_there_are(house: House, signature: str) -> None:
    house.serve(tflite.two_signatures())

    reply = house.predict(ONE, signature=signature)

    assert isinstance(reply, NotFound)
    assert reply.message == (
        f"model 'm' has no signature {signature[:80]!r}; its signatures are 'serving_default', 'add'"
    )
    assert house.counted() == {("m", "NOT_FOUND"): 1}


# Numbers


def test_the_numbers_of_a_quantized_model_are_as_the_request_asks_or_else_as_model_toml_says(house: House) -> None:
    raw, real = b'{"instance": [-1, 0, 1, 127]}', b'{"instance": [0, 0.5, 1, 64]}'
    for numbers, usual in (("raw", raw), ("real", real)):
        house.put(house.load(tflite.quantized(), numbers=numbers))
        for asked, body in (("", usual), ("raw", raw), ("real", real)):
            reply = house.predict(body, numbers=asked)
            assert orjson.loads(reply.body)["prediction"] == orjson.loads(body)["instance"]


def test_real_numbers_go_in_and_out_as_npy_too(house: House) -> None:
    house.serve(tflite.quantized())
    given = np.array([[0, 0.5, 1, 64]], np.float32)

    reply = house.predict(saved(given), content_type=NPY, accept=NPY, numbers="real")

    answer = np.load(io.BytesIO(reply.body))
    assert answer.dtype == np.float32
    assert answer.tolist() == given.tolist()


def test_of_a_model_that_is_not_quantized_real_numbers_are_its_own(house: House) -> None:
    house.serve(tflite.affine())

    assert orjson.loads(house.predict(ONE, numbers="real").body) == OLD


@pytest.mark.parametrize("numbers", ["Real", "real, raw", "x" * 1000, "\xe9"])
def test_another_word_for_numbers_is_refused_with_those_that_are_known(house: House, numbers: str) -> None:
    house.serve(tflite.affine())

    reply = house.predict(ONE, numbers=numbers)

    assert isinstance(reply, InvalidArgument)
    assert reply.message == f"Litepool-Numbers: expected raw or real, found {numbers[:80]!r}"


# Sequences


def test_a_request_s_place_in_a_sequence_reaches_the_model(house: House) -> None:
    house.serve(tflite.running_sum())

    answers = [
        orjson.loads(house.predict(ONE, step=step).body)["prediction"][0]
        for step in (Step("a", start=True), None, Step("a"), Step("a", end=True), None)
    ]

    assert answers == [1, 1, 2, 3, 1]
    assert isinstance(house.predict(ONE, step=Step("a")), InvalidArgument)
    assert house.counted() == {("m", "OK"): 5, ("m", "INVALID_ARGUMENT"): 1}


def test_a_body_that_is_bad_begins_no_sequence(house: House) -> None:
    house.serve(tflite.running_sum())

    assert isinstance(house.predict(b"{}", step=Step("a", start=True)), InvalidArgument)
    reply = house.predict(ONE, step=Step("a"))

    assert isinstance(reply, InvalidArgument)
    assert reply.message.startswith("there is no sequence 'a'")


# Leaving the memory


class Keeper(Caller):
    """A caller that its own replies are kept with, as a future keeps what it is given."""

    def refuse(self, error: LitepoolError) -> None:
        super().refuse(error)
        error.__dict__["caller"] = self


@pytest.mark.parametrize(
    "ask",
    [
        lambda house: house.predict(ONE),
        lambda house: house.predict(b"not JSON"),
        lambda house: house.predict(b'{"instance": [1, 2, null, 4]}'),
        lambda house: house.predict(ONE, content_type="image/png"),
        lambda house: house.predict(ONE, content_type=NPY),
        lambda house: house.predict(ONE, accept=NPY),
        lambda house: house.predict(ONE, numbers="complex"),
        lambda house: house.predict(ONE, signature="unknown"),
    ],
)
def test_what_is_served_no_more_leaves_the_memory_with_no_circle_behind_it(
    house: House, ask: Callable[[House], Any]
) -> None:
    servable = weakref.ref(house.serve(tflite.affine()))
    gc.collect()
    gc.disable()
    try:
        house.caller = Keeper()
        ask(house)
        house.caller = Caller()
        house.shelf.loaded = {}
        assert servable() is not None
        house.plane.refresh()
        assert servable() is None
    finally:
        gc.enable()


def test_what_is_served_no_more_stays_for_the_requests_that_wait_for_it(house: House) -> None:
    servable = house.serve(tflite.affine(), inline_us=0.0)
    left = weakref.ref(servable)
    opened = hold(servable)
    house.plane.predict(Target(), Wants(JSON), ONE, house.caller)
    house.shelf.loaded = {}
    house.plane.refresh()
    del servable

    assert left() is not None
    opened.set()
    house.loop.run_until(lambda: bool(house.replies))

    (reply,) = house.replies
    assert isinstance(reply, Answer)
    assert orjson.loads(reply.body) == OLD


# Other wire formats


class Odd:
    """A codec whose bodies say which signature they are for, how long they wait, and which sequence they belong to."""

    def __init__(self, identity: Identity, signature: Signature) -> None:
        self._identity = identity
        self._signature = signature

    def decode(self, body: bytes) -> Call:
        asks = orjson.loads(body)
        wanted = asks.get("signature", self._signature.name)
        if wanted != self._signature.name:
            raise OtherSignature(wanted)
        place = Place(*asks["place"]) if "place" in asks else None
        record = np.array([[1, 2, 3, 4]], np.float32)
        return Call((record,), 1, Form.INSTANCE, asks, asks.get("timeout_ns", 0), place)

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes | call_module.Answer:
        said = b"%s %d %s" % (self._identity.model.encode(), self._identity.version, self._signature.name.encode())
        return call_module.Answer((said, memoryview(outputs[0].data).cast("B")), OCTETS, ((b"x-odd", b"1"),))


@pytest.fixture
def odd(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr("app.bound.MAKERS", {**MAKERS, Wire.INFER: Odd})
    return house


def test_a_codec_knows_what_it_serves_and_answers_in_pieces_with_headers(odd: House) -> None:
    odd.serve(tflite.affine(2.0, 1.0))

    reply = odd.predict(b"{}", wire=Wire.INFER)

    assert reply.body == b"m 1 serving_default" + np.array([3, 5, 7, 9], np.float32).tobytes()
    assert (reply.media_type, reply.headers) == (OCTETS, ((b"x-odd", b"1"),))


@pytest.mark.parametrize("inline_us", [0.0, 1000.0], ids=["on a pool thread", "on the loop"])
def test_a_body_that_names_another_signature_is_answered_by_that(odd: House, inline_us: float) -> None:
    odd.serve(tflite.two_names(), inline_us=inline_us)
    padding = b" " * (1 << 17)

    for body in (b'{"signature": "other"}', b'{"signature": "other"}' + padding):
        reply = odd.predict(body, wire=Wire.INFER)
        assert reply.body.startswith(b"m 1 other")


@pytest.mark.parametrize("inline_us", [0.0, 1000.0], ids=["on a pool thread", "on the loop"])
def test_a_body_of_which_each_codec_says_that_it_is_the_other_s_is_refused(
    odd: House, inline_us: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(codec: Odd, _: bytes) -> Call:
        raise OtherSignature({"other": "serving_default"}.get(codec._signature.name, "other"))

    monkeypatch.setattr(Odd, "decode", decode)
    odd.serve(tflite.two_names(), inline_us=inline_us)

    reply = odd.predict(b"{}" + b" " * (1 << 17), wire=Wire.INFER)

    assert isinstance(reply, InvalidArgument)
    assert "serving_default" in reply.message


def test_a_body_that_names_a_signature_that_there_is_not_is_refused_with_those_that_there_are(odd: House) -> None:
    odd.serve(tflite.two_names())

    reply = odd.predict(b'{"signature": "times"}', wire=Wire.INFER)

    assert isinstance(reply, InvalidArgument)
    assert 'signature name: "times" not found in signature def' in reply.message
    assert "'serving_default', 'other'" in reply.message


def test_a_body_may_say_how_long_it_waits(odd: House) -> None:
    servable = odd.serve(tflite.affine(), inline_us=0.0)
    opened = hold(servable)

    job = odd.plane.predict(Target(), Wants(JSON, wire=Wire.INFER), b'{"timeout_ns": 1}', odd.caller)
    opened.set()
    odd.loop.run_until(lambda: bool(odd.replies))

    assert job is not None
    assert isinstance(odd.replies[0], DeadlineExceeded)


def test_a_large_body_that_says_how_long_it_waits_is_not_run_when_it_has_waited_longer(
    odd: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "_OFFLOAD_BYTES_POOLED", 1)
    servable = odd.serve(tflite.affine(), inline_us=0.0)
    opened = hold(servable)

    for body in (b'{"timeout_ns": 1}', b'{"timeout_ns": 60000000000}'):
        odd.plane.predict(Target(), Wants(JSON, wire=Wire.INFER), body, odd.caller)
    opened.set()
    odd.loop.run_until(lambda: len(odd.replies) == 2)

    assert sorted(type(reply).__name__ for reply in odd.replies) == ["Answer", "DeadlineExceeded"]
    assert odd.records() == 1


def test_an_edge_may_say_how_long_its_caller_waits(house: House) -> None:
    servable = house.serve(tflite.affine(), inline_us=0.0)
    opened = hold(servable)

    house.plane.predict(Target(), Wants(JSON), ONE, house.caller, limits=Limits(timeout_ns=1))
    opened.set()
    house.loop.run_until(lambda: bool(house.replies))

    assert isinstance(house.replies[0], DeadlineExceeded)


def test_a_sequence_that_the_body_names_may_be_kept_by_another_worker(odd: House) -> None:
    odd.serve(tflite.running_sum())
    wants = Wants(JSON, wire=Wire.INFER)
    elsewhere = Limits(elsewhere={"far": True, "near": False}.__getitem__)

    with pytest.raises(NotHere) as stranger:
        odd.plane.predict(Target(), wants, b'{"place": ["far", true]}', odd.caller, None, elsewhere)
    odd.plane.predict(Target(), wants, b'{"place": ["near", true]}', odd.caller, None, elsewhere)
    odd.loop.run_until(lambda: bool(odd.replies))

    assert stranger.value.sequence == "far"
    assert isinstance(odd.replies[0], Answer)


def test_a_sequence_means_nothing_to_a_model_without_state(odd: House) -> None:
    odd.serve(tflite.affine())

    assert isinstance(odd.predict(b'{"place": ["a"]}', wire=Wire.INFER), Answer)


def test_a_compressed_body_is_read_and_the_answer_compressed_for_who_asks(house: House) -> None:
    house.serve(tflite.affine(2.0, 1.0))

    reply = house.predict(gzip.compress(ONE), coding="gzip", accept_coding="deflate")

    assert zlib.decompress(reply.body) == b'{"prediction":[3.0,5.0,7.0,9.0]}'
    assert reply.headers == ((b"content-encoding", b"deflate"),)
    assert isinstance(house.predict(ONE, coding="gzip"), InvalidArgument)
    assert isinstance(house.predict(gzip.compress(b" " * (MOST + 1)), coding="gzip"), TooLarge)
    assert house.predict(ONE, accept_coding="gzip, deflate").headers == ()

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import dataplane
from app.dataplane import JSON, DataPlane
from app.errors import (
    DeadlineExceeded,
    InvalidArgument,
    LitepoolError,
    NotFound,
    QueueFull,
    Unavailable,
    UnsupportedFormat,
)
from app.repository.loader import Loaded
from app.repository.manager import Manager
from app.repository.samples import Sample
from app.runtime.pool import Pool
from app.runtime.servable import Servable
from app.telemetry.metrics import Metrics
from tests import tflite
from tests.loops import PATIENCE, Loop
from tests.servables import FAR, Recorded, make_servable, rows

NPY = "application/x-npy"
ONE = b'{"instance": [1, 2, 3, 4]}'


@dataclass
class Answer:
    body: bytes
    media_type: str


class Caller:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.replies: list[Answer | LitepoolError] = []

    def answer(self, body: bytes, media_type: str) -> None:
        self.replies.append(Answer(body, media_type))

    def refuse(self, error: LitepoolError) -> None:
        self.replies.append(error)


class Shelf:
    """What the data plane asks of a manager: the servables, and why others are none."""

    def __init__(self) -> None:
        self.servables: list[Servable] = []
        self.samples: list[Sample] = []
        self.default: str | None = "m"
        self.refusals: dict[str | None, LitepoolError] = {}

    def serving(self) -> list[Loaded]:
        opened = SimpleNamespace(samples=self.samples)
        return [cast("Loaded", SimpleNamespace(servable=servable, opened=opened)) for servable in self.servables]

    def default_name(self) -> str | None:
        return self.default

    def find(self, name: str | None) -> Servable:
        raise self.refusals[name]


class House:
    """A data plane that serves one model, and what it has delivered."""

    def __init__(self, folder: Path, pool: Pool) -> None:
        self.loop = Loop()
        self.shelf = Shelf()
        self.metrics = Metrics(lambda seconds, flush: None)
        self.plane = DataPlane(cast("Manager", self.shelf), self.metrics, 30.0)
        self.caller = Caller()
        self._folder = folder
        self._pool = pool

    @property
    def replies(self) -> list[Answer | LitepoolError]:
        return self.caller.replies

    def serve(self, model: bytes, **options: Any) -> Servable:
        servable = make_servable(self._folder, model, self.loop, self._pool, **options)
        self.shelf.servables = [servable]
        self.plane.refresh()
        return servable

    def predict(self, body: bytes, *, model: str | None = None, content_type: str = JSON, accept: str = "*/*") -> Any:
        """The one reply to a request."""
        before = len(self.replies)
        self.plane.predict(model, body, content_type, accept, self.caller)
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

    reply = house.predict(body, model=model)

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
    house.shelf.default = None
    house.serve(tflite.affine())
    house.shelf.refusals[name] = refusal

    assert house.predict(ONE, model=name) is refusal


def test_a_model_that_is_gone_is_refused_from_the_next_refresh_on(house: House) -> None:
    house.serve(tflite.affine())
    assert isinstance(house.predict(ONE), Answer)

    house.shelf.servables = []
    house.shelf.refusals[None] = gone = NotFound("gone")
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

    waiting = house.plane.predict(None, ONE, JSON, "", house.caller)
    assert house.plane.predict(None, ONE, JSON, "", house.caller) is None
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

    job = house.plane.predict(None, ONE, JSON, "", house.caller)
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
    monkeypatch.setattr(dataplane, "_OFFLOAD_BYTES", len(ONE))
    house.serve(tflite.affine())

    job = house.plane.predict(None, ONE, JSON, "", house.caller)

    assert job is not None
    assert job.queued_at > 0
    house.loop.run_until(lambda: bool(house.replies))
    (reply,) = house.replies
    assert isinstance(reply, Answer)
    assert orjson.loads(reply.body) == {"prediction": [3, 5, 7, 9]}


def test_a_large_body_that_is_bad_is_refused_like_a_small_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "_OFFLOAD_BYTES", 1)
    house.serve(tflite.affine())

    reply = house.predict(b'{"instance": [1, 2, null, 4]}')

    assert isinstance(reply, InvalidArgument)
    assert reply.message.startswith("instance[2]: ")


def test_requests_are_counted_by_outcome_and_records_by_those_that_succeed(house: House) -> None:
    house.serve(tflite.affine())
    house.shelf.refusals["q"] = NotFound("no model 'q'")
    bodies: list[Callable[[], Any]] = [
        lambda: house.predict(ONE),
        lambda: house.predict(b'{"instances": [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]]}'),
        lambda: house.predict(b"{}"),
        lambda: house.predict(b"[]"),
        lambda: house.predict(ONE, content_type="text/plain"),
        lambda: house.predict(ONE, model="q"),
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
    route = house.plane.route("m", content_type, "*/*")

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

    route = house.plane.route(None, NPY, f"text/html, {NPY}")
    house.plane.run(route, saved(np.array([[1, 2, 3, 4]], np.float32)), house.caller)
    house.loop.settle()

    (reply,) = house.replies
    assert isinstance(reply, Answer)
    assert (reply.media_type, route.media_type) == (NPY, NPY)
    assert np.load(io.BytesIO(reply.body)).tolist() == [[3, 5, 7, 9]]
    assert route.bound is house.plane.route("m", JSON, "").bound


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
    house.shelf.refusals["q"] = NotFound("no model 'q'")

    with pytest.raises(refusal):
        house.plane.route(model, content_type, accept)

    assert house.counted() == {}
    assert isinstance(house.predict(ONE, model=model, content_type=content_type, accept=accept), refusal)
    assert list(house.counted().values()) == [1], "it is counted once it is one"


def test_a_sample_that_the_model_does_not_take_is_left_out_and_named(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.shelf.samples = [Sample(request={"instance": record}) for record in ([1, 2], [1, 2, 3, 4], ["a"] * 4)]

    house.serve(tflite.affine())

    assert [sample.request["instance"] for sample in house.shelf.samples] == [[1, 2, 3, 4]]
    assert "m: samples.json[0] is left out: instance: expected a list of 4 " in caplog.text
    assert "m: samples.json[2] is left out: instance[0]: expected one float32 number" in caplog.text

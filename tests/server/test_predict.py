"""`/predict` over HTTP: formats in and out, every refusal, and clients that go away."""

import asyncio
import io
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.protocols.predict_json import PredictJson
from app.runtime import batching
from app.server.predict import Predict
from tests import tflite
from tests.server.inprocess import PATIENCE, InProcess, call_raw, error_of
from tests.server.test_control import requests

RECORD = b'{"instance": [1, 2, 3, 4]}'
ANSWER = {"prediction": [3, 5, 7, 9]}
NPY = "application/x-npy"


def npy(values: Any, dtype: str = "float32") -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(values, dtype))
    return file.getvalue()


def loaded(response: httpx.Response) -> "np.ndarray[Any, Any]":
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == NPY
    array = np.load(io.BytesIO(response.content), allow_pickle=False)
    assert isinstance(array, np.ndarray)
    return array


# The three forms


def test_one_record_gets_one_prediction(good: InProcess) -> None:
    response = good.send("/predict", RECORD, content_type="application/json")

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.json() == ANSWER


@pytest.mark.parametrize(
    ("model", "request_body", "answer"),
    [
        ("affine", {"instances": [[1, 2, 3, 4], [0, 0, 0, 0]]}, {"predictions": [[3, 5, 7, 9], [1, 1, 1, 1]]}),
        ("affine", {"inputs": [[1, 2, 3, 4]]}, {"outputs": [[3, 5, 7, 9]]}),
        ("affine", {"instance": {"x": [1, 2, 3, 4]}}, ANSWER),
        ("pair", {"instance": {"right": [4, 5, 6], "left": [1, 2, 3]}},
         {"prediction": {"total": [21], "difference": [-3, -3, -3]}}),
        ("pair", {"instances": [{"left": [1, 0, 0], "right": [0, 0, 0]}] * 2},
         {"predictions": [{"total": [1], "difference": [1, 0, 0]}] * 2}),
        ("pair", {"inputs": {"left": [[1, 1, 1]], "right": [[1, 1, 1]]}},
         {"outputs": {"total": [[6]], "difference": [[0, 0, 0]]}}),
        ("one", {"instances": [[1, 2, 3, 4], [0, 0, 0, 0]]}, {"predictions": [[3, 5, 7, 9], [1, 1, 1, 1]]}),
        ("whole", {"instance": [[1, 2], [3, 4], [5, 6]]}, {"prediction": [[3, 5], [7, 9], [11, 13]]}),
        ("whole", {"inputs": [[1, 2], [3, 4], [5, 6]]}, {"outputs": [[3, 5], [7, 9], [11, 13]]}),
        ("inner", {"instance": [[1, 2, 3], [4, 5, 6]]}, {"prediction": [[3, 5, 7], [9, 11, 13]]}),
        ("scalar", {"instance": 3}, {"prediction": 7}),
        ("scalar", {"instances": [3, 4]}, {"predictions": [7, 9]}),
        ("bool", {"instance": [True, False, True, False]}, {"prediction": [True, False, True, False]}),
        ("int8", {"instance": [-128, 0, 1, 127]}, {"prediction": [-128, 0, 1, 127]}),
        ("double", {"instance": [0.1, 1e300, -2, 3]}, {"prediction": [0.1, 1e300, -2, 3]}),
        ("lookup", {"instances": [[2], [0]]}, {"predictions": [[30], [10]]}),
    ],
)  # fmt: skip
def test_each_form_is_answered_in_kind(good: InProcess, model: str, request_body: Any, answer: Any) -> None:
    response = good.post(f"/predict/{model}", request_body)

    assert response.status_code == 200, response.text
    assert response.json() == answer


def test_a_stateful_model_starts_afresh_for_each_request(good: InProcess) -> None:
    for _ in range(3):
        assert good.send("/predict/state", RECORD).json() == {"prediction": [1, 2, 3, 4]}


def test_numbers_that_are_not_finite_are_read_as_tokens_and_written_as_null(good: InProcess) -> None:
    response = good.send("/predict", b'{"instance": [NaN, Infinity, -Infinity, 1]}')

    assert response.json() == {"prediction": [None, None, None, 3]}


# What is refused with 400


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        ("affine", b"", ["empty"]),
        ("affine", b"   ", ["empty"]),
        ("affine", b"{", ["not JSON"]),
        ("affine", b"instance=1", ["not JSON"]),
        ("affine", b'{"instance": [1, 2, 3, 4]} x', ["not JSON"]),
        ("affine", b"\xff\xfe", ["UTF-8"]),
        ("affine", b"[1, 2, 3, 4]", ["instance", "instances", "inputs", "list"]),
        ("affine", b'"instance"', ["instance", "string"]),
        ("affine", b"null", ["null"]),
        ("affine", b"{}", ["exactly one"]),
        ("affine", b'{"data": [1, 2, 3, 4]}', ["data", "exactly one"]),
        ("affine", b'{"instance": [1, 2, 3, 4], "instances": []}', ["exactly one", "instances"]),
        ("affine", b'{"instance": 1}', ["list of 4"]),
        ("affine", b'{"instance": [[1, 2, 3, 4]]}', ["instance", "list of 4 float32", "found a list of 1"]),
        ("affine", b'{"instance": [1, 2, 3]}', ["list of 4", "list of 3"]),
        ("affine", b'{"instance": [1, "2", 3, 4]}', ["instance[1]", "string"]),
        ("affine", b'{"instance": [1, true, 3, 4]}', ["instance[1]", "true"]),
        ("affine", b'{"instance": [1, null, 3, 4]}', ["instance[1]", "null"]),
        ("affine", b'{"instance": [1, 1e39, 3, 4]}', ["instance[1]", "float32"]),
        ("affine", b'{"instance": [1, 1e400, 3, 4]}', ["instance[1]", "1e400"]),
        ("affine", b'{"instances": []}', ["at least one"]),
        ("affine", b'{"instances": {}}', ["list"]),
        ("affine", b'{"instances": [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2]]}', ["instances[2]", "list of 2"]),
        ("affine", b'{"instance": {"y": [1, 2, 3, 4]}}', ["'x'", "'y'"]),
        ("affine", b"[" * 100_000, []),
        ("pair", b'{"instance": {"left": [1, 2, 3]}}', ["'right'"]),
        ("pair", b'{"instance": {"left": [1, 2, 3], "right": [1, 2, 3], "up": 1}}', ["'up'"]),
        ("pair", b'{"instance": [1, 2, 3]}', ["'left'", "'right'"]),
        ("pair", b'{"inputs": {"left": [[1, 2, 3]], "right": [[1, 2, 3], [1, 2, 3]]}}', ["left", "right"]),
        ("int8", b'{"instance": [1, 2, 3, 128]}', ["instance[3]", "128", "-128", "127"]),
        ("int8", b'{"instance": [1, 2, 3, 4.5]}', ["instance[3]", "integer"]),
        ("int8", b'{"instance": [1, 2, 3, NaN]}', ["instance[3]", "integer"]),
        ("bool", b'{"instance": [1, 0, 1, 0]}', ["instance[0]", "true or false"]),
        ("inner", b'{"instance": [[1, 2, 3], [1, 2]]}', ["instance[1]", "list of 2"]),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_a_body_that_does_not_fit_is_400_and_says_what_was_found_where_and_what_was_expected(
    good: InProcess, model: str, body: bytes, words: list[str]
) -> None:
    status = 413 if len(body) > 4096 else 400
    message = error_of(good.send(f"/predict/{model}", body, content_type="application/json"), status)

    for word in words:
        assert word in message


def test_nesting_without_end_is_400(one_model: Path) -> None:
    with InProcess(one_model) as served:
        for body in (
            b"[" * 100_000,
            b'{"instance": ' * 50_000,
            b'{"instance": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
        ):
            error_of(served.send("/predict", body), 400)
        assert served.send("/predict", RECORD).status_code == 200


# 404


@pytest.mark.parametrize("name", ["nobody", "Affine", "affine ", "%2e%2e", "x" * 3000, "<script>"])
def test_an_unknown_model_is_404_with_the_names_that_exist(good: InProcess, name: str) -> None:
    message = error_of(good.send(f"/predict/{name}", RECORD), 404)

    assert "affine" in message
    assert "pair" in message
    assert len(message) < 1000


def test_predict_without_a_default_model_is_404_and_says_how_to_choose(good_models: Path) -> None:
    with InProcess(good_models) as served:
        message = error_of(served.send("/predict", RECORD), 404)

    assert "affine" in message
    assert "default_model" in message


def test_a_default_model_that_does_not_exist_is_404_with_its_name(one_model: Path) -> None:
    with InProcess(one_model, default_model="ghost") as served:
        message = error_of(served.send("/predict", RECORD), 404)

    assert "ghost" in message
    assert "affine" in message


@pytest.mark.parametrize("names", [["only"], ["other", "default"]])
def test_the_only_model_or_the_one_called_default_is_the_default(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "models").mkdir()
    for offset, name in enumerate(names):
        (tmp_path / "models" / f"{name}.tflite").write_bytes(tflite.affine(2.0, float(offset)))
    with InProcess(tmp_path / "models") as served:
        assert served.post("/predict", {"instance": [0, 0, 0, 0]}).json() == {"prediction": [len(names) - 1.0] * 4}


# Media types


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "APPLICATION/JSON",
        "Application/Json ; Charset=utf-8",
        "application/x-www-form-urlencoded",
        "text/json",
    ],
)
def test_a_json_body_is_known_by_any_of_its_names_and_by_none(good: InProcess, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content_type": content_type}

    assert good.send("/predict", RECORD, **headers).json() == ANSWER


@pytest.mark.parametrize("content_type", ["text/csv", "application/xml", "multipart/form-data; boundary=x", "nonsense"])
def test_another_media_type_is_415_and_says_what_was_found_and_what_is_taken(
    good: InProcess, content_type: str
) -> None:
    message = error_of(good.send("/predict", RECORD, content_type=content_type), 415)

    assert content_type in message
    assert "application/json" in message
    assert NPY in message


@pytest.mark.parametrize("content_type", [NPY, "Application/X-NPY", NPY + "; version=1"])
def test_an_npy_body_is_answered_with_json(good: InProcess, content_type: str) -> None:
    response = good.send("/predict", npy([[1, 2, 3, 4], [0, 0, 0, 0]]), content_type=content_type)

    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert next(iter(response.json().values())) == [[3, 5, 7, 9], [1, 1, 1, 1]]


@pytest.mark.parametrize("accept", [NPY, "APPLICATION/X-NPY", f"{NPY}, */*", f"application/json;q=0.5, {NPY}"])
def test_the_answer_is_npy_when_accept_asks_for_it(good: InProcess, accept: str) -> None:
    binary = good.send("/predict", npy([[1, 2, 3, 4]]), content_type=NPY, accept=accept)
    text = good.send("/predict", b'{"instances": [[1, 2, 3, 4]]}', accept=accept)

    for response in (binary, text):
        array = loaded(response)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, [[3, 5, 7, 9]])


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "application/*", "text/html", f"{NPY};q=0, application/json"]
)
def test_the_answer_is_json_when_accept_does_not_ask_for_npy(good: InProcess, accept: str) -> None:
    response = good.send("/predict", RECORD, accept=accept)

    assert response.headers["content-type"] == "application/json"
    assert response.json() == ANSWER


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("affine", b""),
        ("affine", b"no npy"),
        ("affine", npy([[1, 2, 3, 4]])[:-1]),
        ("affine", npy([[1, 2, 3, 4]]) + b"x"),
        ("affine", npy([[1, 2, 3]])),
        ("affine", npy([["a", "b", "c", "d"]], "U1")),
        ("affine", npy([[1, 2, 3, 4]], "complex64")),
        ("pair", npy([[1, 2, 3]])),
        ("int8", npy([[1, 2, 3, 300]], "int32")),
    ],
    ids=["empty", "text", "short", "long", "shape", "strings", "complex", "two inputs", "range"],
)
def test_an_npy_body_that_does_not_fit_is_refused(good: InProcess, model: str, body: bytes) -> None:
    response = good.send(f"/predict/{model}", body, content_type=NPY)

    assert response.status_code in (400, 415)
    error_of(response, response.status_code)


def test_an_npy_body_that_would_run_code_is_400(good: InProcess) -> None:
    file = io.BytesIO()
    np.save(file, np.array([print], object), allow_pickle=True)

    error_of(good.send("/predict", file.getvalue(), content_type=NPY), 400)


def test_an_npy_answer_of_a_model_with_two_outputs_is_415(good: InProcess) -> None:
    body = json.dumps({"instance": {"left": [1, 2, 3], "right": [4, 5, 6]}}).encode()

    message = error_of(good.send("/predict/pair", body, accept=NPY), 415)
    assert "total" in message


# 415 for what is wrapped around the body


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"content_encoding": "zstd"}, "Content-Encoding"),
        ({"content_encoding": "identity, br"}, "Content-Encoding"),
        ({"content_type": "application/json; charset=utf-16"}, "charset"),
        ({"content_type": "application/json;Charset = latin-1"}, "charset"),
    ],
)
def test_a_coded_body_is_415(good: InProcess, headers: dict[str, str], named: str) -> None:
    message = error_of(good.send("/predict", RECORD, **headers), 415)

    assert named in message
    assert "expected" in message or "not supported" in message


@pytest.mark.parametrize(
    "headers",
    [
        {"content_encoding": "identity"},
        {"content_encoding": ""},
        {"content_type": "application/json; charset=UTF-8"},
        {"content_type": 'application/json; x=y; charset="us-ascii"'},
    ],
)
def test_a_body_that_is_named_plain_is_taken(good: InProcess, headers: dict[str, str]) -> None:
    assert good.send("/predict", RECORD, **headers).json() == ANSWER


# 413


GONE = {"type": "http.disconnect"}


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_that_says_that_it_is_too_large_is_413_before_any_of_it_is_read(good: InProcess) -> None:
    headers = [(b"content-length", b"4097")]

    start, body, _ = good.run(call_raw(good.app, "/predict", [GONE], headers))

    assert start["status"] == 413
    message = json.loads(body["body"])["error"]
    assert "4097" in message
    assert "4096" in message


def test_a_body_of_the_largest_size_is_taken(good: InProcess) -> None:
    assert good.send("/predict", RECORD.ljust(4096)).json() == ANSWER
    error_of(good.send("/predict", RECORD.ljust(4097)), 413)


def test_a_chunked_body_is_413_as_soon_as_it_is_too_large(good: InProcess) -> None:
    start, body, _ = good.run(call_raw(good.app, "/predict", [*[part(b" " * 1000)] * 5, GONE]))

    assert start["status"] == 413
    assert "4096" in json.loads(body["body"])["error"]


@pytest.mark.parametrize(
    ("parts", "read"),
    [([part(b" " * 5000, more=False)], 1), ([part(b" " * 1000)] * 5 + [part(b"", more=False)], 6),
     ([part(b" " * 1000)] * 20, 9)],
    ids=["whole", "chunks", "endless"],
)  # fmt: skip
def test_an_answer_of_413_is_over_once_the_rest_is_dropped_or_too_much_of_it(
    good: InProcess, parts: list[dict[str, Any]], read: int
) -> None:
    asked = 0

    def count() -> Iterator[dict[str, Any]]:
        nonlocal asked
        for each in parts:
            asked += 1
            yield each

    sent: list[dict[str, Any]] = []
    messages = count()

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append({**message, "asked": asked})

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "path_params": {}}
    good.run(Predict(good.services.dataplane, 4096)(scope, receive, send))

    start, body, end = sent
    assert start["status"] == 413
    assert body["more_body"]
    assert body["asked"] == min(len(parts), 5), "the answer does not wait"
    assert not end.get("more_body", False)
    assert end["asked"] == read


@pytest.mark.parametrize("length", [b"", b"-1", b"4e3", b"0x10", b"9" * 100, "²".encode("latin-1")])
def test_a_content_length_that_is_no_number_is_none(good: InProcess, length: bytes) -> None:
    message = {"type": "http.request", "body": RECORD, "more_body": False}

    start = good.run(call_raw(good.app, "/predict", [message], [(b"content-length", length)]))[0]

    assert start["status"] in (200, 400, 413)


def test_a_chunked_body_is_put_together(good: InProcess) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(RECORD), 5):
            yield RECORD[start : start + 5]

    response = good.run(good.client.post("/predict", content=chunks()))

    assert "content-length" not in response.request.headers
    assert response.json() == ANSWER


# 500


def test_values_that_the_model_does_not_run_on_are_the_caller_s_fault_and_told_to_the_caller(good: InProcess) -> None:
    message = error_of(good.post("/predict/lookup", {"instance": [99]}), 400)

    assert message.startswith("model 'lookup' does not run on these shapes and values: ")
    assert "gather index out of bounds" in message
    assert good.post("/predict/lookup", {"instance": [1]}).json() == {"prediction": [20]}, "it serves on"


@pytest.mark.parametrize("inline_us", [300, 0], ids=["inline", "pool"])
def test_a_bug_behind_predict_is_500_with_a_request_id_and_no_word_of_the_code(
    one_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, inline_us: int
) -> None:
    def broken(*_: object) -> list[Any]:
        raise ZeroDivisionError("a secret of the code")

    with InProcess(one_model, inline_us=inline_us) as served:
        with monkeypatch.context() as patch:
            patch.setattr(batching, "run", broken)
            message = error_of(served.send("/predict", RECORD), 500)
        assert served.send("/predict", RECORD).json() == ANSWER

    identity = re.search(r"\b[0-9a-f]{16}\b", message)
    assert identity
    assert "secret" not in message
    assert identity[0] in caplog.text
    assert "a secret of the code" in caplog.text


def test_a_bug_in_a_codec_is_500_with_a_request_id(
    one_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret of the code")

    with InProcess(one_model) as served:
        with monkeypatch.context() as patch:
            patch.setattr(PredictJson, "decode", broken)
            message = error_of(served.send("/predict", RECORD), 500)
        assert served.send("/predict", RECORD).json() == ANSWER

    assert re.search(r"\b[0-9a-f]{16}\b", message)
    assert "secret" not in message
    assert "a secret of the code" in caplog.text


# 503 and 504


class HeldPool:
    """Holds every invoke until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Event()
        self._go = threading.Event()
        self._run = batching.run
        monkeypatch.setattr(batching, "run", self._held)

    def _held(self, *arguments: Any) -> Any:
        self.entered.set()
        assert self._go.wait(PATIENCE)
        return self._run(*arguments)

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, PATIENCE)

    def __enter__(self) -> "HeldPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._go.set()

    def let_go(self) -> None:
        self._go.set()


def test_a_full_queue_is_503_with_retry_after_and_those_that_wait_are_answered(
    one_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with InProcess(one_model, inline_us=0, queue_size=1) as served, HeldPool(monkeypatch) as pool:

        def ask() -> "asyncio.Task[httpx.Response]":
            return asyncio.ensure_future(served.client.post("/predict", content=RECORD))

        async def crowd() -> tuple[httpx.Response, list[httpx.Response]]:
            running = ask()
            await pool.wait_entered()
            waiting = {ask(), ask()}
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            pool.let_go()
            return done.pop().result(), list(await asyncio.gather(running, *waiting))

        refused, answered = served.run(crowd())
        message = error_of(refused, 503)
        assert "affine" in message
        assert int(refused.headers["retry-after"]) > 0
        assert [response.json() for response in answered] == [ANSWER, ANSWER]
        assert requests(served) == {("affine", "1", "UNAVAILABLE"): 1, ("affine", "1", "OK"): 2}


def test_a_request_that_waited_longer_than_it_may_is_504(one_model: Path) -> None:
    with InProcess(one_model, inline_us=0, request_timeout=1e-9) as served:
        message = error_of(served.send("/predict", RECORD), 504)

        assert "waited" in message
        assert requests(served) == {("affine", "1", "DEADLINE_EXCEEDED"): 1}


# Clients that go away


def test_a_client_that_goes_before_its_request_is_whole_gets_no_answer(good: InProcess) -> None:
    before = requests(good)
    part: dict[str, Any] = {"type": "http.request", "body": RECORD[:5], "more_body": True}
    messages = [part, {"type": "http.disconnect"}]

    assert good.run(call_raw(good.app, "/predict", messages)) == []
    assert requests(good) == before


def test_a_client_that_goes_while_it_waits_is_not_answered_and_its_call_is_not_run(
    one_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: dict[str, Any] = {"type": "http.request", "body": RECORD, "more_body": False}
    with InProcess(one_model, inline_us=0) as served, HeldPool(monkeypatch) as pool:

        async def leave() -> list[dict[str, Any]]:
            stays = asyncio.ensure_future(served.client.post("/predict", content=RECORD))
            await pool.wait_entered()
            messages: list[dict[str, Any]] = [whole, {"type": "http.disconnect"}]
            sent = await call_raw(served.app, "/predict", messages)
            pool.let_go()
            assert (await stays).json() == ANSWER
            return sent

        assert served.run(leave()) == []
        # What was abandoned leaves the queue before what comes after it.
        assert served.send("/predict", RECORD).json() == ANSWER
        assert requests(served) == {("affine", "1", "OK"): 2, ("affine", "1", "CANCELLED"): 1}


# Many at once


@pytest.mark.parametrize("inline_us", [300, 0], ids=["inline", "pool"])
def test_requests_sent_at_once_each_get_their_own_answer(one_model: Path, inline_us: int) -> None:
    async def all_at_once(served: InProcess) -> list[httpx.Response]:
        asked = (served.client.post("/predict", json={"instance": [number] * 4}) for number in range(200))
        return await asyncio.gather(*asked)

    with InProcess(one_model, inline_us=inline_us, threads=4) as served:
        answers = served.run(all_at_once(served))

    assert [answer.json() for answer in answers] == [{"prediction": [2 * number + 1] * 4} for number in range(200)]

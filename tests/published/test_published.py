"""Published models, served as anyone would serve them, answer as TensorFlow or the plain interpreter does."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.e2e.process import PATIENCE, Litepool
from tests.published.catalogue import CATALOGUE, REFUSED, SERVED, Published
from tests.published.compare import worst
from tests.published.reference import Reference, read

pytestmark = [pytest.mark.published, pytest.mark.slow, pytest.mark.timeout(3600)]

CLIENTS = 32

every = pytest.mark.parametrize("model", CATALOGUE, ids=lambda model: model.name)
served = pytest.mark.parametrize("model", SERVED, ids=lambda model: model.name)
refused = pytest.mark.parametrize("model", REFUSED, ids=lambda model: model.name)


@pytest.fixture
def references(model: Published, answers: Path) -> dict[int, Reference]:
    return read(model, answers)


@pytest.fixture
def available(model: Published, health: dict[str, Any]) -> None:
    """Skips what is asked of a model that is not served, since one test has failed of that already."""
    if health[model.name]["state"] != "AVAILABLE":
        pytest.skip(f"{model.name} is not served")


@dataclass(frozen=True)
class Ask:
    """A request for some records of a model, and their right answers."""

    model: Published
    reference: Reference
    rows: list[int]
    right: dict[str, Any]
    together: bool = True

    def body(self) -> bytes:
        records = [self.reference.record(row) for row in self.rows]
        document = {"instances": records} if self.together else {"instance": records[0]}
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)

    def difference(self, answer: dict[str, Any]) -> float:
        predictions = answer["predictions"] if self.together else [answer["prediction"]]
        return worst(self.reference, self.right, self.rows, predictions)


def alone(model: Published, reference: Reference, row: int) -> Ask:
    right = {name: array[row : row + 1] for name, array in reference.alone.items()}
    return Ask(model, reference, [row], right, together=False)


def batches(model: Published, reference: Reference) -> Iterator[Ask]:
    for count, right in reference.batches.items():
        yield Ask(model, reference, list(range(count)), right)


def send(client: Any, ask: Ask, body: bytes) -> float:
    """The difference of the answer to one request."""
    reply = client.send("POST", f"/predict/{ask.model.name}", body, {"Content-Type": "application/json"})
    assert reply.status == 200, f"{ask.model.name}, records {ask.rows}: {reply.status} {reply.body[:300]!r}"
    return ask.difference(reply.json())


def note(row: dict[str, Any], differences: list[float]) -> float:
    """The worst of the differences; the row of the table keeps the worst of all tests."""
    found = max(differences)
    row["difference"] = max(found, row.get("difference", 0.0))
    return found


@every
def test_it_is_served_in_its_class_or_refused_with_its_cause(
    model: Published, server: Litepool, health: dict[str, Any], row: dict[str, Any]
) -> None:
    found = health[model.name]
    if model.refused:
        row["refused"] = found["reason"]
        assert found["state"] == "FAILED"
        assert re.search(model.refused, found["reason"])
        return
    row["refused"] = found["reason"]
    assert found["state"] == "AVAILABLE", found["reason"]
    with server.client() as client:
        report = client.get(f"/models/{model.name}").json()
    row["class"] = report["batching"]["class"]
    row["rung"] = rung(report)
    assert row["class"] in model.classes
    assert row["rung"] == (model.rung if model.tensorflow else "")


def rung(report: dict[str, Any]) -> str:
    """How it came to what runs it: a step of the conversion ladder, TensorFlow, or nothing for .tflite files."""
    if report["engine"] == "tensorflow":
        return "TensorFlow"
    return str(report["conversion"]["rung"]) if report["conversion"] else ""


@refused
def test_a_refused_model_is_answered_503_with_its_cause(model: Published, server: Litepool) -> None:
    with server.client() as client:
        reply = client.post(f"/predict/{model.name}", {"instance": 0})
    assert reply.status == 503
    assert re.search(model.refused, reply.json()["error"])


@served
@pytest.mark.usefixtures("available")
def test_single_records_are_answered_right(
    model: Published, references: dict[int, Reference], server: Litepool, row: dict[str, Any]
) -> None:
    asks = [alone(model, reference, index) for reference in references.values() for index in range(model.rows)]
    with server.client() as client:
        assert note(row, [send(client, ask, ask.body()) for ask in asks]) <= model.tolerance


@served
@pytest.mark.usefixtures("available")
def test_batches_are_answered_right(
    model: Published, references: dict[int, Reference], server: Litepool, row: dict[str, Any]
) -> None:
    asks = [ask for reference in references.values() for ask in batches(model, reference)]
    with server.client() as client:
        assert note(row, [send(client, ask, ask.body()) for ask in asks]) <= model.tolerance


@served
@pytest.mark.usefixtures("available")
def test_many_clients_at_once_are_answered_right(
    model: Published, references: dict[int, Reference], server: Litepool, row: dict[str, Any]
) -> None:
    pairs = [(reference, index) for index in range(model.rows) for reference in references.values()]
    asks = [alone(model, *pairs[number % len(pairs)]) for number in range(CLIENTS)]
    assert note(row, at_once(server, [[ask] * model.rounds for ask in asks])) <= model.tolerance


def test_clients_of_all_models_at_once_are_answered_right(
    answers: Path, server: Litepool, health: dict[str, Any]
) -> None:
    """Each client goes through all models, beginning at another and with other records; some send small batches."""
    models = [model for model in SERVED if health[model.name]["state"] == "AVAILABLE"]
    assert len(models) >= 12
    references = [(model, next(iter(read(model, answers).values()))) for model in models]
    orders = []
    for number in range(CLIENTS):
        order = []
        for step in range(len(references)):
            model, reference = references[(number + step) % len(references)]
            index = (number * 5 + step) % model.rows
            small = Ask(model, reference, [0, 1], reference.batches[2])
            order.append(small if (number + step) % 4 == 0 else alone(model, reference, index))
        orders.append(order)
    excess = at_once(server, orders, relative=True)
    assert max(excess) <= 1


@served
@pytest.mark.usefixtures("available")
def test_a_record_of_another_shape_is_refused(
    model: Published, references: dict[int, Reference], server: Litepool
) -> None:
    """One dimension more; and, where its size is not free, a last dimension that is longer by one."""
    inputs = next(iter(references.values())).inputs
    (name, array), *_ = inputs.items()
    record = array[0].decode() if array.dtype == object else array[0]
    wrong: list[Any] = [[record]]
    if array.ndim > 1 and dict(model.inputs)[name].shape[-1] > 0:
        wrong.append(np.concatenate([record, record[..., :1]], axis=-1))
    with server.client() as client:
        for each in wrong:
            reply = client.post(f"/predict/{model.name}", {"instance": each})
            assert (reply.status, list(reply.json())) == (400, ["error"])


def at_once(server: Litepool, orders: list[list[Ask]], relative: bool = False) -> list[float]:
    """The differences of all answers to clients that go through their orders at the same time.

    Args:
        relative: to what each model is allowed.
    """
    start = threading.Barrier(len(orders))

    def client(order: list[Ask]) -> list[float]:
        bodies = {id(ask): ask.body() for ask in order}
        with server.client() as connection:
            connection.connect()
            start.wait(PATIENCE)
            return [send(connection, ask, bodies[id(ask)]) / (ask.model.tolerance if relative else 1) for ask in order]

    with ThreadPoolExecutor(len(orders)) as pool:
        return [difference for found in pool.map(client, orders) for difference in found]
